"""Means, errors and paired comparisons: the only source of the numbers behind moves and claims.

Everything is computed from SampleRows; what a harness reports is only a cross-check. Formulas: paired
differences and clustered standard errors as in Miller, "Adding Error Bars to Evals" (arXiv
2411.00640). Elsewhere: several benchmarks at once and guards (`guards`), pass@k (`pass_at_k`), ratios
(`ratios`), belief in a gain (`posterior`, `trials`) and how many items to score (`racing`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.distributions import (
    clopper_pearson,
    mcnemar_p,
    paired_share_interval,
    rule_of_three,
    t_975,
    t_two_sided_p,
    wilson,
)
from rdagent_ft.evaluation.rows import Comparison, SampleRow, Score, ScorerName, Verdict

MDE_FACTOR = 2.8
"""1.96 + 0.84: a true difference of 2.8 SE is found with 80 % power at a two-sided 5 % level."""

WILSON_MAX_N = 100
"""Below this many items a share gets Wilson's interval instead of the t interval."""

FEW_EVENTS = 10
"""A share with fewer hits or misses than this gets Wilson's interval at every n: the t interval
would be too narrow near 0 and 1."""

FEW_DISCORDANT = 30
"""With fewer discordant pairs than this the t interval is widened by two others."""

_NO_VARIATION = 1e-12


class _Item(NamedTuple):
    """One item of one model: the mean over its repeats, or None when no repeat was scored."""

    score: float | None
    cluster: str | None
    prompt_hash: str


def summarise(rows: Sequence[SampleRow], *, scorer: ScorerName, n_expected: int) -> Score:
    """Return the mean of one model on one split, with its standard error and 95 % interval.

    Repeats of an item are averaged first, so that `n` counts items. SE is the sample sd / sqrt(n), or
    clustered with C/(C-1) when rows carry clusters. Interval: Wilson for right-or-wrong scores below
    100 items or close to 0 or 1; Student's t otherwise. One item has SE 0 by convention and an
    interval that says nothing ([0, 1] unless the score is right or wrong: Wilson).

    Raises `JobError` when no row was scored, rows are mixed or an item is doubled.
    """
    benchmark, split = _one_source(rows)
    items = _by_item(rows)
    scored = [
        (item.score, item.cluster or item_id) for item_id, item in items.items() if item.score is not None
    ]
    if not scored:
        raise JobError(f"none of the {len(items)} answers on {benchmark} ({split}) could be scored")
    values = [score for score, _ in scored]
    n, n_clusters = len(values), len({cluster for _, cluster in scored})
    value = math.fsum(values) / n
    se = _standard_error(values, [cluster for _, cluster in scored])
    return Score(
        benchmark=benchmark,
        split=split,
        scorer=scorer,
        value=value,
        stderr=se,
        ci95=_mean_interval(values, value, se, n_clusters),
        n=n,
        n_expected=n_expected,
        n_unscored=len(items) - n,
    )


def compare(base: Sequence[SampleRow], tuned: Sequence[SampleRow], *, margin: float) -> Comparison:
    """Return the paired difference tuned - base over the items that both sides have scored.

    `margin` is the half-width of `equivalent`, as a share (0.02 = 2 pp).

    Verdict: `improved` when the interval lies above 0, `regressed` when below 0, `equivalent` when
    it lies inside +-margin, else `inconclusive`. The interval is Student's t on the per-item
    differences (clustered, with C - 1 degrees of freedom, when rows carry clusters). Two cases in
    which t is too narrow are widened, so that little data never reads as certainty:

    - no variation (all differences equal, also n = 1): SE is 0 and t would be a point. A share of up
      to `rule_of_three(n)` of the items may still differ, by at most 1 either way; 20 identical
      pairs give +-14 pp, and `equivalent` at 2 pp needs 149 of them. `mde` is that bound too.
    - right-or-wrong scores with fewer than 30 discordant pairs: the interval is widened to hold the
      exact one given their number, so that `improved` there implies McNemar p <= 0.05, and the
      adjusted Wald one (`paired_share_interval`), because t alone covers 90 % with 4 expected.

    Raises `JobError` when the two sides have different items or prompts, or share no scored item.
    """
    benchmark, split = _one_source(base)
    if _one_source(tuned) != (benchmark, split):
        raise JobError(f"cannot compare {benchmark} ({split}) with {' ('.join(_one_source(tuned))})")
    left, right = _by_item(base), _by_item(tuned)
    _refuse_unequal(left, right)
    pairs: list[tuple[float, float, str]] = []
    for item_id, item in left.items():
        other = right[item_id].score
        if item.score is not None and other is not None:
            pairs.append((item.score, other, item.cluster or item_id))
    if not pairs:
        raise JobError(f"no item of {benchmark} ({split}) was scored on both sides")
    return compare_scores(
        [a for a, _, _ in pairs],
        [b for _, b, _ in pairs],
        [cluster for _, _, cluster in pairs],
        benchmark=benchmark,
        split=split,
        margin=margin,
    )


