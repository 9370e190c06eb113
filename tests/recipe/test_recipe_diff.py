"""Recipes from untrusted values, and dotted diffs: round trip, ranges, suggestions."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_strategies import BROKEN_FILES, RECIPES

from rdagent_ft.errors import RecipeError
from rdagent_ft.recipe.diff import apply_diff, known_paths, recipe_diff
from rdagent_ft.recipe.parse import parse_recipe
from rdagent_ft.recipe.rewards import ExactReward, JsonSchemaReward, RegexReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, GrpoStage, MergeStage, SftStage


@given(RECIPES, RECIPES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_diff_round_trip(parent: Recipe, child: Recipe) -> None:
    diff = recipe_diff(parent, child)
    assert apply_diff(parent, diff) == child
    assert apply_diff(parent, json.loads(json.dumps(diff))) == child
    assert recipe_diff(child, child) == {}


@given(RECIPES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_recipe_survives_json_and_yaml_with_its_hash(recipe: Recipe) -> None:
    for text in (recipe.model_dump_json(), yaml.safe_dump(recipe.model_dump(mode="json"))):
        again, problems = parse_recipe(yaml.safe_load(text))
        assert problems == []
        assert again is not None
        assert again.hash == recipe.hash


def test_diff_is_minimal() -> None:
    parent = Recipe()
    child = apply_diff(
        parent, {"stages.0.learning_rate": "1e-3", "stages.0.adapter.r": 32, "data.dedupe": "none"}
    )
    assert recipe_diff(parent, child) == {"stages.0.learning_rate": 0.001, "stages.0.adapter.r": 32}


def test_a_new_adapter_kind_takes_its_own_defaults() -> None:
    child = apply_diff(Recipe(), {"stages.0.adapter.kind": "full", "stages.0.learning_rate": 2e-5})
    assert recipe_diff(Recipe(), child) == {
        "stages.0.adapter": {"kind": "full"},
        "stages.0.learning_rate": 2e-5,
    }
    back = apply_diff(child, {"stages.0.adapter.r": 8, "stages.0.adapter.kind": "lora"})
    assert back.stages[0].adapter.model_dump()["r"] == 8


@pytest.mark.parametrize(
    ("diff", "problem_class", "key", "words"),
    [
        ({"stages.0.lr": 1e-3}, "config.unknown_key", "stages.0.lr", "stages.0.learning_rate"),
        ({"learning_rate": 1e-3}, "config.unknown_key", "learning_rate", "stages.0.learning_rate"),
        ({"stages.0.adapter.rank": 8}, "config.unknown_key", "stages.0.adapter.rank", "stages.0.adapter.r"),
        ({"stages.1.epochs": 2}, "config.unknown_key", "stages.1.epochs", "stages.0.epochs"),
        ({"data.dedup": "near"}, "config.unknown_key", "data.dedup", "data.dedupe"),
        ({"stages.0.learning_rate": -1}, "config.bad_value", "stages.0.learning_rate", "above 0"),
        ({"stages.0.adapter.r": 0}, "config.bad_value", "stages.0.adapter.r", "from 1 to 512"),
        ({"stages.0.packing": "yes"}, "config.bad_value", "stages.0.packing", "true or false"),
        ({"stages.0.epochs": True}, "config.bad_value", "stages.0.epochs", "100"),
        ({"stages.0.epochs": float("nan")}, "config.bad_value", "stages.0.epochs", "finite"),
        ({"stages.0.lr_scheduler": "cosin"}, "config.bad_value", "stages.0.lr_scheduler", "cosine"),
        ({"model": "other"}, "config.protected_key", "model", "drop"),
        ({"stages.0.output_dir": "/x"}, "config.protected_key", "stages.0.output_dir", "drop"),
        ({"": 1}, "config.unknown_key", "", "stages"),
        ({"stages.99999999999.epochs": 1}, "config.unknown_key", "stages.99999999999.epochs", "stages.0"),
        ({"stages": []}, "config.bad_value", "stages", ""),
    ],
)
def test_bad_diff_is_named(diff: dict[str, Any], problem_class: str, key: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_diff(Recipe(), diff)
    found = {(problem.problem_class, problem.key): problem.fix for problem in caught.value.problems}
    assert words in found[(problem_class, key)] or words in caught.value.render()


def test_all_problems_come_together() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_diff(
            Recipe(), {"stages.0.lr": 1, "stages.0.epochs": -1, "data.max_items": "many", "dataset": "x"}
        )
    assert len(caught.value.problems) == 4


@given(
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(known_paths(Recipe())),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=3), max_size=2),
        max_size=4,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_diff_gives_a_recipe_or_a_recipe_error(diff: dict[str, Any]) -> None:
    try:
        outcome: Recipe | RecipeError = apply_diff(Recipe(), diff)
    except RecipeError as error:
        outcome = error
    assert isinstance(outcome, Recipe) or outcome.problems


def test_known_paths_hold_objects_and_leaves() -> None:
    paths = known_paths(Recipe())
    assert {"data", "data.dedupe", "stages.0.adapter", "stages.0.adapter.r", "stages.0.learning_rate"} <= set(
        paths
    )


def test_text_that_spells_a_number_is_one_where_a_number_stands() -> None:
    recipe, problems = parse_recipe(
        {
            "stages": [
                {"kind": "grpo", "learning_rate": "2e-6", "rewards": [{"kind": "regex", "pattern": "2e-6"}]}
            ]
        }
    )
    assert problems == []
    assert recipe is not None
    (stage,) = recipe.stages
    assert isinstance(stage, GrpoStage)
    assert stage.learning_rate == 2e-6
    assert stage.rewards[0] == RegexReward(pattern="2e-6")


def test_one_loss_and_a_schema_as_a_mapping_are_taken_as_meant() -> None:
    recipe, problems = parse_recipe(
        {
            "stages": [
                {"kind": "dpo", "loss_type": "ipo", "loss_weights": "0.5"},
                {"kind": "merge"},
                {"kind": "grpo", "rewards": [{"kind": "json_schema", "json_schema": {"type": "object"}}]},
            ]
        }
    )
    assert problems == []
    assert recipe is not None
    dpo, _, grpo = recipe.stages
    assert isinstance(dpo, DpoStage)
    assert (dpo.loss_type, dpo.loss_weights) == (("ipo",), (0.5,))
    assert isinstance(grpo, GrpoStage)
    assert grpo.rewards[0] == JsonSchemaReward(json_schema='{"type":"object"}')


@given(BROKEN_FILES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_parsing_never_raises_and_names_what_it_refuses(values: dict[str, Any]) -> None:
    recipe, problems = parse_recipe(values)
    assert (recipe is None) == bool(problems)
    assert len({(problem.key, problem.problem_class) for problem in problems}) == len(problems)
    for problem in problems:
        assert problem.rule
        assert problem.fix
        json.dumps(problem.as_json(), allow_nan=False)


SEVERAL = Recipe(
    stages=(
        SftStage(),
        MergeStage(),
        GrpoStage(rewards=(ExactReward(), RegexReward(pattern="a"))),
    )
)


def test_a_field_of_any_stage_and_reward_can_be_set() -> None:
    child = apply_diff(
        SEVERAL, {"stages.2.num_generations": 4, "stages.2.rewards.1.weight": 0.1, "stages.0.adapter.r": 8}
    )
    assert recipe_diff(SEVERAL, child) == {
        "stages.0.adapter.r": 8,
        "stages.2.num_generations": 4,
        "stages.2.rewards.1.weight": 0.1,
    }
    paths = known_paths(SEVERAL)
    assert {"stages.1.kind", "stages.2.rewards", "stages.2.rewards.1.pattern"} <= set(paths)
    assert not [path for path in paths if path.startswith("stages.1.") and path != "stages.1.kind"]


def test_stages_are_added_and_removed_by_giving_the_list() -> None:
    longer = apply_diff(Recipe(), {"stages": [*Recipe().model_dump()["stages"], {"kind": "merge"}]})
    assert [stage.kind for stage in longer.stages] == ["sft", "merge"]
    assert list(recipe_diff(Recipe(), longer)) == ["stages"]
    assert apply_diff(longer, recipe_diff(longer, Recipe())) == Recipe()
    with pytest.raises(RecipeError, match="problem") as caught:
        apply_diff(Recipe(), {"stages.1": {"kind": "merge"}})
    assert "give `stages` whole" in caught.value.problems[0].rule


def test_a_stage_of_another_kind_takes_its_own_defaults() -> None:
    child = apply_diff(Recipe(), {"stages.0.kind": "dpo", "stages.0.beta": 0.2})
    assert child.stages == (DpoStage(beta=0.2),)
    assert list(recipe_diff(Recipe(), child)) == ["stages.0"]


def test_a_diff_that_breaks_the_order_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_diff(SEVERAL, {"stages.0.adapter": {"kind": "full"}})
    assert [(p.problem_class, p.key) for p in caught.value.problems] == [
        ("chain.stage_order", "stages.1.kind")
    ]


@pytest.mark.parametrize(
    ("diff", "problem_class", "words"),
    [
        ({"stages.0.temperature": 1.0}, "config.protected_key", "drop"),
        ({"stages.2.temprature": 1.0}, "config.unknown_key", "stages.2.temperature"),
        ({"stages.2.packing": True}, "config.unknown_key", "stages.0.packing"),
        ({"stages.1.epochs": 2}, "config.unknown_key", "stages.0.epochs"),
        ({"stages.2.rewards.1.regex": "b"}, "config.unknown_key", "stages.2.rewards.1.pattern"),
    ],
)
def test_a_wrong_path_in_one_of_several_stages_is_named(
    diff: dict[str, Any], problem_class: str, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_diff(SEVERAL, diff)
    (problem,) = caught.value.problems
    assert (problem.problem_class, problem.key) == (problem_class, next(iter(diff)))
    assert words in problem.fix
