"""`comparison.json`: two models on the same items, what each benchmark says, and the decision.

Values and words only; computing them: `compare`, deciding: `decide`, printing: `table`.
All scores and differences are shares (0.052 = 5.2 pp), in the direction of the metric itself.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.guards import GuardOutcome
from rdagent_ft.evaluation.results.document import BenchmarkRole, Health
from rdagent_ft.evaluation.rows import Verdict
from rdagent_ft.values import Frozen

Decision = Literal["accept", "reject", "promote", "inconclusive"]
Arrow = Literal["↑", "↗", "→", "↘", "↓", "–"]
SizeWord = Literal["excellent", "at least good", "at least marginal", "weak"]

SIZES: tuple[tuple[float, SizeWord], ...] = (
    (0.10, "excellent"),
    (0.05, "at least good"),
    (0.02, "at least marginal"),
)
"""What a gain on IFEval is called from which size on; below 2 pp it is weak."""

FORGETTING = 0.05
"""A drop of more than this may be catastrophic forgetting."""


class McNemar(Frozen):
    """Items only the candidate has right, items only the base has right, exact two-sided p."""

    b: int
    c: int
    p: float


class MeasureDelta(Frozen):
    """A further measure on the same items: difference with standard error and 95 % interval."""

    base: float
    cand: float
    delta: float
    se: float
    ci95: tuple[float, float]


class HealthDelta(Frozen):
    """Behaviour rates of both sides; either may be unknown."""

    base: Health | None
    cand: Health | None


class GuardUse(Frozen):
    """A guard's test of "no worse than the margin"."""

    margin: float
    outcome: GuardOutcome
    holds_after_holm: bool


class Pair(Frozen):
    """One benchmark, compared or not.

    Attributes:
        n_pairs: items scored on both sides; 0 when it was not compared.
        n_base, n_cand: items that each side has.
        base, cand: means over the pairs; over the own items when one side is missing; None without.
        delta, se, ci95, mde: candidate - base and the smallest difference that could have been shown.
        p_holm: p of no difference, corrected over all benchmarks that can decide.
        relative: delta / base; None when the base scores 0.
        verdict, arrow: read with `higher_is_better`; None and `–` when not compared.
        size: reading of a gain on IFEval, as far as the interval supports it.
        possible_forgetting: the score dropped by more than 5 pp.
        partial: why this row is shown but decides nothing; None when it may decide.
        n_prompts_differ: pairs whose two prompts are not the same text.
        notes: what else limits it.
    """

    role: BenchmarkRole
    metric: str
    higher_is_better: bool = True
    n_pairs: int
    n_base: int
    n_cand: int
    base: float | None
    cand: float | None
    delta: float | None = None
    se: float | None = None
    ci95: tuple[float, float] | None = None
    mcnemar: McNemar | None = None
    p_value: float | None = None
    p_holm: float | None = None
    mde: float | None = None
    relative: float | None = None
    verdict: Verdict | None = None
    arrow: Arrow = "–"
    size: SizeWord | None = None
    possible_forgetting: bool = False
    guard: GuardUse | None = None
    repeats: int = 1
    partial: str | None = None
    n_prompts_differ: int = 0
    protocols_differ: bool = False
    health: HealthDelta | None = None
    measures: dict[str, MeasureDelta] = {}
    notes: tuple[str, ...] = ()

    @property
    def decides(self) -> bool:
        """Whether this row may enter a decision."""
        return self.delta is not None and self.partial is None and not self.unequal

    @property
    def unequal(self) -> bool:
        """Whether the two sides were asked differently."""
        return self.n_prompts_differ > 0 or self.protocols_differ


class ComparisonDocument(Frozen):
    """`comparison.json`.

    Attributes:
        base_run, cand_run: what the two sides are called.
        margin: half-width of `equivalent` and the loss that a guard tolerates.
        pairs: benchmark -> its row, the target first.
        guards_failed: guards with a shown loss that may exceed the margin.
    """

    schema_version: Literal[1] = 1
    base_run: str
    cand_run: str
    suite: str | None
    margin: float
    target: str | None
    pairs: dict[str, Pair]
    guards_failed: tuple[str, ...]
    decision: Decision
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def arrow_of(verdict: Verdict | None, gain: float, se: float) -> Arrow:
    """Return the sign of a row; `gain` is the difference oriented so that up is better.

    ↑ improved, ↓ regressed, → equivalent or within half a standard error, ↗ ↘ perhaps, – none.
    """
    if verdict is None:
        return "–"
    if verdict in ("improved", "regressed"):
        return "↑" if verdict == "improved" else "↓"
    if verdict == "equivalent" or abs(gain) < 0.5 * se or gain == 0.0:
        return "→"
    return "↗" if gain > 0 else "↘"


def size_of(ci95: tuple[float, float]) -> SizeWord | None:
    """Return what a gain may be called: the class of the interval's low end, `weak` below 2 pp.

    None when the interval lies on both sides of 2 pp: then the size is not known.
    """
    low, high = ci95
    for least, word in SIZES:
        if low >= least:
            return word
    return "weak" if high < SIZES[-1][0] else None
