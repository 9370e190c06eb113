"""pass@k against brute force, its exact expectation, and the rest of the statistics."""

from __future__ import annotations

from itertools import combinations

import pytest
from evaluation_rows import rows_of
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rdagent_ft.evaluation.pass_at_k import pass_at_k, pass_at_k_rows
from rdagent_ft.evaluation.statistics import compare, summarise


@given(st.integers(1, 9), st.data())
def test_equals_the_share_of_subsets_with_a_right_answer(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(combinations([True] * right + [False] * (n - right), k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(st.integers(1, 20), st.floats(0.01, 0.99), st.data())
def test_is_unbiased(n: int, p: float, data: st.DataObject) -> None:
    """Its expectation over all possible counts is 1 - (1 - p)^k, exactly."""
    k = data.draw(st.integers(1, n))
    expected = sum(
        float(stats.binom.pmf(right, n, p)) * (pass_at_k(n, right, k) or 0.0) for right in range(n + 1)
    )
    assert expected == pytest.approx(1 - (1 - p) ** k)


def test_too_few_samples_say_nothing() -> None:
    assert pass_at_k(5, 5, 10) is None
    assert pass_at_k(10, 0, 10) == 0.0
    assert pass_at_k(10, 1, 10) == 1.0
    assert pass_at_k(2000, 3, 100) == pytest.approx(1 - (1900 * 1899 * 1898) / (2000 * 1999 * 1998))
    for n, right, k in [(3, 4, 1), (3, -1, 1), (3, 1, 0)]:
        with pytest.raises(ValueError, match="not defined"):
            pass_at_k(n, right, k)


def test_error_is_over_tasks() -> None:
    rows = rows_of([1.0, 0.0, 1.0])
    for repeat, scores in enumerate([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], start=1):
        rows += rows_of([*scores], repeat=repeat)
    found = pass_at_k_rows(rows, 2)
    assert [row.score for row in found] == pytest.approx([1 - 0 / 6, 0.0, 1 - 3 / 6])
    score = summarise(found, scorer="exact_match", n_expected=3)
    assert (score.n, score.value) == (3, pytest.approx(0.5))
    assert score.stderr == pytest.approx(stats.sem([1.0, 0.0, 0.5]))
    assert compare(found, found, margin=0.02).delta == 0.0


def test_unscored_answers_are_no_tries() -> None:
    rows = rows_of([1.0, None]) + rows_of([None, None], repeat=1)
    found = pass_at_k_rows(rows, 1)
    assert [row.score for row in found] == [1.0, None]
    assert found[1].unscored_reason == "0 scored answers, pass@1 needs 1"
    assert pass_at_k_rows(rows, 2)[0].unscored_reason == "1 scored answers, pass@2 needs 2"
    with pytest.raises(ValueError, match="right-or-wrong"):
        pass_at_k_rows(rows_of([0.5]), 1)
