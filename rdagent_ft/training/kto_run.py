# pyright: basic
"""Kahneman-Tversky optimisation through TRL's `KTOTrainer`: what it adds to `stage_run`."""

from __future__ import annotations

from typing import Any

from rdagent_ft.training.job_files import fail
from rdagent_ft.training.preference_run import check_answers
from rdagent_ft.training.stage_run import Method, Setup

COLUMNS = ("prompt", "completion", "label", "tools", "chat_template_kwargs")


def _config() -> type:
    from trl.trainer.kto_config import KTOConfig

    return KTOConfig


def _build(setup: Setup) -> Any:
    from trl.trainer.kto_trainer import KTOTrainer

    for number, row in enumerate(setup.rows):
        if not isinstance(row["label"], bool):
            message = f"row {number} has the label {row['label']!r:.80}, which is not true or false"
            fail(setup.paths.failure, "data.columns", message)
    return KTOTrainer(**setup.common())


def _check(trainer: Any, setup: Setup) -> dict[str, Any]:
    n_good = sum(row["label"] for row in setup.rows)
    found = check_answers(trainer, setup, "prompt_ids", ("completion_ids",))
    return found | {"share_desirable": round(n_good / len(setup.rows), 6)}


METHOD = Method("kto", _config, COLUMNS, ("prompt", "completion", "label"), _build, _check)
