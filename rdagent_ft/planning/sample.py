"""Draws values from the search space and turns them into a valid, new proposal.

Shared by the planners without an LLM. Every draw comes from the generator that is passed in, so equal
contexts give equal proposals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from rdagent_ft.errors import PreflightError, RecipeError, TimeIsUpError
from rdagent_ft.planning.history import tried_hashes, typical_gain_pp
from rdagent_ft.planning.port import PlanContext, Proposal
from rdagent_ft.planning.words import hypothesis_text
from rdagent_ft.recipe.admission import lacks_only_time
from rdagent_ft.recipe.diff import apply_diff, recipe_diff
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.space import Dimension, search_space
from rdagent_ft.recipe.stages import GrpoStage

MAX_DRAWS = 50
CENTRE_SPREAD = 0.25
"""Standard deviation of a draw around a dimension's centre, as a share of the (log) range."""

SMALL_MOVE = 0.05
"""A move shorter than this share of a range is no hypothesis of its own."""

MAX_REDRAWS = 20
Draw = Callable[[int], Mapping[str, Any]]


def space_of(context: PlanContext) -> tuple[Dimension, ...]:
    """Return the search space around the parent recipe."""
    return search_space(
        context.parent_recipe,
        device=context.device,
        sources=context.sources,
        token_percentiles=context.token_percentiles,
        n_params=context.rule_facts.n_params,
        max_positions=context.rule_facts.max_positions,
    )


def uniform_value(dimension: Dimension, rng: random.Random) -> Any:
    """Return a value drawn evenly over the dimension (over its logarithm where it says so)."""
    if dimension.kind == "categorical":
        return rng.choice(dimension.choices)
    low, high = _bounds(dimension)
    return _placed(dimension, rng.uniform(low, high))


def centred_value(dimension: Dimension, rng: random.Random) -> Any:
    """Return a value near the dimension's centre: (log-)normal, a quarter of the range wide, clipped.

    Of choices, another than the centre, each equally often. Small moves are drawn again.
    """
    if dimension.kind == "categorical":
        others = [choice for choice in dimension.choices if choice != dimension.centre]
        return rng.choice(others or list(dimension.choices))
    low, high = _bounds(dimension)
    centre = math.log(float(dimension.centre)) if dimension.log else float(dimension.centre)
    value = _placed(dimension, rng.gauss(centre, CENTRE_SPREAD * (high - low)))
    for _ in range(MAX_REDRAWS):
        if move_share(dimension, dimension.centre, value) >= SMALL_MOVE:
            break
        value = _placed(dimension, rng.gauss(centre, CENTRE_SPREAD * (high - low)))
    return value


def move_share(dimension: Dimension, old: float, new: float) -> float:
    """Return the length of a move as a share of the dimension's (log) range."""
    low, high = _bounds(dimension)
    if high <= low:
        return 0.0
    if dimension.log:
        return abs(math.log(new / old)) / (high - low) if old > 0 else 1.0
    return abs(new - old) / (high - low)


def first_new_proposal(
    context: PlanContext, dimensions: tuple[Dimension, ...], draw: Draw, planner: str
) -> Proposal:
    """Return the first draw that gives a valid recipe which was not trained before.

    `draw(n)` gives the n-th candidate as path -> value. Raises `PreflightError` when `MAX_DRAWS`
    draws hold no new valid recipe, and `TimeIsUpError` when one of them only lacked time.
    """
    tried, too_long = tried_hashes(context), False
    problem = "every drawn recipe was already trained"
    for attempt in range(MAX_DRAWS):
        try:
            recipe = _divisible(apply_diff(context.parent_recipe, dict(draw(attempt))))
        except RecipeError as error:
            problem = error.message
            continue
        if recipe.hash in tried:
            continue
        broken = check_recipe(recipe, context.rule_facts)
        if not broken:
            return _proposal(context, dimensions, recipe, planner)
        problem = broken[0].render()
        too_long = too_long or lacks_only_time(broken)
    if too_long:
        raise TimeIsUpError(f"planner {planner} found no new recipe that can end in the time left: {problem}")
    raise PreflightError(
        f"planner {planner} found no new valid recipe in {MAX_DRAWS} draws: {problem}",
        hint="the search space around the parent may be used up; end the run, or use another planner",
    )


def cited_priors(dimensions: tuple[Dimension, ...], diff: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the priors behind the changed dimensions, each once, in their order."""
    ids = [d.prior_id for d in dimensions if d.path in diff]
    return tuple(dict.fromkeys(ids))


def _proposal(
    context: PlanContext, dimensions: tuple[Dimension, ...], recipe: Recipe, planner: str
) -> Proposal:
    diff = recipe_diff(context.parent_recipe, recipe)
    low, high, reason = typical_gain_pp(context)
    cites = cited_priors(dimensions, diff)
    return Proposal(
        hypothesis=hypothesis_text(context.parent_recipe, diff, scorer=context.scorer, cites=cites),
        prediction=f"val +{low:g} to +{high:g} pp against the parent ({reason})",
        diff=diff,
        cites=cites,
        recipe=recipe,
        planner=planner,
    )


def _divisible(recipe: Recipe) -> Recipe:
    """Return the recipe with each micro batch lowered to a divisor of its effective batch.

    Stages of `grpo` are left alone: their micro-batch is found when the config is written.
    """
    diff: dict[str, int] = {}
    for index, stage in recipe.trained_stages:
        if not isinstance(stage, GrpoStage) and stage.effective_batch % stage.micro_batch:
            fitting = (n for n in range(stage.micro_batch, 0, -1) if stage.effective_batch % n == 0)
            diff[f"stages.{index}.micro_batch"] = next(fitting)
    return apply_diff(recipe, diff) if diff else recipe


def _bounds(dimension: Dimension) -> tuple[float, float]:
    assert dimension.low is not None
    assert dimension.high is not None
    low, high = float(dimension.low), float(dimension.high)
    return (math.log(low), math.log(high)) if dimension.log else (low, high)


def _placed(dimension: Dimension, value: float) -> float | int:
    """Return a drawn number as the dimension's kind, inside its range, with two digits that count."""
    assert dimension.low is not None
    assert dimension.high is not None
    number = math.exp(value) if dimension.log else value
    number = float(f"{number:.2g}") if dimension.kind == "float" else round(number)
    return type(number)(min(max(number, dimension.low), dimension.high))
