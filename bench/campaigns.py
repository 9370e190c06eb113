"""Selection rules played on a simulated world, through the program's own functions.

Our rule with and without racing, and keep-if-higher on 100 items and on all, see the same proposals
with the same noise. What a rule claims: keep-if-higher its val gain, ours the verdict on test.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from bench.worlds import BASE_SHARE, World, child_share
from rdagent_ft.engine.selection import decide_move, to_claim
from rdagent_ft.evaluation.racing import RaceOver, RaceState, next_stage, race_order
from rdagent_ft.evaluation.rows import Comparison, SampleRow
from rdagent_ft.evaluation.statistics import compare, compare_scores
from rdagent_ft.evaluation.trials import Trial, belief_after

BASE = -1
MARGIN = 0.02
"""`equivalence_margin` as the program has it by default."""


class Campaign(NamedTuple):
    """How a campaign ended. Gains are shares over the base.

    Attributes:
        true_gain: of the model the rule stands for at the end (the base itself: 0).
        val_gain: the same as val shows it.
        n_items: val items that candidates were scored on.
        n_rounds: rounds of scoring.
        claimed_true_gain, claim: of the model that was claimed, on test; None without a claim.
    """

    true_gain: float
    val_gain: float
    n_items: int
    n_rounds: int
    claimed_true_gain: float = 0.0
    claim: Comparison | None = None


def keep_if_higher(world: World, n_items: int) -> Campaign:
    """Play "the higher score on the first `n_items` val items leads"."""
    share, leader = BASE_SHARE, _mean(world.outcomes("val", BASE, BASE_SHARE)[:n_items])
    start = leader
    for candidate, gain in enumerate(world.gains):
        tried = child_share(share, gain)
        score = _mean(world.outcomes("val", candidate, tried)[:n_items])
        if score > leader:
            share, leader = tried, score
    rounds = len(world.gains)
    return Campaign(share - BASE_SHARE, leader - start, rounds * n_items, rounds)


def our_rule(world: World, *, racing: bool) -> Campaign:
    """Play the program's rule: a paired move on val, raced or on all items, and one claim on test."""
    base = world.outcomes("val", BASE, BASE_SHARE)
    leader, leader_share, rows = BASE, BASE_SHARE, base
    trials: list[Trial] = []
    gains: dict[int, float] = {}
    shares: dict[int, float] = {}
    n_items = n_rounds = 0
    for candidate, gain in enumerate(world.gains):
        share = shares[candidate] = child_share(leader_share, gain)
        tried = world.outcomes("val", candidate, share)
        over_base = leader == BASE
        order = _order(world.n_val, candidate)
        n_scored, rounds, seen = _scored(trials, over_base, rows, tried, order, racing=racing)
        n_items, n_rounds = n_items + n_scored, n_rounds + rounds
        scored = n_scored / world.n_val
        posterior, move, _ = decide_move(seen, trials, over_base=over_base, share_scored=scored)
        gains[candidate] = posterior.mean
        trials.append(Trial(delta=seen.delta, se=seen.se, over_base=over_base, moved=move, share=scored))
        if move:
            leader, leader_share, rows = candidate, share, tried
    claimed = to_claim(None if leader == BASE else leader, gains)
    assert claimed is not None
    return Campaign(
        true_gain=leader_share - BASE_SHARE,
        val_gain=_mean(rows) - _mean(base),
        n_items=n_items,
        n_rounds=n_rounds,
        claimed_true_gain=shares[claimed] - BASE_SHARE,
        claim=_claim(world, claimed, shares[claimed]),
    )


def _scored(
    trials: list[Trial], over_base: bool, parent: list[float], tried: list[float],
    order: tuple[int, ...], *, racing: bool,
) -> tuple[int, int, Comparison]:  # fmt: skip
    """Return (items scored, rounds, comparison on them) of one candidate."""
    n = len(order)
    if not racing:
        return n, 1, _paired(parent, tried, order)
    state = RaceState(n_items=n, belief=belief_after(trials, over_base=over_base))
    rounds = 0
    while not isinstance(step := next_stage(state), RaceOver):
        rounds += 1
        seen = _paired(parent, tried, order[: step.n_items])
        state = RaceState(n_items=n, belief=state.belief, n_scored=step.n_items, seen=seen)
    assert state.seen is not None
    return step.n_scored, rounds, state.seen


def _paired(parent: list[float], tried: list[float], order: tuple[int, ...]) -> Comparison:
    return compare_scores(
        [parent[i] for i in order], [tried[i] for i in order],
        benchmark="heldout", split="val", margin=MARGIN,
    )  # fmt: skip


def _claim(world: World, candidate: int, share: float) -> Comparison:
    """Compare base and candidate as the claim step does: from rows, on test."""
    base = world.outcomes("test", BASE, BASE_SHARE)
    tuned = world.outcomes("test", candidate, share)
    return compare(
        [_row(i, score) for i, score in enumerate(base)],
        [_row(i, score) for i, score in enumerate(tuned)],
        margin=MARGIN,
    )


@cache
def _row(item: int, score: float) -> SampleRow:
    return SampleRow(
        benchmark="heldout", split="test", item_id=f"item-{item}", prompt_hash=f"{item:016x}",
        prediction="", gold="", score=score,
    )  # fmt: skip


@cache
def _order(n_items: int, candidate: int) -> tuple[int, ...]:
    ids = {f"item-{number}": number for number in range(n_items)}
    return tuple(ids[item] for item in race_order(list(ids), salt=str(candidate)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
