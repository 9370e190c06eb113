"""A whole run that LLaMA-Factory trains, in its own environment; scoring and claim are as always."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_pipeline_runs import LORA, MERGE, SFT, recipe_file, stage_outputs
from world import World

PYTHON = os.environ.get("FT_TEST_LLAMAFACTORY")
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(PYTHON is None, reason="FT_TEST_LLAMAFACTORY names no Python with LLaMA-Factory"),
]


def run_with(world: World, name: str, recipe: Path, loop_n: int = 1) -> tuple[int, str, str]:
    done = world.run(
        name, *world.new("--loop_n", str(loop_n), "--recipe", str(recipe)), timeout_s=900.0,
        FT_TRAINER="llamafactory", FT_LLAMAFACTORY_PYTHON=str(PYTHON),
    )  # fmt: skip
    return done.code, done.out, done.err


def test_sft_merge_dpo_trained_by_llamafactory(world: World) -> None:
    dpo = {
        "kind": "dpo", "micro_batch": 8, "effective_batch": 8, "max_length": 64, "adapter": LORA,
        "learning_rate": 5e-3, "max_steps": 10, "pairs": "sampled",
        "sampling": {"n_samples": 2, "max_prompts": 24},
    }  # fmt: skip
    code, out, err = run_with(world, "llamafactory", recipe_file(world, "llamafactory", SFT, MERGE, dpo))
    assert code == 0, err
    document = json.loads(out)
    assert document["claim"]["n"] == 40
    stages = stage_outputs(Path(document["run_dir"]))
    assert [stage["kind"] for stage in stages] == ["sft", "merge", "dpo", "merge"]
    assert stages[0]["health"]["last_loss"] < stages[0]["health"]["first_loss"]
    config = (Path(document["run_dir"]) / "loops/000/files/1-sft.yaml").read_text()
    assert "finetuning_type: lora" in config


def test_what_it_cannot_train_is_refused_with_the_way_out(world: World) -> None:
    grpo = {
        "kind": "grpo", "micro_batch": 8, "effective_batch": 8, "max_length": 64,
        "rewards": [{"kind": "exact"}], "max_completion_length": 8,
    }  # fmt: skip
    code, _, err = run_with(world, "llamafactory-grpo", recipe_file(world, "lf-grpo", grpo))
    assert code == 3
    assert "config.trainer" in err
    assert "trl" in err