def compare_scores(
    base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str] | None = None,
    *, benchmark: str, split: str, margin: float,
) -> Comparison:  # fmt: skip
    """Return `compare` of scores that are already paired: position i is the same item on both sides.

    `clusters` names each item's cluster; None means that all items are independent. Raises
    `ValueError` without items or when the lengths differ.
    """
    n = len(base)
    if n == 0 or len(tuned) != n or (clusters is not None and len(clusters) != n):
        raise ValueError(f"{n} base scores, {len(tuned)} tuned scores: not pairs")
    differences = [b - a for a, b in zip(base, tuned, strict=True)]
    delta = math.fsum(differences) / n
    n_clusters = n if clusters is None else len(set(clusters))
    se = _standard_error(differences, None if n_clusters == n else clusters)
    discordant = _discordant(base, tuned)
    independent = discordant if n_clusters == n else None
    interval, mde = _difference_interval(delta, se, n_clusters, independent, n)
    p_mcnemar = None if discordant is None else mcnemar_p(*discordant)
    return Comparison(
        benchmark=benchmark,
        split=split,
        n=n,
        base=math.fsum(base) / n,
        tuned=math.fsum(tuned) / n,
        delta=delta,
        se=se,
        ci95=interval,
        p_mcnemar=p_mcnemar,
        p_value=_difference_p(delta, se, n_clusters) if independent is None else p_mcnemar,
        discordant=discordant,
        mde=mde,
        verdict=verdict_of(interval, margin),
    )


def verdict_of(interval: tuple[float, float], margin: float) -> Verdict:
    """Return what an interval of the difference says, with `equivalent` inside +-margin."""
    low, high = interval
    if low > 0:
        return "improved"
    if high < 0:
        return "regressed"
    return "equivalent" if -margin < low and high < margin else "inconclusive"


def _difference_interval(
    delta: float, se: float, n_clusters: int, discordant: tuple[int, int] | None, n: int
) -> tuple[tuple[float, float], float]:
    """Return (95 % interval of the mean difference, smallest difference that could be shown)."""
    if se <= 0 or n_clusters < 2:
        share = rule_of_three(n_clusters)
        middle = delta * (1 - share)
        return (max(-1.0, middle - share), min(1.0, middle + share)), share
    half = t_975(n_clusters - 1) * se
    low, high = delta - half, delta + half
    if discordant is not None and 0 < sum(discordant) < FEW_DISCORDANT:
        n_discordant = sum(discordant)
        exact = [(2 * p - 1) * n_discordant / n for p in clopper_pearson(discordant[0], n_discordant)]
        adjusted = paired_share_interval(*discordant, n)
        low, high = min(low, exact[0], adjusted[0]), max(high, exact[1], adjusted[1])
    return (max(-1.0, low), min(1.0, high)), MDE_FACTOR * se


def _difference_p(delta: float, se: float, n_clusters: int) -> float:
    """Return the two-sided p of no difference: Student's t, or the sign-flip test without variation."""
    if se > 0 and n_clusters > 1:
        return t_two_sided_p(delta / se, n_clusters - 1)
    # All clusters differ by the same amount: of 2^C equally likely signs two are as extreme as this.
    return min(1.0, 2.0 ** (1 - n_clusters)) if delta else 1.0


