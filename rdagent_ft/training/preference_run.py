# pyright: basic
"""What trainings on preferences share: counting what the tokenised answers train."""

from __future__ import annotations

from typing import Any

from rdagent_ft.training.job_files import fail
from rdagent_ft.training.stage_run import Setup, end_tokens


def check_answers(trainer: Any, setup: Setup, prompt: str, answers: tuple[str, ...]) -> dict[str, Any]:
    """Count trained tokens and rows with an end token, both after the cut at `max_length`.

    Args:
        trainer, setup: the trainer with its tokenised data, and what it was made from.
        prompt, answers: names of the tokenised columns; all tokens of the answers are trained.

    Ends the job when no row is left, no answer token is trained, or no answer has its end token.
    """
    dataset, failure, n_rows = trainer.train_dataset, setup.paths.failure, len(setup.rows)
    limit = trainer.args.max_length
    if len(dataset) == 0:
        message = f"no row is left: every prompt alone fills `max_length` ({limit})"
        fail(failure, "data.empty_after_filter", message, n_rows=n_rows)
    ends = set(end_tokens(trainer))
    n_tokens = n_trained = n_with_end = 0
    for batch in dataset.select_columns([prompt, *answers]).iter(batch_size=1000):
        for tokens, *trained_parts in zip(batch[prompt], *(batch[name] for name in answers), strict=True):
            room = None if limit is None else max(0, limit - len(tokens))
            cut = [part[:room] for part in trained_parts]
            n_trained += sum(map(len, cut))
            n_tokens += sum(map(len, cut)) + len(tokens) * len(cut)
            n_with_end += not ends.isdisjoint(cut[0])
    checks = {
        "n_rows": n_rows,
        "n_rows_trained": len(dataset),
        "share_tokens_trained": round(n_trained / max(1, n_tokens), 6),
        "share_rows_with_end": round(n_with_end / len(dataset), 6),
    }
    if n_trained == 0:
        fail(failure, "data.empty_after_filter", "no answer token lies within `max_length`", **checks)
    if n_with_end == 0:
        fail(failure, "data.eos", "no answer trains the end token within `max_length`", **checks)
    return checks


def refuse_equal_answers(setup: Setup) -> None:
    """End the job when every row's chosen answer is its rejected one: there is nothing to prefer."""
    if all(row["chosen"] == row["rejected"] for row in setup.rows):
        message = "in every row `chosen` equals `rejected`: there is nothing to prefer"
        fail(setup.paths.failure, "train.no_signal", message, n_rows=len(setup.rows))
