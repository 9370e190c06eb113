"""Ratios of sums, such as IFEval's instruction-level score, with a bootstrap over clusters.

Followed instructions / all instructions is a ratio whose parts both vary from prompt to prompt, so
the error of a mean does not apply. Whole clusters (prompts) are drawn with replacement, and for a
comparison base and tuned are drawn together (Field and Welsh 2007, "Bootstrapping clustered data").
The generator is seeded: the same rows give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rdagent_ft.values import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

N_RESAMPLES = 2_000
_BLOCK = 4_000_000
"""Largest number of draws held at once: 32 MB of indices."""


class Ratio(Frozen):
    """A ratio, or a difference of ratios, with bootstrap SE and 95 % percentile interval."""

    value: float
    se: float
    ci95: tuple[float, float]
    n_clusters: int


def ratio(parts: Sequence[tuple[float, float]], *, seed: int, n_resamples: int = N_RESAMPLES) -> Ratio:
    """Return sum(numerators) / sum(denominators) over clusters given as (numerator, denominator).

    Raises `ValueError` with fewer than 2 clusters, or a denominator that is not positive.
    """
    import numpy as np

    data = np.asarray(parts, dtype=np.float64).reshape(-1, 2)
    _check(data)
    return _bootstrap(data, lambda sums: sums[..., 0] / sums[..., 1], seed, n_resamples)


def ratio_difference(
    base: Sequence[tuple[float, float]],
    tuned: Sequence[tuple[float, float]],
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Ratio:
    """Return tuned - base for two ratios over the same clusters: position i is one cluster.

    Raises `ValueError` as `ratio` does, or when the two sides differ in length.
    """
    import numpy as np

    if len(base) != len(tuned):
        raise ValueError(f"{len(base)} base clusters, {len(tuned)} tuned clusters: not pairs")
    left = np.asarray(base, dtype=np.float64).reshape(-1, 2)
    right = np.asarray(tuned, dtype=np.float64).reshape(-1, 2)
    _check(left)
    _check(right)

    def difference(sums: Array) -> Array:
        return sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1]

    return _bootstrap(np.concatenate([left, right], axis=1), difference, seed, n_resamples)


def _check(data: Array) -> None:
    if len(data) < 2:
        raise ValueError(f"{len(data)} clusters: a bootstrap needs at least 2")
    # `not >` refuses NaN too.
    if not bool((data[:, 1] > 0).all()) or not bool((abs(data) < float("inf")).all()):
        raise ValueError("every cluster needs a finite numerator and a positive, finite denominator")


def _bootstrap(data: Array, statistic: Callable[[Array], Array], seed: int, n_resamples: int) -> Ratio:
    import numpy as np

    generator = np.random.default_rng(seed)
    n = len(data)
    rows_at_once = max(1, _BLOCK // n)
    values: list[Array] = []
    for start in range(0, n_resamples, rows_at_once):
        count = min(rows_at_once, n_resamples - start)
        drawn = generator.integers(0, n, size=(count, n))
        sums = np.stack([data[:, column][drawn].sum(axis=1) for column in range(data.shape[1])], axis=-1)
        values.append(statistic(sums))
    found = np.concatenate(values)
    low, high = np.percentile(found, [2.5, 97.5])
    return Ratio(
        value=float(statistic(data.sum(axis=0))),
        se=float(found.std(ddof=1)),
        ci95=(float(low), float(high)),
        n_clusters=n,
    )
