"""pass@1, pass@10, …: scores of one model on one code benchmark from repeated answers.

Greedy answers (one an item) give pass@1 alone; more needs repeats with a temperature (0.8 is usual).
What cannot be estimated is None: neither 0 nor 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from rdagent_ft.evaluation.pass_at_k import pass_at_k_rows
from rdagent_ft.evaluation.rows import SampleRow, Score, ScorerName
from rdagent_ft.evaluation.statistics import summarise

USUAL_KS = (1, 10)


def pass_at_k_scores(
    rows: Sequence[SampleRow], *, scorer: ScorerName, n_expected: int, ks: Sequence[int] = USUAL_KS
) -> dict[int, Score | None]:
    """Return k -> score over tasks, its error and interval taken over tasks (Chen et al. 2021, eq. 1).

    Args:
        rows: every answer of one model on one split, repeats included; right-or-wrong scores.
        scorer: recorded in the score.
        n_expected: tasks of the split.
        ks: which k.

    A task with fewer than k scored answers counts as unscored; when no task is left, the value is None.
    Raises `ValueError` when a score is neither 0 nor 1, and `JobError` when rows are mixed.
    """
    found: dict[int, Score | None] = {}
    for k in ks:
        tasks = pass_at_k_rows(rows, k)
        known = any(task.score is not None for task in tasks)
        found[k] = summarise(tasks, scorer=scorer, n_expected=n_expected) if known else None
    return found
