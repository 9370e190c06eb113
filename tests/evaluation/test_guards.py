"""Holm's correction and non-inferiority: worked examples, properties, and what the rates promise."""

from __future__ import annotations

import random

import pytest
from evaluation_rows import rows_of
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.evaluation.guards import holm, judge_guards
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.statistics import compare

PS = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def named(ps: list[float]) -> dict[str, float]:
    return {f"b{number}": p for number, p in enumerate(ps)}


def shares(n_lost: int, n_gained: int, n: int) -> Comparison:
    base = [1.0] * n_lost + [0.0] * (n - n_lost)
    tuned = [0.0] * n_lost + [1.0] * n_gained + [0.0] * (n - n_lost - n_gained)
    return compare(rows_of([*base]), rows_of([*tuned]), margin=0.02)


def test_holm_by_hand() -> None:
    # 4 x .01; 3 x .013; 2 x .03 -> .06; 1 x .04, not below the one before.
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.013})
    assert found == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.04})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({}) == {}


@given(PS)
def test_holm_lies_between_none_and_bonferroni(ps: list[float]) -> None:
    adjusted = holm(named(ps))
    for name, p in named(ps).items():
        assert p <= adjusted[name] <= min(1.0, len(ps) * p) + 1e-12
    in_order = [adjusted[name] for name in sorted(adjusted, key=named(ps).__getitem__)]
    assert in_order == sorted(in_order)


@given(PS, st.floats(0.001, 0.2))
def test_holm_rejects_as_the_step_down_procedure_does(ps: list[float], alpha: float) -> None:
    """The textbook wording, without adjusted p-values: stop at the first p above alpha / (m - i)."""
    rejected: set[str] = set()
    for rank, (name, p) in enumerate(sorted(named(ps).items(), key=lambda pair: pair[1])):
        if p * (len(ps) - rank) > alpha:
            break
        rejected.add(name)
    assert {name for name, p in holm(named(ps)).items() if p <= alpha} == rejected


def test_holm_keeps_the_family_wise_rate() -> None:
    """2,000 families of 6 true nulls: at most 5 % have any rejection, plus two simulation errors."""
    generator = random.Random(4)
    families = [named([generator.random() for _ in range(6)]) for _ in range(2000)]
    assert sum(min(holm(family).values()) <= 0.05 for family in families) <= 2000 * 0.06


def test_guards_pass_only_when_shown_safe() -> None:
    results = judge_guards(
        {
            "safe": shares(20, 22, 2000),
            "small": shares(2, 2, 40),
            "lost": shares(120, 20, 1000),
            "tiny_loss": shares(60, 30, 5000),
        },
        margin=0.03,
    )
    assert {name: result.outcome for name, result in results.items()} == {
        "safe": "safe",
        "small": "not_shown",
        "lost": "regressed",
        "tiny_loss": "safe",
    }
    assert results["lost"].holds_after_holm
    assert not results["small"].holds_after_holm


def test_a_true_loss_of_the_margin_is_rarely_called_safe() -> None:
    """One-sided 2.5 %: 600 guards that truly lose the margin, at most 4 % called safe."""
    generator = random.Random(9)
    n_safe = 0
    for _ in range(600):
        draws = [generator.random() for _ in range(500)]
        base = [1.0 if draw < 0.08 else 0.0 for draw in draws]
        tuned = [1.0 if 0.08 <= draw < 0.13 else 0.0 for draw in draws]
        pair = {"g": compare(rows_of([*base]), rows_of([*tuned]), margin=0.02)}
        n_safe += judge_guards(pair, margin=0.03)["g"].outcome == "safe"
    assert n_safe <= 24


@given(st.integers(0, 60), st.integers(0, 60), st.integers(130, 400))
def test_wider_margins_never_fail_what_narrow_ones_pass(lost: int, gained: int, n: int) -> None:
    pair = {"g": shares(lost, gained, n)}
    if judge_guards(pair, margin=0.02)["g"].outcome == "safe":
        assert judge_guards(pair, margin=0.03)["g"].outcome == "safe"


def test_bad_input_is_refused() -> None:
    pair = shares(1, 1, 10)
    with pytest.raises(ValueError, match="margin 0"):
        judge_guards({"g": pair}, margin=0.0)
    with pytest.raises(ValueError, match="without a p-value"):
        judge_guards({"g": pair.model_copy(update={"p_value": None})}, margin=0.02)
    with pytest.raises(ValueError, match="p of a is"):
        holm({"a": 1.5})
