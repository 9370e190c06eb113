"""What a comparison means for the candidate: accept, reject, promote, or not known. Code decides.

- `reject`: a guard's or the target's loss is shown.
- `accept`: the target improved and every guard is shown to be no worse than the margin.
- `promote`: on the suite `quick`, the target probably gained (P >= 0.9) and no guard's loss is shown:
  worth the suite `core`, not yet a result.
- `inconclusive`: everything else, with the reasons. Partial results, different prompts and the suite
  `test` never decide.
"""

from __future__ import annotations

from collections.abc import Mapping

from rdagent_ft.evaluation.judge.cascade import rescue_alert
from rdagent_ft.evaluation.judge.side_by_side import WITH_JUDGE
from rdagent_ft.evaluation.results.comparison import Decision, Pair
from rdagent_ft.evaluation.results.document import MAX_LENGTH_RATE, WARN_LENGTH_RATE
from rdagent_ft.evaluation.results.sheet import ModelResult

PROMISING = 0.9
"""P(gain > 0) from which a quick result is worth the next suite."""

FEW_ITEMS, MANY_REPEATS = 50, 16
"""A target with fewer items than this needs this many answers an item before it may decide (AIME)."""


def decide(
    a: ModelResult,
    b: ModelResult,
    pairs: Mapping[str, Pair],
    *,
    suite: str | None,
    target: str | None,
    margin: float,
) -> tuple[Decision, tuple[str, ...]]:
    """Return the decision and its reasons, the weightiest first."""
    blocks = _blocks(a, b, pairs, suite=suite, target=target)
    if blocks:
        return "inconclusive", tuple(blocks)
    assert target is not None
    losses = _losses(pairs, margin)
    if losses:
        return "reject", tuple(losses)
    goal = pairs[target]
    doubts = [
        f"{key}: not shown to be safe: a loss of {100 * margin:g} pp or more is not excluded"
        for key, pair in pairs.items()
        if pair.guard is not None and pair.guard.outcome == "not_shown"
    ]
    weak = _weak_target(target, goal)
    if goal.verdict == "improved" and not doubts and not weak:
        return "accept", (f"{target} improved and every guard is within {100 * margin:g} pp",)
    if suite == "quick" and _probability(goal) >= PROMISING and not weak:
        return "promote", (
            f"{target}: a gain is probable (P = {_probability(goal):.2f}): score it on the suite core",
            *doubts,
        )
    reasons = weak + ([] if goal.verdict == "improved" else [f"{target}: {goal.verdict}, no gain is shown"])
    return "inconclusive", (*reasons, *doubts)


def warnings_of(a: ModelResult, b: ModelResult, pairs: Mapping[str, Pair]) -> tuple[str, ...]:
    """Return what a reader should know beside the decision."""
    lines: list[str] = []
    for side, result in (("base", a), ("candidate", b)):
        lines += [f"{side}: {note}" for note in result.notes]
        if result.document is not None:
            lines += [f"{side}: {warning}" for warning in result.document.warnings]
    for key, pair in pairs.items():
        judged = pair.measures.get(WITH_JUDGE)
        if judged is not None and pair.delta is not None:
            alert = rescue_alert(pair.delta, judged.delta, judged.delta - pair.delta)
            lines += [f"{key}: {alert}"] if alert is not None else []
        if pair.health is None:
            continue
        for side, health in (("base", pair.health.base), ("candidate", pair.health.cand)):
            if health is not None and health.length_rate > WARN_LENGTH_RATE:
                lines.append(f"{key}: {health.length_rate:.0%} of the {side}'s answers were cut by the limit")
    return tuple(lines)


def _blocks(
    a: ModelResult, b: ModelResult, pairs: Mapping[str, Pair], *, suite: str | None, target: str | None
) -> list[str]:
    """Return every reason why this comparison may decide nothing."""
    reasons: list[str] = []
    if suite == "test":
        reasons.append("the suite test shows that everything works; it never decides")
    for side, result in (("base", a), ("candidate", b)):
        if result.document is not None and result.document.status != "ok":
            failure = f": {result.document.failure}" if result.document.failure else ""
            reasons.append(f"the result of the {side} is {result.document.status}{failure}")
    suites = [result.document.suite for result in (a, b) if result.document and result.document.suite]
    if len(suites) == 2 and suites[0].name != suites[1].name:
        reasons.append(f"scored on different suites: {suites[0].name} and {suites[1].name}")
    if any(use.limit is not None for use in suites):
        reasons.append("scored with --limit, a try-out: that never decides")
    if target is None:
        reasons.append("no benchmark is named as the target: use --target")
    for key, pair in pairs.items():
        if pair.partial is not None:
            reasons.append(f"{key} is not complete: {pair.partial}")
        if pair.n_prompts_differ:
            reasons.append(
                f"{key}: {pair.n_prompts_differ} of {pair.n_pairs} prompts differ between the sides"
            )
        if pair.protocols_differ:
            reasons.append(f"{key}: the sides were asked with different generation settings")
    return reasons


def _losses(pairs: Mapping[str, Pair], margin: float) -> list[str]:
    losses = [
        f"{key} regressed, and a loss of {100 * margin:g} pp or more is not excluded"
        for key, pair in pairs.items()
        if pair.guard is not None and pair.guard.outcome == "regressed"
    ]
    losses += [
        f"{key} regressed"
        for key, pair in pairs.items()
        if pair.role == "target" and pair.verdict == "regressed"
    ]
    return losses


def _weak_target(target: str, goal: Pair) -> list[str]:
    weak: list[str] = []
    if goal.n_pairs < FEW_ITEMS and goal.repeats < MANY_REPEATS:
        weak.append(
            f"{target}: {goal.n_pairs} items answered {goal.repeats} time{'s' * (goal.repeats > 1)} each "
            f"cannot carry a decision alone: answer each {MANY_REPEATS} times"
        )
    if goal.health is not None:
        for side, health in (("base", goal.health.base), ("candidate", goal.health.cand)):
            if health is not None and health.length_rate > MAX_LENGTH_RATE:
                weak.append(
                    f"{target}: {health.length_rate:.0%} of the {side}'s answers were cut by the limit"
                )
    return weak


def _probability(goal: Pair) -> float:
    """Return P(gain > 0), from the two-sided p that the row carries."""
    if goal.delta is None or goal.p_value is None or goal.delta == 0:
        return 0.5
    gained = (goal.delta > 0) == goal.higher_is_better
    return 1 - goal.p_value / 2 if gained else goal.p_value / 2
