# pyright: basic
"""A reward model through TRL's `RewardTrainer`: what it adds to `stage_run`.

Always leaves a whole sequence classifier with one output in `model`: a trained adapter is merged into
its float32 base, because a later `grpo` stage loads the folder as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from rdagent_ft.training.job_files import fail
from rdagent_ft.training.preference_run import refuse_equal_answers
from rdagent_ft.training.stage_run import Method, Setup, into_place

COLUMNS = ("prompt", "chosen", "rejected", "margin", "tools", "chat_template_kwargs")
TOLERANCE = 1e-4
N_COMPARED = 8


def _config() -> type:
    from trl.trainer.reward_config import RewardConfig

    return RewardConfig


def _build(setup: Setup) -> Any:
    from trl.trainer.reward_trainer import RewardTrainer

    refuse_equal_answers(setup)
    # A causal task type would leave the new head untrained and out of the adapter.
    setup.model_args.lora_task_type = "SEQ_CLS"
    return RewardTrainer(**setup.common())


def _check(trainer: Any, setup: Setup) -> dict[str, Any]:
    """Count the rows that fit: TRL leaves out pairs of which one text is longer than `max_length`."""
    n_kept = len(trainer.train_dataset)
    if n_kept == 0:
        message = f"every pair is longer than `max_length` ({trainer.args.max_length})"
        fail(setup.paths.failure, "data.empty_after_filter", message, n_rows=len(setup.rows))
    return {"n_rows_trained": n_kept}


def _save(trainer: Any, setup: Setup) -> Literal["model"]:
    if not setup.model_args.use_peft:
        into_place(trainer, Path("model"), lambda staging: trainer.save_model(str(staging)))
        return "model"
    adapter = Path("reward-adapter")
    into_place(trainer, adapter, lambda staging: trainer.save_model(str(staging)))
    into_place(trainer, Path("model"), lambda staging: _merge(trainer, setup, adapter, staging))
    if trainer.is_world_process_zero():
        shutil.rmtree(adapter)
    return "model"


def _merge(trainer: Any, setup: Setup, adapter: Path, out: Path) -> None:
    """Merge the adapter and its head into the start model in float32, and compare the scores."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    if not trainer.is_world_process_zero():
        return
    base = AutoModelForSequenceClassification.from_pretrained(
        setup.model_args.model_name_or_path, num_labels=1, dtype=torch.float32, use_safetensors=True
    )
    base.config.get_text_config().pad_token_id = trainer.processing_class.pad_token_id
    model: Any = PeftModel.from_pretrained(base, str(adapter)).eval()
    before = _scores(model, trainer)
    merged = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(out)
    trainer.processing_class.save_pretrained(out)
    again = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    after = _scores(again, trainer)
    diff = max(abs(one - other) for one, other in zip(before, after, strict=True))
    if not diff <= TOLERANCE * max(1.0, *map(abs, before)):  # also true for NaN
        message = f"scores differ by {diff:.3g} after the merge"
        fail(setup.paths.failure, "chain.merge_numeric", message, max_abs_diff=diff)


def _scores(model: Any, trainer: Any) -> list[float]:
    import torch

    rows = trainer.train_dataset.select(range(min(N_COMPARED, len(trainer.train_dataset))))
    with torch.inference_mode():
        return [float(model(input_ids=torch.tensor([ids])).logits[0, 0]) for ids in rows["chosen_ids"]]


METHOD = Method("reward", _config, COLUMNS, ("prompt", "chosen", "rejected"), _build, _check, _save)
