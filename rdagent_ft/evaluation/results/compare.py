"""Two models' sheets, paired item by item, into one `ComparisonDocument`.

Refuses what cannot be compared (other items, other metrics) and marks what can be shown but not
decide (partial results, other prompts). The statistics are `statistics` and `ratios`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rdagent_ft.errors import Problem, UserError
from rdagent_ft.evaluation.guards import GUARD_MARGINS, holm, judge_guards
from rdagent_ft.evaluation.ratios import ratio_difference
from rdagent_ft.evaluation.results.comparison import (
    FORGETTING,
    ComparisonDocument,
    GuardUse,
    HealthDelta,
    McNemar,
    MeasureDelta,
    Pair,
    arrow_of,
    size_of,
)
from rdagent_ft.evaluation.results.decide import decide, warnings_of
from rdagent_ft.evaluation.results.document import BenchmarkRole
from rdagent_ft.evaluation.results.sheet import ModelResult, Sheet, mean_score
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.statistics import compare_scores

DEFAULT_MARGIN = GUARD_MARGINS["core"]
"""Margin where no suite says one."""

RATIO_SEED = 1234
MAX_BOOTSTRAP_CLUSTERS = 20_000
"""Above this many clusters 2,000 resamples of a ratio take longer than they tell."""


def compare_results(
    a: ModelResult, b: ModelResult, *, margin: float | None = None, target: str | None = None
) -> ComparisonDocument:
    """Return the paired comparison of base `a` and candidate `b`.

    `margin` (a share) is by default that of the suite both were scored on, else 3 pp. `target` names
    the benchmark that should improve; by default the one with that role, or the only one. All others
    are guards.

    Raises `UserError` listing every benchmark whose items or metric differ between complete sides, for
    an unknown target, a margin outside (0, 1), or when nothing is shared.
    """
    suite = _suite(a, b)
    chosen = GUARD_MARGINS.get(suite or "", DEFAULT_MARGIN) if margin is None else margin
    if not (math.isfinite(chosen) and 0 < chosen < 1):
        raise UserError(f"margin {chosen} is no share between 0 and 1", hint="3 percentage points are 0.03")
    shared = [key for key in b.sheets if key in a.sheets]
    _refuse_incomparable(a, b, shared)
    goal = _target(a, b, shared, target)
    names = [*shared, *(key for key in a.sheets if key not in b.sheets)]
    names += [key for key in b.sheets if key not in a.sheets]
    names.sort(key=lambda key: key != goal)
    comparisons: dict[str, Comparison] = {}
    pairs: dict[str, Pair] = {}
    for key in names:
        role: BenchmarkRole = "target" if key == goal else "guard"
        pairs[key] = _pair(key, a.sheets.get(key), b.sheets.get(key), role, chosen, comparisons)
    pairs = _corrected(pairs, comparisons, chosen)
    decision, reasons = decide(a, b, pairs, suite=suite, target=goal, margin=chosen)
    return ComparisonDocument(
        base_run=a.label,
        cand_run=b.label,
        suite=suite,
        margin=chosen,
        target=goal,
        pairs=pairs,
        guards_failed=tuple(
            key for key, pair in pairs.items() if pair.guard is not None and pair.guard.outcome == "regressed"
        ),
        decision=decision,
        reasons=reasons,
        warnings=warnings_of(a, b, pairs),
    )


def _suite(a: ModelResult, b: ModelResult) -> str | None:
    """Return the suite that both sides were scored on, None when they differ or none is known."""
    names = {
        result.document.suite.name if result.document and result.document.suite else None for result in (a, b)
    }
    return next(iter(names)) if len(names) == 1 else None


def _target(a: ModelResult, b: ModelResult, shared: list[str], named: str | None) -> str | None:
    if named is not None:
        if named not in shared:
            known = ", ".join(shared) or "none"
            raise UserError(f"--target {named!r} is not scored on both sides", hint=f"both have: {known}")
        return named
    marked = {
        key
        for result in (a, b)
        if result.document is not None
        for key, entry in result.document.benchmarks.items()
        if entry.role == "target"
    }
    if len(marked) == 1:
        return next(iter(marked))
    return shared[0] if len(shared) == 1 and not marked else None


def _refuse_incomparable(a: ModelResult, b: ModelResult, shared: list[str]) -> None:
    if not shared:
        raise UserError(
            f"{a.label} and {b.label} share no benchmark: {_some(list(a.sheets))}; {_some(list(b.sheets))}",
            hint="score both on the same suite",
        )
    problems: list[Problem] = []
    for key in shared:
        left, right = a.sheets[key], b.sheets[key]
        if left.metric_name != right.metric_name or left.higher_is_better != right.higher_is_better:
            rule = f"scored by {left.metric_name} in base, by {right.metric_name} in the candidate"
            problems.append(_problem(key, rule, "compare.metric", "score both sides by one rule"))
        only_left = [item for item in left.items if item not in right.items]
        only_right = [item for item in right.items if item not in left.items]
        # A side that is not complete lacks items; it must still have no others.
        unknown = [*(only_left if _whole(right) else []), *(only_right if _whole(left) else [])]
        if unknown or not (left.items.keys() & right.items.keys()):
            rule = (
                f"not the same items: {len(only_left)} only in base ({_some(only_left)}), "
                f"{len(only_right)} only in the candidate ({_some(only_right)})"
            )
            problems.append(_problem(key, rule, "compare.items", "score both sides on the same items"))
    if problems:
        raise UserError(f"{a.label} and {b.label} cannot be compared", problems=tuple(problems))


def _whole(sheet: Sheet) -> bool:
    return len(sheet.items) >= sheet.n_expected


def _pair(
    key: str,
    left: Sheet | None,
    right: Sheet | None,
    role: BenchmarkRole,
    margin: float,
    comparisons: dict[str, Comparison],
) -> Pair:
    """Return a row without what needs all rows (Holm, guards); what can decide goes to `comparisons`."""
    if left is None or right is None:
        return _one_sided(left, right, role)
    pairs: list[tuple[float, float, str]] = []
    for item_id, old in left.items.items():
        new = right.items.get(item_id)
        if new is not None and old.score is not None and new.score is not None:
            pairs.append((old.score, new.score, old.cluster or item_id))
    if not pairs:
        return _one_sided(left, right, role).model_copy(
            update={"partial": "no item was scored on both sides"}
        )
    up = left.higher_is_better
    found = compare_scores(
        [x if up else 1 - x for x, _, _ in pairs],
        [y if up else 1 - y for _, y, _ in pairs],
        [cluster for _, _, cluster in pairs],
        benchmark=left.benchmark,
        split=left.split,
        margin=margin,
    )
    partial = _partial(left, right, len(pairs))
    row = _row(found, left, right, role, partial)
    if row.decides:
        comparisons[key] = found
    return row


def _row(found: Comparison, left: Sheet, right: Sheet, role: BenchmarkRole, partial: str | None) -> Pair:
    up = left.higher_is_better
    low, high = found.ci95
    delta = found.delta if up else -found.delta
    base, cand = (found.base, found.tuned) if up else (1 - found.base, 1 - found.tuned)
    n_differ = sum(
        old.prompt_hash is not None and new is not None and new.prompt_hash not in (None, old.prompt_hash)
        for item_id, old in left.items.items()
        for new in (right.items.get(item_id),)
    )
    mcnemar = None
    if found.discordant is not None and found.p_mcnemar is not None:
        mcnemar = McNemar(b=found.discordant[0], c=found.discordant[1], p=found.p_mcnemar)
    is_ifeval = left.benchmark.lower().startswith("ifeval")
    return Pair(
        role=role,
        metric=left.metric_name,
        higher_is_better=up,
        n_pairs=found.n,
        n_base=len(left.items),
        n_cand=len(right.items),
        base=base,
        cand=cand,
        delta=delta,
        se=found.se,
        ci95=(low, high) if up else (-high, -low),
        mcnemar=mcnemar,
        p_value=found.p_value,
        mde=found.mde,
        relative=delta / base if base > 0 else None,
        verdict=found.verdict,
        arrow=arrow_of(found.verdict, found.delta, found.se),
        size=size_of(found.ci95) if is_ifeval and partial is None else None,
        possible_forgetting=found.delta < -FORGETTING,
        repeats=min(left.repeats, right.repeats),
        partial=partial,
        n_prompts_differ=n_differ,
        protocols_differ=None not in (left.protocol, right.protocol) and left.protocol != right.protocol,
        health=HealthDelta(base=left.health, cand=right.health) if left.health or right.health else None,
        measures=_measures(left, right, margin=FORGETTING),
    )


def _one_sided(left: Sheet | None, right: Sheet | None, role: BenchmarkRole) -> Pair:
    sheet = left or right
    assert sheet is not None
    missing = "base" if left is None else "candidate"
    return Pair(
        role=role,
        metric=sheet.metric_name,
        higher_is_better=sheet.higher_is_better,
        n_pairs=0,
        n_base=0 if left is None else len(left.items),
        n_cand=0 if right is None else len(right.items),
        base=None if left is None else mean_score(left),
        cand=None if right is None else mean_score(right),
        partial=f"not scored for the {missing}",
        notes=tuple(side.trouble for side in (left, right) if side is not None and side.trouble is not None),
    )


def _partial(left: Sheet, right: Sheet, n_pairs: int) -> str | None:
    for name, sheet in (("base", left), ("candidate", right)):
        if sheet.trouble is not None:
            return f"{name}: {sheet.trouble}"
    n_items = max(left.n_expected, right.n_expected)
    n_lost = n_items - n_pairs
    if n_lost > 0.10 * n_items:
        return f"{n_lost} of {n_items} items are unscored on one side"
    return None


def _measures(left: Sheet, right: Sheet, *, margin: float) -> dict[str, MeasureDelta]:
    deltas: dict[str, MeasureDelta] = {}
    for name in left.measures:
        if name not in right.measures:
            continue
        old, new = left.measures[name], right.measures[name]
        ids = [item_id for item_id in old if item_id in new]
        parts = [(old[item_id], new[item_id]) for item_id in ids]
        if len(ids) < 2 or any(x[1] <= 0 or y[1] <= 0 for x, y in parts):
            continue
        plain = all(x[1] == y[1] == 1.0 and 0 <= x[0] <= 1 and 0 <= y[0] <= 1 for x, y in parts)
        base, cand = (
            math.fsum(p[at][0] for p in parts) / math.fsum(p[at][1] for p in parts) for at in (0, 1)
        )
        if plain:
            found = compare_scores(
                [x[0] for x, _ in parts],
                [y[0] for _, y in parts],
                [left.items[item_id].cluster or item_id for item_id in ids],
                benchmark=left.benchmark,
                split=left.split,
                margin=margin,
            )
            se, ci95 = found.se, found.ci95
        elif len(ids) <= MAX_BOOTSTRAP_CLUSTERS:
            ratio = ratio_difference([x for x, _ in parts], [y for _, y in parts], seed=RATIO_SEED)
            se, ci95 = ratio.se, ratio.ci95
        else:
            continue
        deltas[name] = MeasureDelta(base=base, cand=cand, delta=cand - base, se=se, ci95=ci95)
    return deltas


def _corrected(
    pairs: Mapping[str, Pair], comparisons: Mapping[str, Comparison], margin: float
) -> dict[str, Pair]:
    """Return the rows with Holm's p over all that can decide, and the guards' results."""
    adjusted = holm({key: found.p_value for key, found in comparisons.items() if found.p_value is not None})
    guards = judge_guards(
        {key: found for key, found in comparisons.items() if pairs[key].role == "guard"}, margin
    )
    corrected: dict[str, Pair] = {}
    for key, pair in pairs.items():
        guard = guards.get(key)
        corrected[key] = pair.model_copy(
            update={
                "p_holm": adjusted.get(key),
                "guard": None
                if guard is None
                else GuardUse(margin=margin, outcome=guard.outcome, holds_after_holm=guard.holds_after_holm),
            }
        )
    return corrected


def _problem(key: str, rule: str, problem_class: str, fix: str) -> Problem:
    return Problem(key=key, value=None, rule=rule, problem_class=problem_class, fix=fix)


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return (shown + (", …" if len(names) > 5 else "")) or "none"
