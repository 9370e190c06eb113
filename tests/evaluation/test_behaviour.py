"""Behaviour rates and their levels."""

from __future__ import annotations

import pytest
from evaluation_rows import rows_of

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.behaviour import behaviour, behaviour_change, repeats_itself
from rdagent_ft.evaluation.rows import SampleRow

LOOP = "and then we go on " * 20


def said(*texts: str, **changes: object) -> list[SampleRow]:
    return [
        row.model_copy(update={"prediction": text, **changes})
        for row, text in zip(rows_of([0.0] * len(texts), extracted="x"), texts, strict=True)
    ]


def test_rates_lengths_and_levels() -> None:
    rows = [
        *said("fine", "good", "well", n_tokens=2),
        *said("", extracted=None, n_tokens=0),
        *said("cut", finish_reason="length", n_tokens=8),
        *said(LOOP, n_tokens=100),
        *said("I'm sorry, but I cannot help with that.", extracted=None, n_tokens=10),
    ]
    found = behaviour(rows, "numeric_match")
    assert found.n == 7
    assert found.rates == pytest.approx(
        {"empty": 1 / 7, "truncated": 1 / 7, "repeated": 1 / 7, "no_answer": 2 / 7, "refused": 1 / 7}
    )
    assert found.mean_tokens == pytest.approx(124 / 7)
    assert set(found.levels.values()) == {"warn"}
    assert behaviour(rows, "exact_match").rates["no_answer"] == 0


@pytest.mark.parametrize(
    ("n_cut", "level"), [(0, "ok"), (10, "ok"), (11, "warn"), (30, "warn"), (31, "invalid"), (100, "invalid")]
)
def test_cut_answers_warn_above_10_and_invalidate_above_30_percent(n_cut: int, level: str) -> None:
    rows = said(*["x"] * (100 - n_cut)) + said(*["x"] * n_cut, finish_reason="length")
    found = behaviour(rows, "exact_match")
    assert found.level == level
    assert found.levels.get("truncated", "ok") == level


def test_failed_requests_are_no_answers() -> None:
    failed = said("", score=None, extracted=None, unscored_reason="no reply")
    found = behaviour(said("x") + failed, "numeric_match")
    assert (found.n, found.rates["empty"], found.rates["no_answer"]) == (1, 0.0, 0.0)
    assert found.mean_tokens is None
    with pytest.raises(JobError, match="no answer"):
        behaviour(failed, "numeric_match")


def test_change_is_tuned_minus_base() -> None:
    base, tuned = behaviour(said("ab", "ab"), "exact_match"), behaviour(said("abcd", ""), "exact_match")
    change = behaviour_change(base, tuned)
    assert change.rates["empty"] == 0.5
    assert change.length_ratio == pytest.approx(1.0)
    assert behaviour_change(behaviour(said(""), "exact_match"), tuned).length_ratio is None
    with pytest.raises(JobError, match="different"):
        behaviour_change(base, tuned.model_copy(update={"split": "test"}))


def test_only_loops_repeat_themselves() -> None:
    assert repeats_itself(LOOP)
    assert not repeats_itself("go on " * 5)
    assert not repeats_itself(" ".join(f"word{number}" for number in range(200)))


def test_talking_of_refusals_is_no_refusal() -> None:
    texts = ("She said sorry to him.", "x " * 200 + "I cannot", "He can not swim, so he sank.")
    assert behaviour(said(*texts), "exact_match").rates["refused"] == 0
