"""The race: its stages, its rule against simulation, and that it always ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.evaluation.racing import (
    MIN_RACE_ITEMS,
    RaceOver,
    RaceState,
    ScoreMore,
    chance_of_move,
    next_stage,
    race_order,
    stages,
)
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.statistics import compare_scores
from rdagent_ft.evaluation.trials import Belief, Trial, belief_after, expected_gain, says_move

LEADER = Trial(delta=0.3, se=0.02, over_base=True, moved=True)
BELIEF = belief_after([LEADER], over_base=False)


def seen(lost: int, gained: int, n: int) -> Comparison:
    base = [1.0] * lost + [0.0] * (n - lost)
    tuned = [0.0] * lost + [1.0] * gained + [0.0] * (n - lost - gained)
    return compare_scores(base, tuned, benchmark="heldout", split="val", margin=0.02)


def state(lost: int, gained: int, n: int, n_items: int = 1319, belief: Belief = BELIEF) -> RaceState:
    return RaceState(n_items=n_items, belief=belief, n_scored=n, seen=seen(lost, gained, n))


def test_stages_double_up_to_all() -> None:
    assert stages(1319) == (100, 200, 400, 800, 1319)
    assert stages(500) == (100, 200, 400, 500)
    assert stages(400) == (100, 200, 400)
    assert stages(MIN_RACE_ITEMS - 1) == (MIN_RACE_ITEMS - 1,)
    assert stages(20) == (20,)


def test_a_small_val_split_is_scored_at_once() -> None:
    assert next_stage(RaceState(n_items=200, belief=BELIEF)) == ScoreMore(n_items=200)
    assert next_stage(RaceState(n_items=1319, belief=BELIEF)) == ScoreMore(n_items=100)


def test_a_clear_loser_stops_a_clear_winner_is_scored_on_all() -> None:
    over = next_stage(state(30, 2, 100))
    assert isinstance(over, RaceOver)
    assert (over.n_scored, over.move) == (100, False)
    assert over.p_move < 0.06
    more = next_stage(state(2, 40, 100))
    assert isinstance(more, ScoreMore)
    assert more.n_items == 1319
    unclear = next_stage(state(11, 10, 100))
    assert isinstance(unclear, ScoreMore)
    assert unclear.n_items == 200


def test_on_all_items_the_move_rule_decides() -> None:
    for lost, gained in [(100, 140), (120, 120), (140, 100), (0, 0)]:
        over = next_stage(state(lost, gained, 1319))
        assert isinstance(over, RaceOver)
        pair = seen(lost, gained, 1319)
        assert over.move == says_move(expected_gain(BELIEF, pair.delta, pair.se), pair.delta)
        assert over.p_move == float(over.move)


def test_identical_answers_on_the_first_items_are_no_certainty() -> None:
    assert 0.02 < chance_of_move(BELIEF, seen(0, 0, 100), 100 / 1319) < 0.9


@pytest.mark.parametrize(
    ("n", "share_gained", "share_lost"), [(100, 0.08, 0.12), (200, 0.1, 0.1), (400, 0.1, 0.12)]
)
def test_chance_of_move_is_what_simulation_finds(n: int, share_gained: float, share_lost: float) -> None:
    """Draw candidates from the prior, keep those that look like this one on n items, score them all."""
    generator = random.Random(13)
    n_items, belief = 1000, belief_after([], over_base=False)
    target = seen(round(share_lost * n), round(share_gained * n), n)
    moves: list[bool] = []
    discordant = share_gained + share_lost
    while len(moves) < 600:
        gain = generator.gauss(0.0, 0.03)
        draws = [
            0
            if generator.random() > discordant
            else (1 if generator.random() < 0.5 + gain / discordant / 2 else -1)
            for _ in range(n)
        ]
        if abs(sum(draws) / n - target.delta) > 0.011:
            continue
        rest = n_items - n
        spread = (rest * discordant) ** 0.5
        full = (sum(draws) + generator.gauss(gain * rest, spread)) / n_items
        error = (discordant / n_items) ** 0.5
        moves.append(says_move(expected_gain(belief, full, error), full))
    assert chance_of_move(belief, target, n / n_items) == pytest.approx(sum(moves) / 600, abs=0.07)


@given(st.integers(0, 30), st.integers(0, 30), st.sampled_from([100, 200, 400]), st.sampled_from([500, 1319]))
def test_chance_rises_with_every_gained_item(lost: int, gained: int, n: int, n_items: int) -> None:
    # Swapping a lost item for a gained one keeps the discordant share.
    if lost == 0:
        return
    worse, better = seen(lost, gained, n), seen(lost - 1, gained + 1, n)
    assert chance_of_move(BELIEF, worse, n / n_items) <= chance_of_move(BELIEF, better, n / n_items) + 0.02


@given(st.integers(1, 3000), st.floats(0, 0.3), st.floats(0, 0.3), st.integers(0, 2**31))
def test_every_race_ends(n_items: int, p_gain: float, p_loss: float, seed: int) -> None:
    generator = random.Random(seed)
    base = [float(generator.random() < 0.5) for _ in range(n_items)]
    tuned = [
        (0.0 if generator.random() < p_loss else 1.0) if right else float(generator.random() < p_gain)
        for right in base
    ]
    race, sizes = RaceState(n_items=n_items, belief=BELIEF), [0]
    while isinstance(step := next_stage(race), ScoreMore):
        sizes.append(step.n_items)
        pair = compare_scores(
            base[: step.n_items], tuned[: step.n_items], benchmark="heldout", split="val", margin=0.02
        )
        race = race.model_copy(update={"n_scored": step.n_items, "seen": pair})
    assert sizes == sorted(set(sizes))
    assert step.n_scored == sizes[-1] <= n_items
    assert not step.move or step.n_scored == n_items
    assert len(sizes) - 1 <= len(stages(n_items))


def test_order_depends_on_ids_and_salt_alone() -> None:
    ids = [f"i{number}" for number in range(50)]
    order = race_order(ids, "3")
    assert sorted(order) == sorted(ids)
    assert race_order(ids[::-1], "3") == order
    assert race_order(ids, "4") != order


@pytest.mark.parametrize(("n_items", "n_scored"), [(0, 0), (10, 11), (10, -1)])
def test_impossible_states_are_refused(n_items: int, n_scored: int) -> None:
    with pytest.raises(ValueError, match="items scored"):
        next_stage(RaceState(n_items=n_items, belief=BELIEF, n_scored=n_scored))
    with pytest.raises(ValueError, match="not compared"):
        next_stage(RaceState(n_items=500, belief=BELIEF, n_scored=100))
