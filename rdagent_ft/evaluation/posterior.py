"""How much of a measured gain to believe: empirical-Bayes shrinkage of a recipe's gain over its parent.

Why: most proposals do not help, so the best-looking of several is mostly luck. Keeping whatever
scores higher on 100 items claims +11.6 pp where the truth is +3.6 pp (simulation in the project's
reference on autonomous agents). Shrinking each gain towards what gains usually are corrects that.
The posterior moves the parent; it is never a claim (`statistics.compare` on the sealed test is).
How the run's trials become a history, and what the parent's own luck adds: `trials`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from rdagent_ft.values import Frozen

HYPER_MEAN = 0.0
"""Most proposals do not help: without evidence a gain is expected to be none."""

HYPER_SD = 0.03
"""Without evidence two thirds of true gains lie within 3 pp, as tuning of one recipe key gives."""

HYPER_WEIGHT = 2.0
"""The belief above counts as two exact trials."""

MIN_PRIOR_SD = 0.02
"""Gains have heavier tails than a normal prior: however alike the failures so far were, a gain of 5 pp
at 2.5 standard errors still moves against an average of -3 pp."""


OVER_BASE_SD = 0.5
"""A first training can teach a task from nothing: gains over the untrained base may be of any size."""


class GainPosterior(Frozen):
    """What is believed of a true gain after measuring it. All values are shares (0.01 = 1 pp).

    Attributes:
        mean, sd: of the true gain, normal.
        p_positive: probability that the true gain is above zero.
        prior_mean, prior_sd: the belief before this measurement, learnt from earlier gains.
    """

    mean: float
    sd: float
    p_positive: float
    prior_mean: float
    prior_sd: float


def gain_posterior(delta: float, se: float, history: Sequence[tuple[float, float]]) -> GainPosterior:
    """Return the posterior of a gain measured as `delta` with standard error `se`.

    `history` holds (delta, se) of earlier candidates against a trained parent; leave out gains over
    the untrained base, which are of another kind. Normal prior, normal likelihood: the mean is the
    precision-weighted average of prior mean and delta; `se` 0 gives delta itself.

    The prior comes from the history by the method of moments (E[(d - m)^2] = tau^2 + se^2), pulled to
    the hyper-prior. A trial counts for `HYPER_SD^2 / (HYPER_SD^2 + se^2)` of an exact one. The prior
    mean is capped at 0: a lucky start must not carry a candidate whose own measurement is not
    positive, so `mean > 0` implies `delta > 0`.

    Raises `ValueError` for a negative or non-finite input.
    """
    _check([(delta, se), *history])
    return _update(delta, se, *_prior(history))


def gain_over_base(delta: float, se: float) -> GainPosterior:
    """Return the posterior of a gain over the untrained base: prior mean 0, sd `OVER_BASE_SD`."""
    _check([(delta, se)])
    return _update(delta, se, HYPER_MEAN, OVER_BASE_SD)


def _check(gains: Sequence[tuple[float, float]]) -> None:
    for value, error in gains:
        if not (math.isfinite(value) and math.isfinite(error) and error >= 0):
            raise ValueError(f"gain {value} with standard error {error} is not a measurement")


def _update(delta: float, se: float, prior_mean: float, prior_sd: float) -> GainPosterior:
    precision_share = prior_sd**2 / (prior_sd**2 + se**2)
    mean = prior_mean + precision_share * (delta - prior_mean)
    if se == 0:
        mean = delta  # the same in exact arithmetic; rounding must not decide a move
    sd = math.sqrt(precision_share) * se
    return GainPosterior(
        mean=mean, sd=sd, p_positive=_p_positive(mean, sd), prior_mean=prior_mean, prior_sd=prior_sd
    )


def _p_positive(mean: float, sd: float) -> float:
    if sd > 0:
        return NormalDist().cdf(mean / sd)
    return 0.5 if mean == 0 else float(mean > 0)


def _prior(history: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (mean, sd) of true gains as the history and the hyper-prior have it."""
    weights = [HYPER_SD**2 / (HYPER_SD**2 + se**2) for _, se in history]
    total = HYPER_WEIGHT + math.fsum(weights)
    centre = HYPER_WEIGHT * HYPER_MEAN + math.fsum(w * d for w, (d, _) in zip(weights, history, strict=True))
    mean = min(0.0, centre / total)
    excess = math.fsum(w * ((d - mean) ** 2 - se**2) for w, (d, se) in zip(weights, history, strict=True))
    variance = (HYPER_WEIGHT * HYPER_SD**2 + excess) / total
    return mean, max(MIN_PRIOR_SD, math.sqrt(max(0.0, variance)))
