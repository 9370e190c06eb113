"""The search space of recipes with several stages: paths, ranges and priors of every kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from recipe_strategies import RECIPES

from rdagent_ft.knowledge.store import prior_ids
from rdagent_ft.recipe.diff import apply_diff, known_paths
from rdagent_ft.recipe.parse import load_recipe
from rdagent_ft.recipe.rules import RuleFacts, recipe_warnings
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.space import Dimension, in_space, search_space

PIPELINE = load_recipe(
    {
        "stages": [
            {"kind": "sft"},
            {"kind": "merge"},
            {"kind": "dpo"},
            {"kind": "merge"},
            {"kind": "grpo", "rewards": [{"kind": "exact"}]},
        ]
    }
)


def space(recipe: Recipe, n_params: int | None = 8_000_000_000) -> dict[str, Dimension]:
    found = search_space(
        recipe, device="cuda", sources={"a": 5, "b": 4},
        token_percentiles={"p90": 90, "p99": 200, "max": 900}, n_params=n_params, max_positions=4096,
    )  # fmt: skip
    assert len({dimension.path for dimension in found}) == len(found)
    return {dimension.path: dimension for dimension in found}


def test_every_trained_stage_has_dimensions_of_its_kind() -> None:
    found = space(PIPELINE)
    assert {"stages.0.learning_rate", "stages.0.max_length", "stages.0.neftune_noise_alpha"} <= set(found)
    assert {"stages.2.learning_rate", "stages.2.beta", "stages.2.epochs"} <= set(found)
    assert {"stages.4.num_generations", "stages.4.epsilon_high", "stages.4.adapter.r"} <= set(found)
    assert not {path for path in found if path.startswith(("stages.1", "stages.3"))}
    assert "stages.2.neftune_noise_alpha" not in found
    assert [path for path in found if path.startswith("data.")].count("data.dedupe") == 1


def test_rates_are_searched_where_the_prior_of_the_kind_says() -> None:
    found = space(PIPELINE)
    rates = {path: found[f"stages.{path}.learning_rate"] for path in (0, 2, 4)}
    assert (rates[2].low, rates[2].high, rates[2].prior_id) == (5e-6, 1e-5, "dpo-lora-lr")
    assert (rates[4].low, rates[4].high, rates[4].prior_id) == (1e-5, 8e-5, "grpo-lora-lr")
    assert rates[0].prior_id == "sft-lora-lr-grid"
    for path in (2, 4):
        for rate in (rates[path].low, rates[path].high):
            child = apply_diff(PIPELINE, {f"stages.{path}.learning_rate": rate})
            assert recipe_warnings(child, RuleFacts(n_params=8_000_000_000)) == []


def test_a_rate_outside_the_prior_is_searched_around_itself() -> None:
    tiny = apply_diff(PIPELINE, {"stages.2.learning_rate": 3e-3})
    rate = space(tiny, n_params=2_000_000)["stages.2.learning_rate"]
    assert (rate.low, rate.high) == pytest.approx((1e-3, 9e-3))


@given(RECIPES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
def test_every_bound_of_every_dimension_gives_a_recipe(recipe: Recipe) -> None:
    paths = set(known_paths(recipe))
    for dimension in space(recipe).values():
        assert dimension.path in paths
        assert dimension.prior_id in prior_ids()
        assert in_space(dimension, dimension.centre)
        for value in dimension.choices or (dimension.low, dimension.high):
            assert in_space(dimension, value)
            apply_diff(recipe, {dimension.path: value})