def _mean_interval(values: list[float], value: float, se: float, n_clusters: int) -> tuple[float, float]:
    n = len(values)
    few = min(value, 1 - value) * n < FEW_EVENTS
    if _is_binary(values) and (n_clusters < WILSON_MAX_N or few) and (n_clusters == n or se <= 0):
        return wilson(value, n_clusters)
    if n_clusters < 2:
        return 0.0, 1.0
    if se <= 0:
        share = rule_of_three(n_clusters)
        return value * (1 - share), value * (1 - share) + share
    half = t_975(n_clusters - 1) * se
    return max(0.0, value - half), min(1.0, value + half)


def _standard_error(values: Sequence[float], clusters: Sequence[str] | None) -> float:
    """Return the SE of the mean; 0.0 for a single cluster and for values without variation.

    sqrt(C / (C - 1) * sum over clusters of (sum of residuals)^2) / n. With one item a cluster (None)
    this is the sample sd / sqrt(n).
    """
    n = len(values)
    mean = math.fsum(values) / n
    residuals = [value - mean for value in values]
    if clusters is not None:
        sums: dict[str, float] = {}
        for residual, cluster in zip(residuals, clusters, strict=True):
            sums[cluster] = sums.get(cluster, 0.0) + residual
        residuals = list(sums.values())
    n_clusters = len(residuals)
    if n_clusters < 2 or max(values) - min(values) < _NO_VARIATION:
        return 0.0
    total = math.fsum(residual * residual for residual in residuals)
    return math.sqrt(n_clusters / (n_clusters - 1) * total) / n


def _discordant(base: Sequence[float], tuned: Sequence[float]) -> tuple[int, int] | None:
    """Return (gained, lost) for right-or-wrong scores, else None."""
    counts = Counter(zip(base, tuned, strict=True))
    if not _is_binary([score for pair in counts for score in pair]):
        return None
    return counts[0.0, 1.0], counts[1.0, 0.0]


def _is_binary(values: Sequence[float]) -> bool:
    return set(values) <= {0.0, 1.0}


def _one_source(rows: Sequence[SampleRow]) -> tuple[str, str]:
    sources = {(row.benchmark, row.split) for row in rows}
    if len(sources) != 1:
        found = ", ".join(f"{benchmark} ({split})" for benchmark, split in sorted(sources)) or "none"
        raise JobError(f"expected the answers of one benchmark split, found: {found}")
    return next(iter(sources))


def _by_item(rows: Sequence[SampleRow]) -> dict[str, _Item]:
    """Group rows by item; repeats are averaged over those that were scored."""
    groups: dict[str, dict[int, SampleRow]] = {}
    for row in rows:
        repeats = groups.setdefault(row.item_id, {})
        if row.repeat in repeats:
            raise JobError(f"item {row.item_id} has two answers for repeat {row.repeat}")
        repeats[row.repeat] = row
    items: dict[str, _Item] = {}
    for item_id, repeats in groups.items():
        first = next(iter(repeats.values()))
        scores = [row.score for row in repeats.values() if row.score is not None]
        mean = math.fsum(scores) / len(scores) if scores else None
        items[item_id] = _Item(mean, first.cluster, first.prompt_hash)
    return items


def _refuse_unequal(left: dict[str, _Item], right: dict[str, _Item]) -> None:
    only_base, only_tuned = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
    if only_base or only_tuned:
        raise JobError(
            "base and tuned were not scored on the same items: "
            f"{len(only_base)} only in base ({_some(only_base)}), "
            f"{len(only_tuned)} only in tuned ({_some(only_tuned)})"
        )
    differing = sorted(item_id for item_id in left if left[item_id].prompt_hash != right[item_id].prompt_hash)
    if differing:
        raise JobError(
            f"base and tuned saw different prompts for {len(differing)} items ({_some(differing)})",
            hint="score both sides with the same prompt format and template",
        )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "") if ids else "none"
