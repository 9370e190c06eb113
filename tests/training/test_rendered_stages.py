"""The configs that we render start real trainings of every kind: one step each, on a tiny random model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.execution.outputs import read_json_lines
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe

pytestmark = pytest.mark.train

TALK = [{"role": "user", "content": "Is red a colour?"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "sft": [{"prompt": "Colour red?", "completion": " yes"}, {"prompt": "Colour cat?", "completion": " no"}],
    "dpo": [{"prompt": "Colour red?", "chosen": " yes", "rejected": " no"}] * 4,
    "kto": [{"prompt": "Colour red?", "completion": " yes", "label": True},
            {"prompt": "Colour cat?", "completion": " yes", "label": False}] * 2,
    "reward": [{"prompt": "Colour red?", "chosen": " yes", "rejected": " no"}] * 4,
    "grpo": [{"prompt": TALK, "gold": "yes"}] * 4,
    "distill": [{"prompt": TALK}] * 4,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1]},
    "reward": {"adapter": {"kind": "lora", "use_dora": True, "r": 4}},
    "grpo": {
        "rewards": [{"kind": "regex", "pattern": "[a-m]"}], "num_generations": 2, "max_completion_length": 8,
        "micro_batch": 3, "beta": 0.1,
    },
    "distill": {"teacher": "teacher", "max_completion_length": 8, "adapter": {"kind": "full"}},
}  # fmt: skip
RUN_ALL = """
import contextlib, json, os, sys
from rdagent_ft.training import stage_job
for kind, config, extra in json.load(sys.stdin):
    os.chdir(os.path.dirname(config))
    sys.argv = ["stage_job", "--kind", kind, "--config", config, *extra]
    try:
        stage_job.main()
        print("DONE", kind)
    except SystemExit as error:
        print("ENDED", kind, error.code)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each kind after one step; all in one process, because starting costs the most."""
    from rdagent_ft.training.tiny import make_tiny_model

    root = tmp_path_factory.mktemp("rendered")
    texts = ["Is red a colour? yes no cat"] * 8
    make_tiny_model(root / "model", texts, vocab_size=300, hidden=16, heads=2, max_positions=256, chat=True)
    folders: dict[str, Path] = {}
    asked: list[tuple[str, str, list[str]]] = []
    for kind, rows in ROWS.items():
        folder = folders[kind] = root / kind
        folder.mkdir()
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        stage = {"kind": kind, "effective_batch": 2, "micro_batch": 2, "max_steps": 1, "max_length": 64}
        recipe = Recipe.model_validate({"stages": [stage | OWN.get(kind, {})]})
        paths = StagePaths(
            model=root / "model",
            train_file=folder / "rows.jsonl",
            output_dir=Path("output"),
            teacher=root / "model",
        )
        text = render_stage(recipe, 0, paths=paths, facts=RenderFacts(device="cpu")).text
        (folder / "config.yaml").write_text(text)
        extra: list[str] = []
        if kind == "grpo":
            (folder / "rewards.json").write_text(json.dumps([{"weight": 1.0, **OWN["grpo"]["rewards"][0]}]))
            extra = ["--rewards", str(folder / "rewards.json")]
        asked.append((kind, str(folder / "config.yaml"), extra))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_ALL],
        input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith(("DONE", "ENDED"))]
    assert said == [f"DONE {kind}" for kind in ROWS], done.stdout[-2000:] + done.stderr[-3000:]
    return folders


@pytest.mark.parametrize("kind", ROWS)
def test_a_rendered_config_trains(kind: str, trained: dict[str, Path]) -> None:
    result = json.loads((trained[kind] / "result.json").read_text())
    assert result["n_steps"] == result["max_steps"] == 1
    # A reward model is merged at once: a later stage loads it as it is.
    full = kind == "reward" or OWN.get(kind, {}).get("adapter", {}).get("kind") == "full"
    assert result["weights"] == ("model" if full else "adapter")
    (line,) = read_json_lines(trained[kind], "metrics.jsonl")
    assert line["step"] == 1
    weights = trained[kind] / result["weights"]
    assert (weights / ("model.safetensors" if full else "adapter_model.safetensors")).is_file()


def test_a_reward_model_is_a_classifier_with_its_score_head(trained: dict[str, Path]) -> None:
    from safetensors.numpy import load_file

    config = json.loads((trained["reward"] / "model" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    assert "score.weight" in load_file(trained["reward"] / "model" / "model.safetensors")
