"""The search space: which paths planners vary, in which range, centred where.

All planners share it, so that they can be compared. Every trained stage of the recipe has dimensions of its
own, with its place in the path; stages are neither added nor removed. Ranges are the priors' (ids on each
dimension), and what no prior speaks of is no dimension; the centre is the recipe that is being changed.
GPU-only options are not offered on a CPU. `data.script` is no dimension: source text has no range, so only
the LLM planner writes it and the samplers keep it. Those of single stages are in `stage_space.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rdagent_ft.recipe.default import row_length
from rdagent_ft.recipe.dimensions import Dimension, choice
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stage_space import stage_dimensions
from rdagent_ft.recipe.stages import SftStage

__all__ = ["MAX_SOURCES", "Dimension", "in_space", "search_space"]

MAX_SOURCES = 12


def search_space(
    recipe: Recipe,
    *,
    device: Literal["cpu", "cuda"],
    sources: Mapping[str, int],
    token_percentiles: Mapping[str, int],
    n_params: int | None = None,
    max_positions: int | None = None,
) -> tuple[Dimension, ...]:
    """Return the dimensions around `recipe` in a fixed order.

    Args:
        recipe: the recipe that a proposal changes.
        device: where training runs.
        sources: values of `source` in the train split with their counts.
        token_percentiles: p50, p90, p99, max of tokens per training row.
        n_params: size of the base model; None means at least `TINY_PARAMS` unless all weights train
            at a tiny model's rate.
        max_positions: context length; without it `max_length` is never raised.
    """
    dimensions: list[Dimension] = []
    for place, (index, stage) in enumerate(recipe.trained_stages):
        dimensions += stage_dimensions(index, stage, n_params)
        if place == 0:
            dimensions += _data(recipe, sources, token_percentiles)
        if isinstance(stage, SftStage):
            dimensions += _sft(index, stage, device, token_percentiles, max_positions)
    return tuple(dimensions)


def _data(recipe: Recipe, sources: Mapping[str, int], tokens: Mapping[str, int]) -> Iterator[Dimension]:
    yield choice("data.dedupe", ("none", "exact", "near"), recipe.data.dedupe, "data-dedupe")
    excluded = list(recipe.data.exclude_sources)
    options = _exclusions(sources, excluded)
    if len(options) > 1:
        yield choice("data.exclude_sources", options, excluded, "data-noisy-source")
    if tokens.get("p99") and tokens.get("max", 0) > tokens["p99"] >= 8:
        cut = recipe.data.max_row_tokens
        yield choice("data.max_row_tokens", (None, tokens["p99"]), cut, "data-long-rows")


def _exclusions(sources: Mapping[str, int], excluded: list[str]) -> tuple[list[str], ...]:
    """Return what may be left out: nothing, one source, or one more than now; most rows must stay."""
    total = sum(sources.values())
    ordered = sorted(sources, key=lambda name: (-sources[name], name))[:MAX_SOURCES]
    options: list[list[str]] = [[]]
    options += [[name] for name in ordered]
    options += [sorted({*excluded, name}) for name in ordered if excluded and name not in excluded]
    kept = [names for names in options if sum(sources.get(name, 0) for name in names) <= total / 2]
    return tuple(names for place, names in enumerate(kept) if names not in kept[:place])


def _sft(
    index: int,
    stage: SftStage,
    device: Literal["cpu", "cuda"],
    tokens: Mapping[str, int],
    max_positions: int | None,
) -> Iterator[Dimension]:
    """Offer the lengths of the row percentiles; longer than now only where the context is known."""
    limit = max_positions or stage.max_length
    lengths = {row_length(tokens[name], limit) for name in ("p90", "p99", "max") if tokens.get(name)}
    choices = tuple(sorted(length for length in lengths if length <= 4 * stage.max_length))
    if len({*choices, stage.max_length}) > 1:
        yield choice(f"stages.{index}.max_length", choices, stage.max_length, "sft-max-length")
    if device == "cuda":
        path, centre = f"stages.{index}.neftune_noise_alpha", stage.neftune_noise_alpha
        yield choice(path, (None, 5.0), centre, "sft-neftune")


def in_space(dimension: Dimension, value: Any) -> bool:
    """Whether `value` may be proposed for `dimension`."""
    if dimension.kind == "categorical":
        return value in dimension.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    low, high = dimension.low, dimension.high
    return (low is None or value >= low) and (high is None or value <= high)
