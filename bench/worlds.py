"""Simulated campaigns whose truth is known: the worlds that `bench.claims` draws.

A model answers item i right when a latent value passes the threshold that gives it its true share of
right answers. The latent value is shared by all models up to model-specific noise, so that two
models disagree on as many items as real base and tuned models do: 20 % on average (paired 95 %
interval of +-8.8 pp at 100 items), drawn from 10 % to 30 % for each world. The base is right on 45 %.

Gains of proposals over the leader of the moment, as in the project's reference on noise-aware
selection: 55 % harm (3 pp +- 2), 30 % change nothing, 15 % help (2.5 pp +- 1). Null worlds have no
help. No world was changed after a result of the rules under test had been seen.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Kind = Literal["search", "first_jump", "same", "harmful"]
GAIN_KINDS: tuple[Kind, ...] = ("search", "first_jump")
NULL_KINDS: tuple[Kind, ...] = ("same", "harmful")
BASE_SHARE = 0.45
DISCORDANT_SHARES = (0.10, 0.15, 0.20, 0.25, 0.30)
N_CANDIDATES = 30
VAL_SIZES = (500, 1319)
"""The program's default, and the size of GSM8K's test file."""
TEST_SIZES = (300, 1000)
_SPLITS = {"val": 1, "test": 2}


class World(NamedTuple):
    """One campaign's truth. `gains[t]` is what proposal t adds to the share of its parent."""

    key: tuple[int, ...]
    kind: Kind
    correlation: float
    n_val: int
    n_test: int
    gains: tuple[float, ...]

    def outcomes(self, split: Literal["val", "test"], candidate: int, share: float) -> list[float]:
        """Return 0/1 per item for a candidate of true share `share`; -1 is the base model."""
        n = self.n_val if split == "val" else self.n_test
        common = _normals((*self.key, _SPLITS[split], 0), n)
        own = _normals((*self.key, _SPLITS[split], candidate + 2), n)
        latent = math.sqrt(self.correlation) * common + math.sqrt(1 - self.correlation) * own
        return (latent > -float(special.ndtri(share))).astype(float).tolist()


def draw_world(kind: Kind, seed: int, number: int) -> World:
    """Return world `number` of a kind; the same arguments give the same world."""
    key = (seed, (*GAIN_KINDS, *NULL_KINDS).index(kind), number)
    generator = np.random.default_rng((*key, 0))
    correlation = item_correlation(DISCORDANT_SHARES[int(generator.integers(len(DISCORDANT_SHARES)))])
    return World(
        key=key,
        kind=kind,
        correlation=correlation,
        n_val=VAL_SIZES[number % 2],
        n_test=TEST_SIZES[number // 2 % 2],
        gains=tuple(float(gain) for gain in _gains(kind, generator)),
    )


def child_share(parent_share: float, gain: float) -> float:
    """Return the true share of right answers of a child."""
    return min(0.98, max(0.02, parent_share + gain))


@lru_cache
def item_correlation(discordant: float) -> float:
    """Return the latent correlation at which two models of base quality disagree on that share."""
    cut = float(special.ndtri(BASE_SHARE))

    def excess(correlation: float) -> float:
        both = stats.multivariate_normal.cdf([cut, cut], cov=[[1, correlation], [correlation, 1]])  # pyright: ignore
        return 2 * (BASE_SHARE - float(both)) - discordant  # pyright: ignore

    return float(optimize.brentq(excess, 0.01, 0.999))  # pyright: ignore


def _gains(kind: Kind, generator: np.random.Generator) -> NDArray[np.float64]:
    draw = generator.random(N_CANDIDATES)
    harm = -np.abs(generator.normal(0.03, 0.02, N_CANDIDATES))
    help_ = generator.normal(0.025, 0.01, N_CANDIDATES)
    jump = float(generator.normal(0.10, 0.03))
    if kind == "same":
        return np.zeros(N_CANDIDATES)
    if kind == "harmful":
        return np.where(draw < 0.55, harm, 0.0)
    gains = np.where(draw < 0.55, harm, np.where(draw < 0.85, 0.0, help_))
    if kind == "first_jump":
        gains[0] = jump
    return gains


def _normals(key: tuple[int, ...], n: int) -> NDArray[np.float64]:
    return np.random.default_rng(key).standard_normal(n)
