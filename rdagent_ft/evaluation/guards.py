"""Several benchmarks at once: Holm's correction, and guards against forgetting as non-inferiority tests.

A guard asks another question than a target: not "is it better?" but "is it shown to be no worse than
a margin?". A wide interval around zero is therefore no pass. Scores are oriented so that higher is
better; ratios such as perplexity are not handled here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.values import Frozen

GuardOutcome = Literal["safe", "not_shown", "regressed"]

GUARD_MARGINS = {"test": 0.03, "quick": 0.03, "core": 0.03, "full": 0.02}
"""Suite -> loss that a guard tolerates, as a share: larger suites can show smaller ones."""

HOLM_LEVEL = 0.05
"""Family-wise rate of falsely named regressions among the guards."""


class GuardResult(Frozen):
    """One guard, decided.

    Attributes:
        margin: tolerated loss as a share (0.03 = 3 pp).
        outcome: `safe` when the interval lies above -margin; `regressed` when a loss is shown and the
            interval does not exclude that it exceeds the margin; else `not_shown`.
        p_holm: p of "no difference", corrected over all guards of the family.
        holds_after_holm: whether a difference, in either direction, stands after that correction.
    """

    benchmark: str
    margin: float
    outcome: GuardOutcome
    p_holm: float
    holds_after_holm: bool


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for being several (Holm 1979), same keys in the same order.

    Step down: the i-th smallest of m (from 0) times m - i, never less than the one before, at most 1.
    Rejecting those at or below alpha keeps the chance of any false rejection at alpha, whatever the
    dependence between the tests. Raises `ValueError` for what is no probability.
    """
    for name, p in p_values.items():
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p of {name} is {p}")
    m, highest = len(p_values), 0.0
    adjusted: dict[str, float] = {}
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (m - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def judge_guards(comparisons: Mapping[str, Comparison], margin: float) -> dict[str, GuardResult]:
    """Return each guard's result, by the names given.

    `safe` is the test of "worse by the margin or more" at one-sided 2.5 %: the lower end of the 95 %
    interval lies above -margin. Saying that ALL guards are safe needs no correction, as each must
    pass on its own (intersection-union test, Berger 1982). Naming single regressions does: see
    `p_holm`. `regressed` itself is uncorrected, on the careful side for a guard.

    Raises `ValueError` for a margin that is not in (0, 1), or a comparison without a p-value.
    """
    if not (math.isfinite(margin) and 0 < margin < 1):
        raise ValueError(f"margin {margin} is no share between 0 and 1")
    adjusted = holm({name: _p(comparison) for name, comparison in comparisons.items()})
    return {
        name: GuardResult(
            benchmark=comparison.benchmark,
            margin=margin,
            outcome=_outcome(comparison.ci95, margin),
            p_holm=adjusted[name],
            holds_after_holm=adjusted[name] <= HOLM_LEVEL,
        )
        for name, comparison in comparisons.items()
    }


def _outcome(ci95: tuple[float, float], margin: float) -> GuardOutcome:
    low, high = ci95
    if low > -margin:
        return "safe"
    return "regressed" if high < 0 else "not_shown"


def _p(comparison: Comparison) -> float:
    if comparison.p_value is None:
        raise ValueError(f"the comparison on {comparison.benchmark} was made without a p-value")
    return comparison.p_value
