"""The few quantiles and exact tests that the statistics need, each one call into scipy.

Here because scipy is slow to import and untyped: it is imported inside the functions, and nothing
else of the package touches it.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

Z_975 = NormalDist().inv_cdf(0.975)
"""Two-sided 95 % quantile of the normal distribution, 1.96."""


@lru_cache(maxsize=1024)
def t_975(df: int) -> float:
    """Return the two-sided 95 % quantile of Student's t with `df` >= 1 degrees of freedom."""
    from scipy import stats

    return float(stats.t.ppf(0.975, df))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def t_two_sided_p(t: float, df: int) -> float:
    """Return the two-sided p of a t statistic with `df` >= 1 degrees of freedom."""
    from scipy import stats

    return 2.0 * float(stats.t.sf(abs(t), df))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


@lru_cache(maxsize=4096)
def mcnemar_p(n_gained: int, n_lost: int) -> float:
    """Return the exact two-sided McNemar p: under no effect each discordant pair is a fair coin.

    1.0 when no pair is discordant.
    """
    if n_gained + n_lost == 0:
        return 1.0
    from scipy import special

    # The fair coin is symmetric, so the two-sided p is twice the smaller tail.
    tail = special.bdtr(min(n_gained, n_lost), int(n_gained + n_lost), 0.5)  # pyright: ignore
    return min(1.0, 2.0 * float(tail))  # pyright: ignore


def clopper_pearson(n_hits: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    from scipy import stats

    low = 0.0 if n_hits == 0 else float(stats.beta.ppf(0.025, n_hits, n - n_hits + 1))  # pyright: ignore
    high = 1.0 if n_hits == n else float(stats.beta.ppf(0.975, n_hits + 1, n - n_hits))  # pyright: ignore
    return low, high


def wilson(value: float, n: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share `value` seen in `n` items (Wilson 1927)."""
    z2 = Z_975 * Z_975
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_975 / (1 + z2 / n) * (value * (1 - value) / n + z2 / (4 * n * n)) ** 0.5
    # At 0 and 1 the exact bound is 0 or 1; rounding must not move it past the value.
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def paired_share_interval(n_gained: int, n_lost: int, n: int) -> tuple[float, float]:
    """Return the 95 % adjusted Wald interval of a paired difference of shares.

    One pair is added to each kind of discordant ones (Bonett and Price 2012): it covers as it says
    with few discordant pairs, where the plain one is too narrow.
    """
    gained, lost = (n_gained + 1) / (n + 2), (n_lost + 1) / (n + 2)
    delta = gained - lost
    half = Z_975 * ((gained + lost - delta * delta) / (n + 2)) ** 0.5
    return delta - half, delta + half


def rule_of_three(n: int) -> float:
    """Return the one-sided 95 % upper bound of a share that was seen 0 times in `n` items.

    Solves (1 - p)^n = 0.05; about 3 / n (Hanley and Lippman-Hand 1983).
    """
    return 1.0 - 0.05 ** (1.0 / n)
