"""Racing: score a candidate on 100 val items, then 200, 400, … and stop when it can hardly lead any more.

Most candidates do not help, and for most of them a part of val says so. A race can only be lost
early: a candidate that may lead is scored on all items, because a leader's rows are what every later
candidate is paired with, and the move itself is decided on all of val. A race decides no claim.

The rule: after each stage, take the chance that the comparison on ALL val items would make the
candidate the leader. Below 6 % the race ends with "no move"; above 95 % all items are scored at
once; between, twice as many. The chance is that of the full difference exceeding what
`trials.says_move` needs, given the items seen: they are a sample without replacement of the rest.

What it costs: each stage is a round of scoring. Below `MIN_RACE_ITEMS` val items there is one stage,
all items. Numbers behind the rule: `python -m bench.claims`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from rdagent_ft.evaluation.distributions import Z_975
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.trials import Belief, expected_gain, luck_variance, says_move
from rdagent_ft.values import Frozen, sha256_text

FIRST_STAGE = 100
MIN_RACE_ITEMS = 400
"""With fewer val items a race saves less scoring than its rounds cost, and small stages say little."""

GIVE_UP_BELOW = 0.06
"""Chance of a move on all items below which a race is lost. Lower keeps more of the gain and scores more
items: in the worlds of `bench.claims` 0.05 and 0.10 reach 98 % and 93 % of it for 60 % and 51 %."""

CLEAR_ABOVE = 0.95
"""Chance of a move on all items above which no further stage is worth its round."""


class RaceState(Frozen):
    """A race so far.

    Attributes:
        n_items: all val items.
        n_scored: how many of them, in race order, the candidate was scored on.
        seen: paired comparison with the leader on those items; None before the first stage.
        belief: what was believed before the race.
    """

    n_items: int
    belief: Belief
    n_scored: int = 0
    seen: Comparison | None = None


class ScoreMore(Frozen):
    """Score the candidate on the first `n_items` items of the race order; those done stay."""

    n_items: int
    p_move: float | None = None


class RaceOver(Frozen):
    """The race has ended after `n_scored` items.

    Attributes:
        move: whether the candidate becomes the leader; True only when all items were scored.
        p_move: chance that all items would have said so.
    """

    n_scored: int
    move: bool
    p_move: float


def race_order(item_ids: Sequence[str], salt: str) -> list[str]:
    """Return the ids in a shuffled order that depends on nothing but them and `salt`.

    A salt per candidate (e.g. its loop number) draws another first stage each time, so that no
    candidate is favoured by the 100 items that earlier ones happened to do well on.
    """
    return sorted(item_ids, key=lambda item_id: sha256_text(f"{salt}\n{item_id}"))


def stages(n_items: int) -> tuple[int, ...]:
    """Return after how many items a race is looked at: 100, 200, 400, … and all."""
    if n_items < MIN_RACE_ITEMS:
        return (n_items,)
    found: list[int] = []
    stage = FIRST_STAGE
    while stage < n_items:
        found.append(stage)
        stage *= 2
    return (*found, n_items)


def next_stage(state: RaceState) -> ScoreMore | RaceOver:
    """Return what to do next. Raises `ValueError` for a state that cannot be."""
    if state.n_items < 1 or not 0 <= state.n_scored <= state.n_items:
        raise ValueError(f"{state.n_scored} of {state.n_items} items scored")
    if state.n_scored == 0:
        return ScoreMore(n_items=stages(state.n_items)[0])
    if state.seen is None:
        raise ValueError(f"{state.n_scored} items were scored and not compared")
    if state.n_scored == state.n_items:
        posterior = expected_gain(state.belief, state.seen.delta, state.seen.se)
        move = says_move(posterior, state.seen.delta)
        return RaceOver(n_scored=state.n_scored, move=move, p_move=float(move))
    p_move = chance_of_move(state.belief, state.seen, state.n_scored / state.n_items)
    if p_move < GIVE_UP_BELOW:
        return RaceOver(n_scored=state.n_scored, move=False, p_move=p_move)
    if p_move > CLEAR_ABOVE:
        return ScoreMore(n_items=state.n_items, p_move=p_move)
    later = [stage for stage in stages(state.n_items) if stage > state.n_scored]
    return ScoreMore(n_items=later[0], p_move=p_move)


def chance_of_move(belief: Belief, seen: Comparison, share: float) -> float:
    """Return the chance that all val items would say "move", after `share` < 1 of them.

    Before the race the full difference D is normal around prior mean - luck, with the spread of the
    prior and of the full measurement. The items seen measure D with the variance of a sample without
    replacement, SE^2 (1 - share). The move needs D > 0 and D > c, where the expected gain is 0.
    """
    se = _cautious_se(seen)
    full_se = se * math.sqrt(share)
    posterior = expected_gain(belief, seen.delta, se, share)
    prior_variance = posterior.prior_sd**2
    full_error = math.sqrt(full_se**2 / 2 + luck_variance(belief, se, share))
    before = prior_variance + full_error**2
    weight = before / (before + se * se * (1 - share))
    expected = posterior.prior_mean - belief.luck
    mean = expected + weight * (seen.delta - expected)
    sd = math.sqrt(weight * se * se * (1 - share))
    zero_gain = -belief.luck - posterior.prior_mean * full_error**2 / prior_variance
    return NormalDist().cdf((mean - max(0.0, zero_gain)) / sd)


def _cautious_se(seen: Comparison) -> float:
    """Return the SE as the 95 % interval has it: wider than the plain one where items are few."""
    low, high = seen.ci95
    return max(seen.se, (high - low) / (2 * Z_975))
