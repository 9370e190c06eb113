"""The selection rule in words and numbers."""

from __future__ import annotations

import pytest

from rdagent_ft.engine.selection import decide_move, to_claim
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.statistics import compare_scores
from rdagent_ft.evaluation.trials import Trial


def paired(lost: int, gained: int, n: int = 500) -> Comparison:
    base = [1.0] * lost + [0.0] * (n - lost)
    tuned = [0.0] * lost + [1.0] * gained + [0.0] * (n - lost - gained)
    return compare_scores(base, tuned, benchmark="heldout", split="val", margin=0.02)


LEADER = Trial(delta=0.1, se=0.02, over_base=True, moved=True)
LOSERS = [Trial(delta=-0.02, se=0.02, over_base=False, moved=False)] * 6


def test_a_small_gain_over_a_lucky_leader_moves() -> None:
    posterior, move, reason = decide_move(paired(40, 45), [LEADER, *LOSERS], over_base=False)
    assert move
    assert posterior.mean > 0
    assert "over the parent on 500 items" in reason


def test_no_move_without_a_higher_score() -> None:
    posterior, move, reason = decide_move(paired(42, 42), [LEADER, *LOSERS], over_base=False)
    assert not move
    assert posterior.mean > 0
    assert reason.endswith("no move without a higher score")


def test_a_race_that_ended_early_never_moves() -> None:
    _, move, reason = decide_move(paired(2, 30, 100), [], over_base=True, share_scored=0.2)
    assert not move
    assert "the race ended after 20% of val" in reason


@pytest.mark.parametrize(
    ("leader", "gains", "claimed"),
    [(3, {0: 0.1, 3: 0.0}, 3), (None, {0: -0.1, 1: -0.02, 2: -0.02}, 1), (None, {}, None)],
)
def test_what_is_claimed(leader: int | None, gains: dict[int, float], claimed: int | None) -> None:
    assert to_claim(leader, gains) == claimed
