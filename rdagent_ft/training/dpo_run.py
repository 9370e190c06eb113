# pyright: basic
"""Direct preference optimisation through TRL's `DPOTrainer`: what it adds to `stage_run`.

The reference is the model that the training starts from: with LoRA the same weights with the adapter
off, else a frozen copy that the trainer loads from the same folder.
"""

from __future__ import annotations

from typing import Any

from rdagent_ft.training.preference_run import check_answers, refuse_equal_answers
from rdagent_ft.training.stage_run import Method, Setup

COLUMNS = ("prompt", "chosen", "rejected", "tools", "chat_template_kwargs")


def _config() -> type:
    from trl.trainer.dpo_config import DPOConfig

    return DPOConfig


def _build(setup: Setup) -> Any:
    from trl.trainer.dpo_trainer import DPOTrainer

    refuse_equal_answers(setup)
    return DPOTrainer(**setup.common())


def _check(trainer: Any, setup: Setup) -> dict[str, Any]:
    return check_answers(trainer, setup, "prompt_ids", ("chosen_ids", "rejected_ids"))


METHOD = Method("dpo", _config, COLUMNS, ("prompt", "chosen", "rejected"), _build, _check)
