"""pass@k: the chance that at least one of k answers to a task is right, estimated from n >= k answers.

1 - (1 - c/n)^k is biased; the unbiased estimate counts the subsets of size k without a right answer
(Chen et al. 2021, arXiv 2107.03374, eq. 1). The error is taken over tasks, never over samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from rdagent_ft.evaluation.rows import SampleRow


def pass_at_k(n_samples: int, n_right: int, k: int) -> float | None:
    """Return 1 - C(n - c, k) / C(n, k); None when n < k, as nothing is known then (not 1, not 0).

    Raises `ValueError` for counts that cannot be.
    """
    if k < 1 or not 0 <= n_right <= n_samples:
        raise ValueError(f"pass@{k} of {n_right} right among {n_samples} answers is not defined")
    if n_samples < k:
        return None
    # Whole numbers until the division: exact for any n.
    return 1.0 - comb(n_samples - n_right, k) / comb(n_samples, k)


def pass_at_k_rows(rows: Sequence[SampleRow], k: int) -> list[SampleRow]:
    """Return one row a task whose score is its pass@k, in order of first appearance.

    The rows go into `statistics.summarise` and `compare` like any other score, clusters included.
    Unscored answers do not count as tried; a task left with fewer than k scored ones is unscored,
    with the reason. Raises `ValueError` when a score is neither 0 nor 1.
    """
    tasks: dict[str, list[SampleRow]] = {}
    for row in rows:
        tasks.setdefault(row.item_id, []).append(row)
    return [_task_row(answers, k) for answers in tasks.values()]


def _task_row(answers: list[SampleRow], k: int) -> SampleRow:
    scores = [answer.score for answer in answers if answer.score is not None]
    if not set(scores) <= {0.0, 1.0}:
        raise ValueError(f"item {answers[0].item_id}: pass@k needs right-or-wrong scores")
    value = pass_at_k(len(scores), sum(score == 1.0 for score in scores), k)
    reason = f"{len(scores)} scored answers, pass@{k} needs {k}" if value is None else None
    return answers[0].model_copy(update={"repeat": 0, "score": value, "unscored_reason": reason})
