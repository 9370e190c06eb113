"""Which sequences of stages are refused, with which reason, and which are not."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.recipe.parse import parse_recipe
from rdagent_ft.recipe.stage_order import check_stage_order

FULL: dict[str, Any] = {"adapter": {"kind": "full"}}
SFT, MERGE, DPO, KTO = ({"kind": kind} for kind in ("sft", "merge", "dpo", "kto"))
REWARD: dict[str, Any] = {"kind": "reward"}
GRPO = {"kind": "grpo", "rewards": [{"kind": "exact"}]}
ASKS = {"kind": "grpo", "rewards": [{"kind": "exact"}, {"kind": "reward_model"}]}
DISTILL = {"kind": "distill", "teacher": "teacher-8b"}


@pytest.mark.parametrize(
    "stages",
    [
        [SFT],
        [DPO],
        [KTO],
        [GRPO],
        [DISTILL],
        [SFT, MERGE],
        [SFT, MERGE, SFT],
        [SFT, MERGE, DPO, MERGE],
        [SFT, MERGE, DPO, MERGE, GRPO, MERGE],
        [SFT | FULL, DPO | FULL, KTO],
        [SFT | FULL, DPO, MERGE],
        [GRPO, MERGE, DPO],
        [SFT, MERGE, DISTILL],
        [DISTILL, MERGE, DPO],
        [SFT, MERGE, REWARD, ASKS],
        [REWARD, ASKS, MERGE],
        [SFT | FULL, REWARD, DPO, MERGE, ASKS],
        [REWARD, ASKS, MERGE, REWARD, ASKS],
    ],
)
def test_an_order_that_makes_sense_is_a_recipe(stages: list[dict[str, Any]]) -> None:
    recipe, problems = parse_recipe({"stages": stages})
    assert problems == []
    assert recipe is not None


@pytest.mark.parametrize(
    ("stages", "expected", "words"),
    [
        ([MERGE], ("chain.stage_order", "stages.0.kind"), "no stage before"),
        ([SFT, MERGE, MERGE], ("chain.stage_order", "stages.2.kind"), "merged already"),
        ([SFT | FULL, MERGE], ("chain.stage_order", "stages.1.kind"), "all weights"),
        ([REWARD, MERGE, ASKS], ("chain.stage_order", "stages.1.kind"), "side branch"),
        ([SFT, DPO], ("chain.unmerged_adapter", "stages.1.kind"), "put a merge stage"),
        ([SFT, REWARD, ASKS], ("chain.unmerged_adapter", "stages.1.kind"), "put a merge stage"),
        ([SFT, MERGE, GRPO, DPO], ("chain.unmerged_adapter", "stages.3.kind"), "put a merge stage"),
        ([DPO | FULL, SFT], ("chain.stage_order", "stages.1.kind"), "before dpo"),
        ([GRPO, MERGE, SFT], ("chain.stage_order", "stages.2.kind"), "before grpo"),
        ([KTO, MERGE, DISTILL], ("chain.stage_order", "stages.2.kind"), "before kto"),
        ([REWARD], ("chain.stage_order", "stages.0.kind"), "no benchmark"),
        ([SFT, MERGE, REWARD], ("chain.stage_order", "stages.2.kind"), "no benchmark"),
        ([REWARD, GRPO], ("chain.stage_order", "stages.0.kind"), "no later grpo"),
        ([REWARD, REWARD, ASKS], ("chain.stage_order", "stages.0.kind"), "replaced"),
        ([SFT, MERGE, ASKS], ("chain.stage_order", "stages.2.rewards.1.kind"), "no stage before"),
    ],
)
def test_nonsense_is_refused_once_with_reason_and_fix(
    stages: list[dict[str, Any]], expected: tuple[str, str], words: str
) -> None:
    problems = check_stage_order(stages)
    assert [(problem.problem_class, problem.key) for problem in problems] == [expected]
    assert words in problems[0].rule + problems[0].fix
    assert parse_recipe({"stages": stages})[0] is None


def test_order_and_fields_are_judged_together() -> None:
    _, problems = parse_recipe({"stages": [{"kind": "sft", "lr": 1}, {"kind": "dpo", "beta": -1}]})
    assert {(problem.problem_class, problem.key) for problem in problems} == {
        ("chain.unmerged_adapter", "stages.1.kind"),
        ("config.renamed_key", "stages.0.lr"),
        ("config.bad_value", "stages.1.beta"),
    }


@pytest.mark.parametrize("stages", [None, "sft", [], [1], [{"kind": "ppo"}, MERGE], [{"kind": ["sft"]}]])
def test_what_is_no_list_of_known_stages_is_left_to_the_schema(stages: Any) -> None:
    assert check_stage_order(stages) == []
