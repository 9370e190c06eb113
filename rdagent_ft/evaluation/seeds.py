"""A claim about a recipe instead of one training of it: several seeds, one paired comparison.

Two things make such a difference uncertain: which items were drawn, and which seeds. Per-item differences
are averaged over the seeds for the first, the spread of the seeds' own differences gives the second, and
the two variances add (items and seeds as crossed random effects; the part that both contain is counted
twice, on the careful side). Degrees of freedom after Satterthwaite (1946), rounded down. With three seeds
that is few, so the interval is wide unless the seeds agree: that is what a claim from three trainings knows.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence

from rdagent_ft.evaluation.distributions import t_975, t_two_sided_p
from rdagent_ft.evaluation.rows import Comparison, SampleRow
from rdagent_ft.evaluation.statistics import MDE_FACTOR, compare, verdict_of
from rdagent_ft.values import Frozen


class SeedsComparison(Frozen):
    """Base against several trainings of one recipe.

    Attributes:
        comparison: the recipe's difference; its interval covers items and seeds.
        deltas: seed -> difference of that training alone.
        seed_sd: standard deviation of those differences.
        items_se: standard error from the items alone.
    """

    comparison: Comparison
    deltas: dict[int, float]
    seed_sd: float
    items_se: float


def compare_seeds(
    base: Sequence[SampleRow], tuned: Mapping[int, Sequence[SampleRow]], *, margin: float
) -> SeedsComparison:
    """Return the difference of a recipe's trainings (seed -> rows) to the base.

    Raises `ValueError` for fewer than two seeds and `JobError` for rows that cannot be paired.
    """
    if len(tuned) < 2:
        raise ValueError(f"{len(tuned)} seed: its own comparison is all there is")
    deltas = {seed: compare(base, rows, margin=margin).delta for seed, rows in tuned.items()}
    items = compare(base, _as_repeats(list(tuned.values())), margin=margin)
    seed_sd = plain.stdev(deltas.values())
    seeds_variance = seed_sd**2 / len(deltas)
    se = math.sqrt(items.se**2 + seeds_variance)
    low, high = items.ci95
    p_value = items.p_value
    if seeds_variance > 0:
        df = _degrees(items.se**2, max(1, items.n - 1), seeds_variance, len(deltas) - 1)
        half = t_975(df) * se
        low, high = max(-1.0, min(low, items.delta - half)), min(1.0, max(high, items.delta + half))
        p_value = max(t_two_sided_p(items.delta / se, df), p_value or 0.0)
    comparison = items.model_copy(
        update={
            "se": se,
            "ci95": (low, high),
            "p_value": p_value,
            "mde": max(items.mde, MDE_FACTOR * se),
            "verdict": verdict_of((low, high), margin),
        }
    )
    return SeedsComparison(comparison=comparison, deltas=deltas, seed_sd=seed_sd, items_se=items.se)


def _as_repeats(trainings: Sequence[Sequence[SampleRow]]) -> list[SampleRow]:
    """Return all rows as repeats of their items, so that the trainings are averaged item by item."""
    rows: list[SampleRow] = []
    for number, training in enumerate(trainings):
        first = number * (1 + max((row.repeat for row in training), default=0))
        rows += [row.model_copy(update={"repeat": first + row.repeat}) for row in training]
    return rows


def _degrees(items_variance: float, items_df: int, seeds_variance: float, seeds_df: int) -> int:
    total = items_variance + seeds_variance
    return max(1, int(total**2 / (items_variance**2 / items_df + seeds_variance**2 / seeds_df)))
