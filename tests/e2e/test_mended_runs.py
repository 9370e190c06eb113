"""Failed trainings in whole runs: fixes that keep the task inside the loop, others as a new recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import World, outputs, short_of_memory

pytestmark = [pytest.mark.train]


def test_memory_is_found_by_smaller_passes_with_the_same_batch(world: World) -> None:
    folder = world.files("memory")
    folder.mkdir()
    python = short_of_memory(folder, n_fits=4)
    recipe = world.recipe("memory", micro_batch=16, effective_batch=16, epochs=1)
    done = world.run("memory", *world.new("--loop_n", "1", "--recipe", str(recipe)), FT_PYTHON=str(python))
    assert done.code == 0, done.err
    assert "micro_batch 16 -> 8" in done.err, "a fix is never silent"
    run_dir = Path(done.document["run_dir"])
    (trained,) = outputs(run_dir, "train")
    assert trained["failure"] is None
    (stage,) = trained["stages"]
    assert [words.split(",")[0] for words in stage["repairs"]] == [
        "micro_batch 16 -> 8",
        "micro_batch 8 -> 4",
    ]
    assert [each["failure_class"] for each in stage["tries"]] == ["resource.gpu_oom"] * 2
    config = (run_dir / "loops/000/files/1-sft-fix2.yaml").read_text()
    assert "per_device_train_batch_size: 4" in config
    assert "gradient_accumulation_steps: 4" in config
    assert "micro_batch 16 -&gt; 8" in (run_dir / "report.html").read_text()


def test_divergence_becomes_a_new_recipe_with_its_reason(world: World) -> None:
    recipe = world.recipe("diverges", learning_rate=1e6, max_steps=40)
    done = world.run("diverges", *world.new("--loop_n", "2", "--recipe", str(recipe)))
    assert done.code == 0, done.err
    run_dir = Path(done.document["run_dir"])
    first, second = outputs(run_dir, "propose")
    assert (first["planner"], second["planner"]) == ("user", "repair")
    assert second["hypothesis"].startswith("Repair of loop 0: it diverged")
    assert second["diff"] == {"stages.0.learning_rate": 1e5}
    assert outputs(run_dir, "train")[0]["failure"]["failure_class"] == "train.diverged"
