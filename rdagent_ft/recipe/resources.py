"""Memory and time of a whole recipe from the known facts: V1's last rule, and what a run says of both.

Binds `memory.py`, `calibration.py`, `forecast.py` and `admission.py` to the facts of a run. Unknown facts
switch the part off that needs them.
"""

from __future__ import annotations

from functools import partial

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.admission import Limits, admit, memory_ladder, usable_gib
from rdagent_ft.recipe.calibration import calibrated
from rdagent_ft.recipe.forecast import Rows, TimeForecast, forecast_time
from rdagent_ft.recipe.memory import MemoryEstimate, MemorySetup, estimate_memory_gib
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import PreferenceStage


def resource_problems(recipe: Recipe, facts: RuleFacts) -> list[Problem]:
    """Return why the recipe cannot fit or cannot finish; an empty list admits it."""
    limits, memory = _limits(facts), partial(_memory, facts)
    return [] if limits is None else admit(recipe, memory, recipe_time(recipe, facts), limits)


def neutrally_fitting(recipe: Recipe, facts: RuleFacts) -> Recipe:
    """Return the recipe with the smallest changes that make it fit and keep its task.

    As it is when it fits, when only another task would, and when the memory is unknown.
    """
    limits, limit = _limits(facts), device_gib(facts)
    if limits is None or limit is None:
        return recipe
    for place, _ in recipe.trained_stages:
        estimate = _memory(facts, recipe, place)
        if estimate.total_gib <= usable_gib(estimate, limit):
            continue
        for rung in memory_ladder(recipe, place, partial(_memory, facts), limits):
            if not rung.changes_task and rung.total_gib <= usable_gib(estimate, limit):
                recipe = rung.recipe
                break
    return recipe


def device_gib(facts: RuleFacts) -> float | None:
    """Return the memory of one device that trains; None when it is unknown."""
    return facts.gpu_memory_gib if facts.device == "cuda" else facts.memory_gib


def stage_memory(
    recipe: Recipe, place: int, facts: RuleFacts, *, longest_row_tokens: int | None = None
) -> MemoryEstimate | None:
    """Return the estimate of one stage, corrected by what was measured; None without shape or device."""
    if facts.shape is None or facts.device is None:
        return None
    setup = MemorySetup(
        n_devices=_n_devices(facts),
        sharding=facts.sharding,
        longest_row_tokens=longest_row_tokens,
        gpu_memory_gib=facts.gpu_memory_gib,
    )
    estimate = estimate_memory_gib(recipe, facts.shape, facts.device, stage_index=place, setup=setup)
    return calibrated(estimate, facts.memory_factors, model=facts.model or "")


def recipe_time(recipe: Recipe, facts: RuleFacts) -> TimeForecast | None:
    """Return the seconds of every stage; None before anything was measured or the rows are known."""
    if facts.shape is None or facts.n_train_rows is None or facts.tokens_per_row is None:
        return None
    n_rows, most = facts.n_train_rows, recipe.data.max_items
    return forecast_time(
        recipe,
        facts.shape,
        n_rows if most is None else min(n_rows, most),
        facts.tokens_per_row,
        facts.speeds,
        preferences=_pairs(recipe, facts),
    )


def _pairs(recipe: Recipe, facts: RuleFacts) -> Rows | None:
    """Return the given pairs, of twice a training row's tokens; None where a stage samples its own."""
    stages = [stage for _, stage in recipe.trained_stages if isinstance(stage, PreferenceStage)]
    if facts.n_preferences is None or facts.tokens_per_row is None:
        return None
    if any(stage.pairs == "sampled" for stage in stages):
        return None
    return Rows(n_rows=facts.n_preferences, tokens_per_row=2 * facts.tokens_per_row)


def _memory(facts: RuleFacts, recipe: Recipe, place: int) -> MemoryEstimate:
    estimate = stage_memory(recipe, place, facts)
    assert estimate is not None  # asked for only where limits are known
    return estimate


def _limits(facts: RuleFacts) -> Limits | None:
    """Return what there is; None where no estimate can be made."""
    if facts.shape is None or facts.device is None:
        return None
    return Limits(
        device=facts.device,
        memory_gib=device_gib(facts),
        host_gib=facts.memory_gib,
        remaining_s=facts.remaining_s,
        stage_limit_s=facts.stage_limit_s,
        n_devices=_n_devices(facts),
        has_bitsandbytes=facts.bitsandbytes is True,
    )


def _n_devices(facts: RuleFacts) -> int:
    return max(facts.n_gpus or 1, 1)
