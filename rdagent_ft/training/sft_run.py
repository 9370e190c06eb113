# pyright: basic
"""Supervised training through TRL's `SFTTrainer`: what it adds to `stage_run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdagent_ft.training.job_files import fail
from rdagent_ft.training.stage_run import JobPaths, Method, Setup, end_tokens, run_stage

COLUMNS = ("prompt", "completion", "messages", "text", "tools", "chat_template_kwargs")


def run_sft(config_path: Path, paths: JobPaths) -> None:
    """Run one supervised training; see `run_stage`."""
    run_stage(METHOD, config_path, paths)


def _config() -> type:
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig


def _build(setup: Setup) -> Any:
    if setup.paths.tokens is not None:
        from rdagent_ft.training.token_run import build_with_tokens

        return build_with_tokens(setup, setup.paths.tokens)
    from trl.trainer.sft_trainer import SFTTrainer

    return SFTTrainer(**setup.common())


def _check(trainer: Any, setup: Setup) -> dict[str, Any]:
    """Count what the tokenised data really trains. Fails when no token, or no end token, is trained."""
    import numpy as np

    dataset, failure, n_rows = trainer.train_dataset, setup.paths.failure, len(setup.rows)
    if len(dataset) == 0:
        fail(
            failure,
            "data.empty_after_filter",
            "no row has a trained token: every completion lies past `max_length`",
            n_rows=n_rows,
        )
    ends = end_tokens(trainer)
    n_tokens = n_trained = n_with_end = 0
    for batch in dataset.select_columns(["labels"]).iter(batch_size=1000):
        for labels in batch["labels"]:
            trained = np.asarray(labels)
            trained, n_all = trained[trained != -100], trained.size
            n_tokens += n_all
            n_trained += trained.size
            n_with_end += bool(np.isin(trained, ends).any())
    checks = {
        "n_rows": n_rows,
        "n_rows_trained": len(dataset),
        "share_tokens_trained": round(n_trained / max(1, n_tokens), 6),
        "share_rows_with_end": round(n_with_end / len(dataset), 6),
        "tokens": getattr(trainer, "tokens_from", None),
    }
    if n_trained == 0:
        fail(failure, "data.empty_after_filter", "no token is trained: all labels are masked", **checks)
    if n_with_end == 0:
        fail(failure, "data.eos", "no row trains the end token: the model would never stop", **checks)
    return checks


METHOD = Method("sft", _config, COLUMNS, (), _build, _check)
