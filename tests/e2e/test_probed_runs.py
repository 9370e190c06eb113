"""Probes and forecasts in whole runs: what cannot fit or cannot finish is never trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import World, outputs, short_of_memory

pytestmark = [pytest.mark.train]


def test_a_probe_measures_and_the_next_loop_is_forecast_from_it(world: World) -> None:
    recipe = world.recipe("probed", epochs=2)
    done = world.run("probed", *world.new("--loop_n", "2", "--recipe", str(recipe)), FT_PROBE="always")
    assert done.code == 0, done.err
    assert "three steps on the longest rows first" in done.err
    run_dir = Path(done.document["run_dir"])
    first, second = outputs(run_dir, "code")
    (probe,) = first["probes"]
    assert (probe["number"], probe["kind"], probe["failure"], probe["repairs"]) == (1, "sft", None, [])
    assert probe["factor"]["measured_gib"] == pytest.approx(probe["peak_gib"], abs=1e-3)
    assert first["estimate_gib"] is not None
    assert probe["factor"]["estimate_gib"] <= 2 * first["estimate_gib"]
    assert first["forecast_s"] > 0
    assert not list((run_dir / "loops/000/probes").rglob("*.safetensors")), "a probe keeps no weights"
    # The same kind of training is not probed twice; its own speed forecasts the next one.
    (stage,) = outputs(run_dir, "train")[0]["stages"]
    assert stage["speed"]["stage_kind"] == "sft"
    assert stage["speed"]["tokens_per_s"] > 0
    adapters = {
        json.dumps(each["recipe"]["stages"][0]["adapter"]["kind"]) for each in outputs(run_dir, "propose")
    }
    assert len(second["probes"]) == len(adapters) - 1
    assert second["forecast_s"] > 0
    assert "probe of stage 1 (sft)" in (run_dir / "report.html").read_text()


def test_a_training_that_cannot_end_in_time_is_never_started(world: World) -> None:
    recipe = world.recipe("endless", max_steps=2_000_000)
    done = world.run(
        "endless", *world.new("--loop_n", "1", "--recipe", str(recipe), "--timeout", "60m")
    )  # fmt: skip
    assert done.code == 0, done.err
    run_dir = Path(done.document["run_dir"])
    (coded,) = outputs(run_dir, "code")
    assert "no sft training has been measured" in coded["probes"][0]["why"]
    assert coded["failure"]["failure_class"] == "resource.time"
    assert "stages.0.max_steps" in coded["failure"]["message"]
    assert "s remain" in coded["failure"]["message"]
    assert "max_steps" in coded["failure"]["fix"]
    assert not (run_dir / "loops/000/stages").exists()
    # Nothing is claimed, and nothing was lost.
    assert done.document["status"] == "finished"


def test_memory_is_searched_in_the_probe_and_not_in_the_training(world: World) -> None:
    folder = world.files("fit")
    folder.mkdir()
    python = short_of_memory(folder, n_fits=4)
    recipe = world.recipe("fit", micro_batch=16, effective_batch=16, epochs=1)
    done = world.run(
        "fit", *world.new("--loop_n", "1", "--recipe", str(recipe)), FT_PYTHON=str(python), FT_PROBE="always"
    )
    assert done.code == 0, done.err
    run_dir = Path(done.document["run_dir"])
    (coded,) = outputs(run_dir, "code")
    (probe,) = coded["probes"]
    assert [words.split(",")[0] for words in probe["repairs"]] == [
        "micro_batch 16 -> 8",
        "micro_batch 8 -> 4",
    ]
    assert probe["stage"]["micro_batch"] == 4
    (stage,) = outputs(run_dir, "train")[0]["stages"]
    assert stage["repairs"] == probe["repairs"]
    assert (stage["tries"], stage["failure"]) == ([], None), "the training itself never ran out of memory"


def test_what_fits_in_no_way_ends_before_the_training_and_is_mended(world: World) -> None:
    folder = world.files("never-fits")
    folder.mkdir()
    python = short_of_memory(folder, n_fits=0)
    recipe = world.recipe(
        "never-fits", micro_batch=2, effective_batch=16, epochs=1, gradient_checkpointing=True
    )
    done = world.run(
        "never-fits", *world.new("--loop_n", "2", "--recipe", str(recipe)),
        FT_PYTHON=str(python), FT_PROBE="always",
    )  # fmt: skip
    run_dir = world.run_dir("never-fits")
    first, _ = outputs(run_dir, "code")
    assert first["failure"]["failure_class"] == "resource.gpu_oom", done.err
    assert not (run_dir / "loops/000/stages").exists()
    proposals = outputs(run_dir, "propose")
    assert proposals[1]["planner"] == "repair"
    assert proposals[1]["recipe"]["stages"][0]["adapter"]["kind"] == "lora"
