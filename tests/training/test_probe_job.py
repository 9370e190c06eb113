"""The probe: three real steps on the longest rows, and what they say about memory and speed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.recipe.calibration import calibrate
from rdagent_ft.recipe.memory import estimate_memory_gib, read_model_shape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage
from rdagent_ft.training.plan import tiny_argv
from rdagent_ft.training.probe_plan import ProbeResult, probe_argv, read_probe_result

pytestmark = pytest.mark.train
N_ROWS = 40
LONG = 3
"""Rows that are longer than the others."""


def run(folder: Path, argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv[1:]], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "texts.jsonl").write_text(json.dumps({"text": "one two three four five six"}) + "\n")
    spec = {"out": "tiny", "texts": "texts.jsonl", "vocab_size": 300, "hidden": 32}
    (folder / "spec.json").write_text(json.dumps(spec))
    done = run(folder, tiny_argv(folder / "spec.json"))
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


def probed(folder: Path, tiny: Path, kind: str, **changes: Any) -> ProbeResult:
    """Probe a stage whose short rows come first and long ones last."""
    dice = random.Random(0)

    def words(n: int) -> str:
        return " ".join(dice.choice(("one", "two", "three")) for _ in range(n))

    def row(number: int) -> dict[str, Any]:
        length = 60 if number >= N_ROWS - LONG else 4
        if kind == "grpo":
            return {"prompt": words(length), "gold": f"one {number}"}
        if kind in ("dpo", "reward"):
            return {"prompt": "go", "chosen": words(length), "rejected": words(5)}
        return {"prompt": f"go {number}", "completion": words(length)}

    (folder / "rows.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in range(N_ROWS)))
    config = {
        "model_name_or_path": str(tiny), "datasets": [{"path": "json", "data_files": "rows.jsonl"}],
        "output_dir": "trainer", "use_peft": False, "bf16": False, "use_cpu": True, "dtype": "float32",
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "num_train_epochs": 50,
        "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False,
        "save_strategy": "steps", "save_steps": 1, **changes,
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))
    rewards = None
    if kind == "grpo":
        rewards = folder / "rewards.json"
        rewards.write_text(json.dumps([{"kind": "exact", "weight": 1.0}]))
    done = run(folder, probe_argv(kind, folder / "config.yaml", rewards=rewards))
    assert done.returncode == 0, done.stderr[-3000:]
    return read_probe_result(folder)


def test_three_steps_on_the_longest_rows_and_no_weights(tiny: Path, tmp_path: Path) -> None:
    result = probed(tmp_path, tiny, "sft", max_length=512)
    assert (result.stage, result.device, result.n_steps, result.n_rows) == ("sft", "cpu", 3, 3)
    assert result.n_tokens is not None
    assert result.n_tokens > 3 * 50  # only long rows were seen: short ones have below ten tokens
    assert result.longest_row_tokens is not None
    assert result.longest_row_tokens >= 60
    assert result.tokens_per_s is not None
    assert result.tokens_per_s > 0
    assert result.before_gib is not None
    assert 0.1 < result.before_gib < result.peak_gib < 8
    assert not list(tmp_path.rglob("*.safetensors"))
    # What was measured calibrates the forecast of the same training.
    stage = SftStage(adapter=FullAdapter(), micro_batch=1, effective_batch=1, max_length=512)
    estimate = estimate_memory_gib(Recipe(stages=(stage,)), read_model_shape(tiny), "cpu")
    factor = calibrate(estimate, result.peak_gib, model="tiny")
    assert not factor.is_bounded
    assert (factor.stage_kind, factor.adapter) == ("sft", "full")


def test_preferences_and_samples_are_probed_too(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "dpo").mkdir()
    pairs = probed(tmp_path / "dpo", tiny, "dpo", max_length=256)
    assert (pairs.stage, pairs.n_steps) == ("dpo", 3)
    # TRL drops pairs that are too long from a reward training: the longest of the others are probed.
    (tmp_path / "reward").mkdir()
    scored = probed(tmp_path / "reward", tiny, "reward", max_length=32)
    assert (scored.stage, scored.n_rows, scored.n_steps) == ("reward", 3, 3)
    assert scored.longest_row_tokens is not None
    assert scored.longest_row_tokens <= 32
    (tmp_path / "grpo").mkdir()
    samples = probed(
        tmp_path / "grpo", tiny, "grpo",
        num_generations=2, per_device_train_batch_size=2, max_completion_length=16,
    )  # fmt: skip
    assert samples.n_tokens is not None
    # Completions are as long as they may become, whatever the model would have said.
    assert samples.n_tokens >= 3 * 2 * (60 + 16)


def test_a_probe_that_left_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError):
        read_probe_result(tmp_path)
    (tmp_path / "result.json").write_text('{"stage": "sft", "peak_gib": -1}')
    with pytest.raises(JobError, match="not usable"):
        read_probe_result(tmp_path)
