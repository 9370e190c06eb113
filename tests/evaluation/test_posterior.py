"""Shrinkage of gains: its properties, and what it is there for."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rdagent_ft.evaluation.posterior import gain_posterior

GAINS = st.floats(-1, 1, allow_nan=False)
ERRORS = st.floats(0, 0.5, allow_nan=False)
HISTORIES = st.lists(st.tuples(GAINS, ERRORS), max_size=12)


@given(GAINS, GAINS, ERRORS, HISTORIES)
def test_mean_rises_with_delta(a: float, b: float, se: float, history: list[tuple[float, float]]) -> None:
    low, high = sorted((a, b))
    assert gain_posterior(low, se, history).mean <= gain_posterior(high, se, history).mean + 1e-12


@given(GAINS, ERRORS, HISTORIES)
def test_mean_lies_between_prior_and_delta(
    delta: float, se: float, history: list[tuple[float, float]]
) -> None:
    found = gain_posterior(delta, se, history)
    low, high = sorted((found.prior_mean, delta))
    assert low - 1e-12 <= found.mean <= high + 1e-12
    assert found.sd <= min(se, found.prior_sd) + 1e-12
    assert 0.0 <= found.p_positive <= 1.0


@given(GAINS, st.floats(0.001, 0.5), st.floats(0.001, 0.5), HISTORIES)
def test_larger_error_shrinks_more(
    delta: float, a: float, b: float, history: list[tuple[float, float]]
) -> None:
    small, large = sorted((a, b))
    precise, vague = gain_posterior(delta, small, history), gain_posterior(delta, large, history)
    assert abs(vague.mean - vague.prior_mean) <= abs(precise.mean - precise.prior_mean) + 1e-12


@given(GAINS, HISTORIES)
def test_no_error_gives_delta(delta: float, history: list[tuple[float, float]]) -> None:
    assert gain_posterior(delta, 0.0, history).mean == delta
    assume(abs(delta) > 1e-3)
    assert gain_posterior(delta, 1e-9, history).mean == pytest.approx(delta)


@given(GAINS, ERRORS, HISTORIES)
def test_no_move_without_a_gain_of_its_own(
    delta: float, se: float, history: list[tuple[float, float]]
) -> None:
    if gain_posterior(delta, se, history).mean > 0:
        assert delta > 0


def test_hand_computed_values() -> None:
    # No history: prior N(0, 0.03^2); se = 0.03 halves the gain.
    found = gain_posterior(0.04, 0.03, [])
    assert (found.prior_mean, found.prior_sd) == (0.0, pytest.approx(0.03))
    assert found.mean == pytest.approx(0.02)
    assert found.sd == pytest.approx(0.03 / 2**0.5)
    # Two exact failures of -0.06 weigh as much as the hyper-prior: mean -0.03.
    failed = gain_posterior(0.04, 0.03, [(-0.06, 0.0), (-0.06, 0.0)])
    assert failed.prior_mean == pytest.approx(-0.03)
    assert failed.prior_sd == pytest.approx(((2 * 0.0009 + 2 * 0.0009) / 4) ** 0.5)
    assert failed.mean == pytest.approx(0.005)
    assert gain_posterior(0.0, 0.0, []).p_positive == 0.5


def test_after_failures_a_small_gain_does_not_move() -> None:
    history = [(-0.03, 0.02), (-0.02, 0.02), (-0.04, 0.02), (-0.03, 0.02)]
    assert gain_posterior(0.005, 0.03, []).mean > 0
    assert gain_posterior(0.005, 0.03, history).mean < 0
    assert gain_posterior(0.05, 0.02, [(-0.03, 0.0)] * 50).mean > 0


def test_expected_gain_of_the_best_is_nearer_the_truth_than_its_delta() -> None:
    """Best of 10 with true gains N(0, 2 pp) measured with SE 4 pp: the measured best overclaims."""
    generator = random.Random(5)
    claimed, believed, true = 0.0, 0.0, 0.0
    for _ in range(400):
        truths = [generator.gauss(0, 0.02) for _ in range(10)]
        seen = [truth + generator.gauss(0, 0.04) for truth in truths]
        best = max(range(10), key=seen.__getitem__)
        history = [(value, 0.04) for number, value in enumerate(seen) if number != best]
        claimed += seen[best]
        believed += gain_posterior(seen[best], 0.04, history).mean
        true += truths[best]
    assert claimed - true > 3 * abs(believed - true)


@pytest.mark.parametrize(("delta", "se"), [(float("nan"), 0.1), (0.1, float("inf")), (0.1, -0.1)])
def test_no_measurement_is_refused(delta: float, se: float) -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        gain_posterior(delta, se, [])
    with pytest.raises(ValueError, match="not a measurement"):
        gain_posterior(0.1, 0.1, [(delta, se)])
