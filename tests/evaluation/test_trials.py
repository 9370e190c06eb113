"""Belief in gains when the leader was lucky: against joint normal algebra, by hand, and in simulation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.evaluation.posterior import OVER_BASE_SD, gain_over_base, gain_posterior
from rdagent_ft.evaluation.trials import Trial, belief_after, expected_gain, says_move

SE = 0.02
TRIALS = st.lists(
    st.builds(
        Trial,
        delta=st.floats(-0.2, 0.2),
        se=st.floats(0.005, 0.1),
        over_base=st.booleans(),
        moved=st.booleans(),
        share=st.sampled_from([0.2, 0.4, 1.0]),
    ),
    max_size=10,
)


def lost(delta: float, *, over_base: bool = False) -> Trial:
    return Trial(delta=delta, se=SE, over_base=over_base, moved=False)


def test_first_candidate_is_judged_as_before() -> None:
    belief = belief_after([], over_base=True)
    assert expected_gain(belief, 0.03, SE).mean == pytest.approx(gain_over_base(0.03, SE).mean)
    assert belief.luck == 0.0


def test_luck_equals_conditioning_of_the_joint_normal() -> None:
    """Candidates over the base have a fixed prior, so the whole model is one multivariate normal."""
    deltas = [-0.4, -0.9, 0.3, -0.1]
    belief = belief_after([lost(delta, over_base=True) for delta in deltas], over_base=True)
    noise = SE**2 / 2
    # d_i = g_i + e_i - luck: variance prior + 2 noise, covariance noise; cov(luck, d_i) = -noise.
    covariance = np.full((4, 4), noise) + np.eye(4) * (OVER_BASE_SD**2 + noise)
    weights = np.linalg.solve(covariance, np.full(4, -noise))
    assert belief.luck == pytest.approx(float(weights @ np.array(deltas)))
    assert belief.luck_variance == pytest.approx(noise + float(weights @ np.full(4, noise)))


def test_a_leaders_luck_by_hand() -> None:
    # First gain over the base hardly shrinks, so its leader is hardly lucky.
    belief = belief_after([Trial(delta=0.2, se=SE, over_base=True, moved=True)], over_base=False)
    total = OVER_BASE_SD**2 + SE**2
    assert belief.luck == pytest.approx(SE**2 / 2 / total * 0.2)
    assert belief.luck_variance == pytest.approx(SE**2 / 2 * (1 - SE**2 / 2 / total))
    # A next one at +4 pp: prior N(0, 3 pp), error 2 pp: 13/9 of what shrinkage removes, half of it luck.
    moved = Trial(delta=0.04 - belief.luck, se=SE, over_base=False, moved=True)
    after = belief_after([Trial(delta=0.2, se=SE, over_base=True, moved=True), moved], over_base=False)
    assert after.luck == pytest.approx(0.04 * 2e-4 / (9e-4 + 4e-4), rel=1e-3)


def test_losers_say_that_the_leader_was_lucky() -> None:
    leader = Trial(delta=0.05, se=SE, over_base=True, moved=True)
    lucks = [belief_after([leader, *[lost(-0.015)] * n], over_base=False).luck for n in range(6)]
    assert lucks == sorted(lucks)
    belief = belief_after([leader, *[lost(-0.015)] * 5], over_base=False)
    history = [(-0.015, SE)] * 5
    assert expected_gain(belief, 0.01, SE).mean > gain_posterior(0.01, SE, history).mean


def test_a_broken_candidate_says_nothing_about_luck() -> None:
    leader = Trial(delta=0.8, se=SE, over_base=True, moved=True)
    before = belief_after([leader], over_base=False)
    after = belief_after([leader, lost(-0.54)], over_base=False)
    assert (after.luck, after.luck_variance) == (before.luck, before.luck_variance)
    assert len(after.history) == 1


def test_part_of_val_counts_as_less() -> None:
    leader = Trial(delta=0.05, se=SE, over_base=True, moved=True)
    belief = belief_after([leader], over_base=False)
    part, whole = expected_gain(belief, 0.04, SE, 0.2), expected_gain(belief, 0.04, SE)
    assert part.mean < whole.mean
    # All of the leader's luck known or none of it: the error lies between SE / sqrt 2 and SE.
    assert SE / math.sqrt(2) < belief_after([leader, lost(-0.01)], over_base=False).history[0][1] <= SE


@given(TRIALS, st.floats(-0.2, 0.2), st.floats(0.005, 0.1), st.booleans())
def test_beliefs_stay_sane(trials: list[Trial], delta: float, se: float, over_base: bool) -> None:
    belief = belief_after(trials, over_base=over_base)
    assert math.isfinite(belief.luck)
    if trials:
        assert belief.luck_variance is not None
        assert belief.luck_variance > 0
    found = expected_gain(belief, delta, se)
    assert expected_gain(belief, delta + 0.01, se).mean >= found.mean
    assert not says_move(found, min(delta, 0.0))


def test_moves_keep_more_of_the_true_gain_than_without_luck() -> None:
    """150 campaigns of 25 proposals, val SE 2 pp: the same draws with luck given back and without."""
    generator = random.Random(2)
    ours = plain = 0.0
    for _ in range(150):
        gains = [generator.choice([-0.03, -0.03, 0.0, 0.025]) for _ in range(25)]
        noise = [generator.gauss(0, SE / math.sqrt(2)) for _ in range(26)]
        ours += _campaign(gains, noise, give_back=True)
        plain += _campaign(gains, noise, give_back=False)
    assert ours > 1.1 * plain


def _campaign(gains: list[float], noise: list[float], *, give_back: bool) -> float:
    truth, luck, trials = 0.0, noise[0], [Trial(delta=0.0, se=SE, over_base=True, moved=True)]
    for gain, own in zip(gains, noise[1:], strict=True):
        delta = gain + own - luck
        belief = belief_after(trials, over_base=False)
        if give_back:
            mean = expected_gain(belief, delta, SE).mean
        else:
            mean = gain_posterior(delta, SE, [(trial.delta, SE) for trial in trials[1:]]).mean
        moved = mean > 0 and delta > 0
        trials.append(Trial(delta=delta, se=SE, over_base=False, moved=moved))
        if moved:
            truth, luck = truth + gain, own
    return truth
