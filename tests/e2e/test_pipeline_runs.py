"""Recipes of several stages as whole runs: real TRL, real merges, real sampling, one claim at the end."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from world import World

pytestmark = [pytest.mark.train]

COMMON = {"micro_batch": 8, "effective_batch": 8, "max_length": 64}
SFT = {
    "kind": "sft", **COMMON, "adapter": {"kind": "lora", "r": 8, "alpha": 16}, "learning_rate": 1e-2,
    "max_steps": 40,
}  # fmt: skip
LORA = {"kind": "lora", "r": 8, "alpha": 16}
MERGE = {"kind": "merge"}


def recipe_file(world: World, name: str, *stages: dict[str, Any]) -> Path:
    path = world.root / f"{name}.json"
    path.write_text(json.dumps({"stages": stages}))
    return path


def stage_outputs(run_dir: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{run_dir}/run.db?mode=ro", uri=True) as connection:
        (text,) = connection.execute("SELECT output FROM steps WHERE loop = 0 AND step = 'train'").fetchone()
    output = json.loads(text)
    assert output["failure"] is None, output["failure"]
    return output["stages"]


def run_pipeline(world: World, name: str, *stages: dict[str, Any], more: tuple[str, ...] = ()) -> Path:
    recipe = recipe_file(world, name, *stages)
    done = world.run(name, *world.new("--loop_n", "1", "--recipe", str(recipe), *more), timeout_s=900.0)
    assert done.code == 0, done.err
    assert done.document["claim"]["n"] == 40
    return Path(done.document["run_dir"])


def perturb(weights: Path) -> None:
    """Make another model of a copy: a teacher that equals its student has nothing to teach."""
    from safetensors.numpy import load_file, save_file

    generator = np.random.default_rng(1)
    tensors = load_file(weights)
    changed = {
        name: (value + generator.normal(0.0, 0.05, value.shape)).astype(value.dtype)
        for name, value in tensors.items()
    }
    save_file(changed, weights, metadata={"format": "pt"})


def test_sft_merge_dpo_on_own_samples_merge(world: World) -> None:
    dpo = {
        "kind": "dpo", **COMMON, "adapter": LORA, "learning_rate": 5e-3, "max_steps": 20, "pairs": "sampled",
        "sampling": {"n_samples": 3, "max_prompts": 24}, "loss_type": ["sigmoid", "sft"],
        "loss_weights": [1.0, 0.1],
    }  # fmt: skip
    run_dir = run_pipeline(world, "dpo", SFT, MERGE, dpo, MERGE)
    sft, first_merge, trained, last_merge = stage_outputs(run_dir)
    assert [stage["kind"] for stage in (sft, first_merge, trained, last_merge)] == [
        "sft",
        "merge",
        "dpo",
        "merge",
    ]
    assert sft["health"]["last_loss"] < sft["health"]["first_loss"]
    assert (trained["parent"], trained["reference"], trained["weights_kind"]) == (2, "stage 2", "adapter")
    first, last = trained["metrics"]["rewards/margins"]
    assert last > first, "DPO must raise the margin between chosen and rejected"
    assert last_merge["metrics"]["max_logit_diff"][0] < 1e-5
    manifest = json.loads((run_dir / trained["folder"] / "manifest.json").read_text())
    assert manifest["parent_sha256"] == first_merge["weights_sha256"]
    pairs = [json.loads(line) for line in (run_dir / "loops/000/data/3-dpo.jsonl").read_text().splitlines()]
    assert len(pairs) == trained["n_rows"]
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
    report = (run_dir / "report.html").read_text()
    assert "Stages of loop 0" in report


def test_given_preferences_train_kto_from_the_base_model(world: World) -> None:
    rows = [json.loads(line) for line in world.data.read_text().splitlines()]
    pairs = world.root / "pairs.jsonl"
    answers = sorted({row["completion"] for row in rows})
    pairs.write_text(
        "".join(
            json.dumps(
                {
                    "prompt": f"Which colour goes with number {n}?",
                    "chosen": answers[n % len(answers)],
                    "rejected": answers[(n + 1) % len(answers)],
                }
            )
            + "\n"
            for n in range(60)
        )
    )
    kto = {"kind": "kto", **COMMON, "adapter": LORA, "learning_rate": 5e-3, "max_steps": 15, "pairs": "given"}
    run_dir = run_pipeline(world, "kto", kto, more=("--preferences", str(pairs)))
    (stage,) = stage_outputs(run_dir)
    assert (stage["reference"], stage["weights_kind"], stage["n_rows"]) == ("base", "adapter", 120)
    assert stage["metrics"]


def test_reward_model_then_grpo(world: World) -> None:
    reward = {
        "kind": "reward", **COMMON, "adapter": {"kind": "full"}, "learning_rate": 1e-3, "max_steps": 10,
        "pairs": "sampled", "sampling": {"n_samples": 2, "max_prompts": 24},
    }  # fmt: skip
    grpo = {
        "kind": "grpo", "micro_batch": 8, "effective_batch": 4, "max_length": 64, "adapter": LORA,
        "learning_rate": 1e-3, "max_steps": 3, "num_generations": 4, "max_completion_length": 8,
        "rewards": [{"kind": "exact"}, {"kind": "reward_model", "weight": 0.5}],
    }  # fmt: skip
    run_dir = run_pipeline(world, "grpo", SFT, MERGE, reward, grpo)
    kinds = [stage["kind"] for stage in stage_outputs(run_dir)]
    assert kinds == ["sft", "merge", "reward", "grpo", "merge"], "the program merges what is not on the base"
    policy = stage_outputs(run_dir)[3]
    assert policy["parent"] == 2, "a reward model is a side branch: the policy starts from the merge"
    assert "reward" in policy["metrics"]


def test_distillation_from_a_local_teacher(world: World) -> None:
    teacher = world.files("distill") / "models" / "teacher"
    shutil.copytree(world.model, teacher)
    perturb(teacher / "model.safetensors")
    distill = {
        "kind": "distill", **COMMON, "adapter": LORA, "learning_rate": 1e-3, "max_steps": 3,
        "teacher": "teacher", "max_completion_length": 8,
    }  # fmt: skip
    (stage,) = stage_outputs(run_pipeline(world, "distill", distill))
    assert stage["health"]["verdict"] == "ok"
    assert stage["health"]["first_loss"] > 0, "teacher and student differ"


@pytest.mark.parametrize(
    ("stages", "needle"),
    [
        ((SFT, {"kind": "dpo", **COMMON, "pairs": "sampled"}), "merge"),
        (({"kind": "dpo", **COMMON, "pairs": "given"},), "preferences"),
        (({"kind": "distill", **COMMON, "teacher": "nobody/knows", "max_completion_length": 8},), "teacher"),
        (({"kind": "sft", **COMMON, "train_on": "assistant_turns"},), "assistant_turns"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_job(
    world: World, stages: tuple[dict[str, Any], ...], needle: str
) -> None:
    recipe = recipe_file(world, "refused", *stages)
    done = world.run("refused", *world.new("--loop_n", "1", "--recipe", str(recipe)))
    assert done.code == 3, done.err
    assert needle in done.err
    assert "Traceback" not in done.err
    assert not list(world.files("refused").glob("output/*/loops"))
