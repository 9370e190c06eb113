"""What a job says about itself is believed within bounds, and only where its weights really lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.training.plan import read_merge_result, read_train_result

RESULT: dict[str, Any] = {
    "n_steps": 3, "max_steps": 3, "train_loss": 1.0, "n_tokens": 10, "n_rows": 2, "n_rows_trained": 2,
    "share_tokens_trained": 0.5, "share_rows_with_end": 1.0, "train_s": 1.5, "weights": "adapter",
    "resumed_from_step": None, "device": "cpu", "versions": {"torch": "2.9"},
}  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").touch()
    (folder / "result.json").write_text(json.dumps(RESULT))
    return folder


def test_a_result_with_its_weights_is_read(job: Path) -> None:
    assert read_train_result(job).n_steps == 3


@pytest.mark.parametrize(
    "change",
    [
        {"n_tokens": -1},
        {"n_tokens": 10**400},
        {"n_steps": 1.5},
        {"train_s": float("inf")},
        {"train_s": float("nan")},
        {"weights": "../elsewhere"},
        {"device": "x" * 1000},
        {"versions": {str(number): "1" for number in range(1000)}},
        {"versions": {"torch": ["2"]}},
        {"versions": None},
    ],
)
def test_a_value_out_of_bounds_makes_the_result_unusable(job: Path, change: dict[str, Any]) -> None:
    (job / "result.json").write_text(json.dumps(RESULT | change))
    with pytest.raises(JobError, match="not usable"):
        read_train_result(job)


def test_texts_are_cleaned(job: Path) -> None:
    hostile = {"device": "c\x1b[2Jpu\u202e", "versions": {"to\x07rch": "2\r9"}}
    (job / "result.json").write_text(json.dumps(RESULT | hostile))
    result = read_train_result(job)
    assert (result.device, result.versions) == ("cpu", {"torch": "2\n9"})


def test_missing_weights_are_no_result_and_strange_ones_are_left_to_the_judge(job: Path) -> None:
    weights = job / "adapter" / "adapter_model.safetensors"
    weights.unlink()
    with pytest.raises(JobError, match=r"left no `adapter/adapter_model\.safetensors`"):
        read_train_result(job)
    weights.symlink_to("/etc/passwd")
    assert read_train_result(job).weights == "adapter"
    (job / "adapter").rename(job / "elsewhere")
    with pytest.raises(JobError, match="left no `adapter`"):
        read_train_result(job)
    (job / "adapter").symlink_to("elsewhere")
    assert read_train_result(job).weights == "adapter"


def test_a_full_model_needs_config_and_safetensors(job: Path) -> None:
    (job / "result.json").write_text(json.dumps(RESULT | {"weights": "model"}))
    (job / "model").mkdir()
    with pytest.raises(JobError, match=r"left no `model/config\.json`"):
        read_train_result(job)
    (job / "model" / "config.json").write_text("{}")
    with pytest.raises(JobError, match="left no safetensors"):
        read_train_result(job)
    (job / "model" / "model.safetensors").touch()
    assert read_train_result(job).weights == "model"


@pytest.mark.parametrize("difference", [-1.0, float("nan"), None, "0"])
def test_a_merge_must_have_measured_something(tmp_path: Path, difference: Any) -> None:
    result = {
        "max_abs_diff": difference, "max_abs_logit": 3.0, "n_prompts": 8, "kind": "merged",
        "dtype": "float32", "seconds": 1.0, "versions": {},
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(result))
    if difference == "0":
        assert read_merge_result(tmp_path).max_abs_diff == 0.0
    else:
        with pytest.raises(JobError, match="not usable"):
            read_merge_result(tmp_path)
