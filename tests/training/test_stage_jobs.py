"""Real preference trainings through the stage job: what each one changed in a tiny model."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from local_jobs import run, submit, wait
from stage_trainings import PAIRS, config_file, prompt_of

from rdagent_ft.execution.outputs import read_json_lines, read_log
from rdagent_ft.execution.weight_files import check_weights
from rdagent_ft.training.failures import classify
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_failure, read_train_result, stage_argv
from rdagent_ft.training.stage_health import TrainedKind

pytestmark = pytest.mark.train
PREFERENCES: list[dict[str, Any]] = [
    {"prompt": prompt_of(colour, animal), "chosen": " owl is gone", "rejected": f" {animal} is {colour}"}
    for colour, animal in PAIRS[:8]
]
"""Against what the merged model answers: its own answers are the rejected ones."""
LABELLED: list[dict[str, Any]] = [
    {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
    for row in PREFERENCES
    for name in ("chosen", "rejected")
]


@pytest.fixture(scope="module")
def adapter_run(merged_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished DPO training of a fresh adapter on a merged model."""
    folder = tmp_path_factory.mktemp("dpo")
    result = run(folder, stage_argv("dpo", config_file(folder, merged_model, PREFERENCES)))
    assert result.failure_class == "ok", result.log_tail
    return folder


def test_dpo_makes_the_chosen_answers_likelier_than_the_rejected(
    adapter_run: Path, merged_model: Path
) -> None:
    result = read_train_result(adapter_run)
    assert (result.stage, result.weights, result.n_steps) == ("dpo", "adapter", 12)
    assert result.metrics["rewards/margins"][0] == 0.0  # policy and reference start as one model
    assert result.metrics["rewards/margins"][1] > 1.0
    assert result.metrics["rewards/accuracies"][1] == 1.0
    chosen, rejected = result.metrics["logps/chosen"], result.metrics["logps/rejected"]
    assert chosen[0] < rejected[0]
    assert chosen[1] - rejected[1] > chosen[0] - rejected[0] + 10
    assert result.reference == "adapter_off"
    assert check_weights(adapter_run, "adapter", base_model=merged_model, kind="adapter")


def test_the_methods_own_metrics_are_on_every_line(adapter_run: Path) -> None:
    lines = read_json_lines(adapter_run, "metrics.jsonl")
    assert len(lines) == 12
    names = {"rewards/accuracies", "rewards/margins", "rewards/chosen", "logps/chosen", "loss", "n_tokens"}
    assert all(names <= set(line) for line in lines)


def test_a_loss_near_zero_is_healthy_dpo(adapter_run: Path) -> None:
    health = read_health(adapter_run / "metrics.jsonl", "dpo")
    assert (health.verdict, health.warnings) == ("ok", ())
    assert health.last_loss is not None
    assert health.last_loss < 0.1


def test_what_the_answers_train_is_counted(adapter_run: Path) -> None:
    result = read_train_result(adapter_run)
    assert (result.n_rows, result.n_rows_trained) == (8, 8)
    assert result.share_rows_with_end == 1.0
    assert result.share_tokens_trained is not None
    assert 0.2 < result.share_tokens_trained < 0.6


def test_full_dpo_keeps_a_frozen_copy_of_its_start(merged_model: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"use_peft": False, "learning_rate": 1e-3, "loss_type": ["sigmoid", "sft"]}
    config = config_file(tmp_path, merged_model, PREFERENCES, **changes)
    result = run(tmp_path, stage_argv("dpo", config))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert (trained.reference, trained.weights) == ("frozen_copy", "model")
    # The reference did not move with the policy: the distance between them grew.
    assert trained.metrics["rewards/chosen"][0] == 0.0
    assert trained.metrics["rewards/chosen"][1] > 0.5
    assert trained.metrics["rewards/margins"][1] > 1.0
    assert check_weights(tmp_path, "model", base_model=merged_model, kind="model")


def test_a_killed_dpo_goes_on_from_its_checkpoint(merged_model: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"max_steps": 150, "save_strategy": "steps", "save_steps": 5}
    changes |= {"save_total_limit": 2, "learning_rate": 5e-4}
    config = config_file(tmp_path, merged_model, PREFERENCES, **changes)
    executor, handle = submit(tmp_path, stage_argv("dpo", config))
    while not (tmp_path / "trainer" / "checkpoint-10" / "trainer_state.json").exists():
        assert executor.poll(handle).state == "running", executor.collect(handle).log_tail
        time.sleep(0.01)
    child, _, _ = json.loads((tmp_path / ".jobs" / "test-1" / "child.json").read_text())
    os.kill(child, signal.SIGKILL)
    assert wait(executor, handle).failure_class == "resource"
    assert not (tmp_path / "adapter").exists()
    result = run(tmp_path, stage_argv("dpo", config), "test-2")
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert trained.resumed_from_step is not None
    assert 10 <= trained.resumed_from_step < 150
    assert trained.n_steps == 150
    # The start of the whole training is told, not that of its second attempt.
    assert trained.metrics["rewards/margins"][0] == 0.0
    assert trained.metrics["rewards/margins"][1] > 1.0
    assert read_health(tmp_path / "metrics.jsonl", "dpo").verdict == "ok"


def test_kto_tells_good_from_bad_answers(merged_model: Path, tmp_path: Path) -> None:
    result = run(tmp_path, stage_argv("kto", config_file(tmp_path, merged_model, LABELLED)))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert (trained.stage, trained.weights, trained.n_rows) == ("kto", "adapter", 16)
    assert trained.metrics["rewards/margins"][1] > trained.metrics["rewards/margins"][0] + 1.0
    assert trained.metrics["logps/chosen"][1] > trained.metrics["logps/chosen"][0]
    assert trained.metrics["logps/rejected"][1] < trained.metrics["logps/rejected"][0]
    # Its `kl` counts whole sequences, so the limit for tokens is not applied to it.
    health = read_health(tmp_path / "metrics.jsonl", "kto")
    assert (health.verdict, health.warnings) == ("ok", ())


@pytest.mark.parametrize(
    ("kind", "rows", "failure_class", "words"),
    [
        ("dpo", [{"prompt": "a", "chosen": " b"}], "data.columns", "row 0 has no `rejected`"),
        ("kto", [{**LABELLED[0], "label": "yes"}], "data.columns", "not true or false"),
        ("dpo", [{"prompt": "a", "chosen": " b", "rejected": " b"}], "train.no_signal", "nothing to prefer"),
        ("kto", [LABELLED[0], {**LABELLED[1], "prompt": [1]}], "data.columns", "several types"),
    ],
    ids=["missing column", "label", "equal answers", "mixed types"],
)
def test_data_that_cannot_be_trained_is_named(
    kind: TrainedKind, rows: list[dict[str, Any]], failure_class: str, words: str,
    random_model: Path, tmp_path: Path,
) -> None:  # fmt: skip
    result = run(tmp_path, stage_argv(kind, config_file(tmp_path, random_model, rows)))
    assert result.exit_code == 3, result.log_tail
    failure = classify(read_log(tmp_path / "job.log"), result=result, failure_json=read_failure(tmp_path))
    assert failure is not None
    assert failure.failure_class == failure_class
    assert words in failure.message
