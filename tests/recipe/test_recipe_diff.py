"""Recipes from untrusted values, and dotted diffs: round trip, ranges, suggestions."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import RecipeError
from rdagent_ft.recipe.diff import apply_diff, known_paths, recipe_diff
from rdagent_ft.recipe.parse import parse_recipe
from rdagent_ft.recipe.schema import Recipe

RECIPES = st.builds(Recipe)


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
        ({"stages.0.epochs": float("nan")}, "config.bad_value", "recipe", "finite"),
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


def test_parse_accepts_text_numbers_and_refuses_foreign_stages() -> None:
    recipe, problems = parse_recipe({"stages": [{"kind": "sft", "learning_rate": "2e-4"}]})
    assert problems == []
    assert recipe is not None
    assert recipe.stages[0].learning_rate == 2e-4
    _, problems = parse_recipe({"stages": [{"kind": "sft"}, {"kind": "merge"}, {"kind": "dpo"}]})
    assert {problem.problem_class for problem in problems} == {"chain.unsupported_stage"}
    _, problems = parse_recipe({"stages": [{"kind": "merge"}]})
    assert problems[0].problem_class == "chain.stage_order"
