"""V3 for rewards: those that run nobody's code are tried on gold and anti-gold answers before any job.

The rest (math, code, a person's functions) are tried by the training job itself, before its model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.stages import GrpoStage
from rdagent_ft.training.rewards.check import check_rewards
from rdagent_ft.training.rewards.load import CHEAP_KINDS, make_rewards

MAX_ROWS = 64


def reward_problems(key: str, stage: GrpoStage, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Return what the cheap rewards of a stage at `key` get wrong on rows of `prompt`, `gold` and columns."""
    declared = [reward.model_dump(mode="json") for reward in stage.rewards]
    rewards = make_rewards(declared, kinds=CHEAP_KINDS)
    found = check_rewards(rewards, rows, max_rows=MAX_ROWS, complete=len(rewards) == len(declared))
    return [
        Problem(f"{key}.rewards", each.key, each.rule, each.problem_class, each.fix)
        for each in (problem.as_problem() for problem in found)
    ]
