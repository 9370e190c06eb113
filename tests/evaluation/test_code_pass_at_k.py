"""pass@1 and pass@10 of repeated answers: over tasks, and None where nothing is known."""

from __future__ import annotations

import pytest
from evaluation_rows import rows_of
from scipy import stats

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.code.pass_at_k_report import pass_at_k_scores
from rdagent_ft.evaluation.rows import SampleRow


def answers(*counts: int, n: int) -> list[SampleRow]:
    """Return n answers a task, of which the given numbers are right."""
    return [row for r in range(n) for row in rows_of([float(r < count) for count in counts], repeat=r)]


def test_errors_are_over_tasks() -> None:
    rows = answers(0, 1, 6, 12, n=12)
    scores = pass_at_k_scores(rows, scorer="exact_match", n_expected=4)
    first, tenth = scores[1], scores[10]
    assert first is not None
    assert tenth is not None
    assert first.value == pytest.approx((0 + 1 / 12 + 6 / 12 + 1) / 4)
    assert first.stderr == pytest.approx(stats.sem([0, 1 / 12, 6 / 12, 1]))
    assert tenth.value == pytest.approx((0 + 10 / 12 + 1 + 1) / 4)
    assert (tenth.n, tenth.n_expected) == (4, 4)


def test_one_answer_says_nothing_about_ten() -> None:
    scores = pass_at_k_scores(answers(0, 1, 1, n=1), scorer="exact_match", n_expected=3)
    assert scores[1] is not None
    assert scores[1].value == pytest.approx(2 / 3)
    assert scores[10] is None


def test_programs_that_did_not_run_are_no_tries() -> None:
    rows = answers(10, 10, n=10)
    rows[0] = rows[0].model_copy(update={"score": None, "unscored_reason": "the program was not run"})
    scores = pass_at_k_scores(rows, scorer="exact_match", n_expected=2)
    assert scores[1] is not None
    assert scores[10] is not None
    assert (scores[1].n, scores[10].n, scores[10].n_unscored) == (2, 1, 1)


def test_mixed_rows_are_refused() -> None:
    with pytest.raises(JobError):
        pass_at_k_scores(
            rows_of([1.0]) + rows_of([1.0], split="test", repeat=1, item_id="x"),
            scorer="exact_match",
            n_expected=2,
        )
