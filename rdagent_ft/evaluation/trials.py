"""What a run's earlier trials say about the next one: usual gains, and the luck of the leader.

The leader was chosen because its val score was high, so part of that score is luck, and every later
candidate is measured against it: its paired difference is too low by that luck. Shrinking the
difference without giving the luck back rejects good candidates (`bench/claims.py`: at 500 val items
a third of the gain is lost). A candidate that loses is in turn evidence that the leader was lucky.

Model: val score = truth + noise. Of the variance of a paired difference, half is the candidate's
noise and half the leader's. Gains have the prior of `posterior`. Everything is normal, so each
trial updates the leader's luck in closed form (a Kalman filter with one state).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rdagent_ft.evaluation.posterior import GainPosterior, gain_over_base, gain_posterior
from rdagent_ft.values import Frozen

OUTLIER_SD = 3.0
"""A gain further than this from what was expected is of another kind (a broken or a first working
recipe): it says nothing about luck."""


class Trial(Frozen):
    """One earlier candidate as it was measured against the leader of its time.

    Attributes:
        delta, se: paired difference on val and its standard error, as shares.
        over_base: the leader was the untrained base.
        moved: the candidate became the leader.
        share: share of the val items that was scored; less than 1 after a race that ended early.
    """

    delta: float
    se: float
    over_base: bool
    moved: bool
    share: float = 1.0


class Belief(Frozen):
    """What is believed before a candidate is measured.

    Attributes:
        over_base: the candidate is compared with the untrained base.
        history: (gain, error) of earlier candidates over a trained leader, luck given back.
        luck: how much the leader's val score exceeds its true one, expected.
        luck_variance: of that; None before any measurement, when it follows from the first SE.
    """

    over_base: bool = True
    history: tuple[tuple[float, float], ...] = ()
    luck: float = 0.0
    luck_variance: float | None = None


def belief_after(trials: Sequence[Trial], *, over_base: bool) -> Belief:
    """Return the belief for the next candidate after `trials`, oldest first."""
    belief = Belief(over_base=True)
    for trial in trials:
        belief = _learn(belief.model_copy(update={"over_base": trial.over_base}), trial)
    return belief.model_copy(update={"over_base": over_base})


def expected_gain(belief: Belief, delta: float, se: float, share: float = 1.0) -> GainPosterior:
    """Return what to believe of the true gain after measuring `delta` +- `se` on `share` of val.

    Raises `ValueError` for what is no measurement.
    """
    gain, error = delta + belief.luck, gain_error(belief, se, share)
    if belief.over_base:
        return gain_over_base(gain, error)
    return gain_posterior(gain, error, belief.history)


def says_move(posterior: GainPosterior, delta: float) -> bool:
    """Return whether a candidate becomes the leader: expected gain AND measured difference above 0.

    The second condition keeps every move visible in plain scores; without it the luck that is given
    back could carry a candidate that scored lower.
    """
    return posterior.mean > 0 and delta > 0


def gain_error(belief: Belief, se: float, share: float = 1.0) -> float:
    """Return the standard error of delta + luck as a measure of the true gain.

    The candidate's half, the leader's half as far as it is not known, and, when only a share of val
    was scored, the leader's noise that this share has in addition to the whole.
    """
    leader = luck_variance(belief, se, share)
    return math.sqrt(se * se / 2 + leader + se * se * (1 - share) / 2)


def luck_variance(belief: Belief, se: float, share: float = 1.0) -> float:
    """Return the variance of the leader's luck on all of val."""
    return se * se * share / 2 if belief.luck_variance is None else belief.luck_variance


def _learn(belief: Belief, trial: Trial) -> Belief:
    posterior = expected_gain(belief, trial.delta, trial.se, trial.share)
    gain, error = trial.delta + belief.luck, gain_error(belief, trial.se, trial.share)
    surprise = gain - posterior.prior_mean
    total = posterior.prior_sd**2 + error**2
    if abs(surprise) > OUTLIER_SD * math.sqrt(total):
        surprise = 0.0
    if trial.moved:
        before, start, sign = trial.se**2 / 2, 0.0, 1.0
    else:
        before, start, sign = luck_variance(belief, trial.se, trial.share), belief.luck, -1.0
    known = before / total if surprise else 0.0
    return Belief(
        over_base=False,
        history=belief.history if trial.over_base else (*belief.history, (gain, error)),
        luck=start + sign * known * surprise,
        luck_variance=before * (1 - known),
    )
