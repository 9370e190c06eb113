"""Planners on recipes of several stages: proposals, words, and stages added by the LLM planner."""

from __future__ import annotations

import json

import pytest
from planning_case import context

from rdagent_ft.planning.history import history_table
from rdagent_ft.planning.llm import Change, ProposalReply, check_reply, shown_priors
from rdagent_ft.planning.port import Planner
from rdagent_ft.planning.random import RandomPlanner
from rdagent_ft.planning.sample import space_of
from rdagent_ft.planning.tpe import TpePlanner
from rdagent_ft.planning.words import hypothesis_text
from rdagent_ft.recipe.diff import apply_diff
from rdagent_ft.recipe.parse import load_recipe
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, MergeStage, SftStage

PIPELINE = Recipe(stages=(SftStage(), MergeStage(), DpoStage()))
PLANNERS: tuple[Planner, ...] = (TpePlanner(), RandomPlanner())


def reply(path: str, value: str | float) -> ProposalReply:
    return ProposalReply(
        hypothesis="A change helps.",
        prediction="+1 pp",
        diff=(Change(path=path, value=value),),
        cites=(),
    )


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_samplers_propose_valid_changes_of_every_stage(planner: Planner) -> None:
    changed: set[str] = set()
    for seed in range(12):
        plan = context(default_recipe=PIPELINE, seed=seed)
        proposal = planner.ask(plan)
        assert apply_diff(PIPELINE, proposal.diff) == proposal.recipe
        assert check_recipe(proposal.recipe, plan.rule_facts) == []
        assert [stage.kind for stage in proposal.recipe.stages] == ["sft", "merge", "dpo"]
        changed |= {path.rpartition(".")[0] for path in proposal.diff}
    assert {"stages.0", "stages.2"} <= changed


def test_samplers_leave_the_micro_batch_of_grpo_to_the_program() -> None:
    grpo = load_recipe({"stages": [{"kind": "grpo", "micro_batch": 6, "rewards": [{"kind": "exact"}]}]})
    for seed in range(5):
        proposal = RandomPlanner().ask(context(default_recipe=grpo, seed=seed))
        assert "stages.0.micro_batch" not in proposal.diff


def test_the_words_name_the_stage_where_there_are_several() -> None:
    text = hypothesis_text(PIPELINE, {"stages.2.beta": 0.3}, scorer="exact_match", cites=())
    assert text == "A higher beta (0.1 -> 0.3) in stage 3 (dpo) improves val exact match"
    longer = [*PIPELINE.model_dump(mode="json")["stages"], {"kind": "merge"}]
    text = hypothesis_text(PIPELINE, {"stages": longer}, scorer="", cites=())
    assert text.startswith("Sft -> merge -> dpo -> merge instead of sft -> merge -> dpo improves")


def test_the_llm_planner_adds_stages_as_json_text() -> None:
    stages = json.dumps([{"kind": "sft"}, {"kind": "merge"}, {"kind": "dpo", "beta": 0.2}])
    recipe, problems = check_reply(reply("stages", stages), context())
    assert problems == []
    assert recipe is not None
    assert recipe.stages == (SftStage(), MergeStage(), DpoStage(beta=0.2))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('[{"kind": "sft"}, {"kind": "dpo"}]', "put a merge stage"),
        ("sft, merge, dpo", "must be a list"),
        ('[{"kind": "sft"', "must be a list"),
    ],
)
def test_what_the_llm_gives_for_stages_is_judged_like_a_file(value: str, words: str) -> None:
    recipe, problems = check_reply(reply("stages", value), context())
    assert recipe is None
    assert words in problems[0]


def test_priors_of_every_trained_kind_are_shown() -> None:
    plan = context(default_recipe=PIPELINE)
    ids = {prior.id for prior in shown_priors(plan, space_of(plan))}
    assert {"sft-lora-lr-grid", "dpo-lora-lr"} <= ids


def test_the_history_shows_new_stages_without_their_defaults() -> None:
    plan = context()
    trial = plan.trials[0].model_copy(update={"loop": 1, "parent": 0, "recipe": PIPELINE})
    table = history_table(plan.model_copy(update={"trials": (*plan.trials, trial)}))
    assert 'stages=[{"kind":"sft"},{"kind":"merge"},{"kind":"dpo"}]' in table
