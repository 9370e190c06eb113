"""The search space: which paths planners vary, in which range, centred where.

All planners share it, so that they can be compared. Ranges are the priors' (ids on each dimension);
the centre is the recipe that is being changed. GPU-only options are not offered on a CPU. `data.script`
is no dimension: source text has no range, so only the LLM planner writes it and the samplers keep it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rdagent_ft.recipe.default import row_length
from rdagent_ft.recipe.rules import TINY_PARAMS
from rdagent_ft.recipe.schema import LoraAdapter, Recipe, SftStage
from rdagent_ft.values import Frozen

MAX_SOURCES = 12


class Dimension(Frozen):
    """One thing that a planner may vary.

    Attributes:
        path: dotted path for `apply_diff`.
        kind: `float` and `int` use `low`, `high` and `log`; `categorical` uses `choices`.
        low, high: inclusive range.
        log: whether the scale is logarithmic.
        choices: allowed values as JSON (lists for `data.exclude_sources`).
        centre: value in the recipe that is being changed; inside the range or among the choices.
        prior_id: the knowledge-base entry that the range rests on.
    """

    path: str
    kind: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    centre: Any = None
    prior_id: str


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
    stage = recipe.stages[0]
    dimensions = [
        *_optimisation(stage, n_params),
        *_adapter(stage.adapter),
        *_data(recipe, sources, token_percentiles),
        *_length(stage, token_percentiles, max_positions),
    ]
    if device == "cuda":
        dimensions.append(
            _choice("stages.0.neftune_noise_alpha", (None, 5.0), stage.neftune_noise_alpha, "sft-neftune")
        )
    return tuple(dimensions)


def _optimisation(stage: SftStage, n_params: int | None) -> Iterator[Dimension]:
    low, high, prior = _rate_range(stage, n_params)
    yield Dimension(
        path="stages.0.learning_rate", kind="float", log=True, prior_id=prior, centre=stage.learning_rate,
        low=min(low, stage.learning_rate), high=max(high, stage.learning_rate),
    )  # fmt: skip
    many = prior == "sft-tiny-full-lr"
    top = 12.0 if many else 5.0
    passes = "sft-tiny-epochs" if many else "sft-epochs"
    if stage.max_steps is None:
        yield Dimension(
            path="stages.0.epochs", kind="float", low=min(1.0, stage.epochs), high=max(top, stage.epochs),
            centre=stage.epochs, prior_id=passes,
        )  # fmt: skip
    else:  # `epochs` is ignored then: changing it would train the same model again
        yield Dimension(
            path="stages.0.max_steps", kind="int", log=True, low=max(1, stage.max_steps // 3),
            high=stage.max_steps * 3, centre=stage.max_steps, prior_id=passes,
        )  # fmt: skip
    batches = tuple(n for n in (4, 8, 16, 32, 64, 128) if n % stage.micro_batch == 0)
    lora = isinstance(stage.adapter, LoraAdapter)
    batch_prior = "sft-lora-batch" if lora else "sft-full-batch"
    yield _choice("stages.0.effective_batch", batches, stage.effective_batch, batch_prior)
    yield Dimension(
        path="stages.0.warmup_ratio", kind="float", low=0.0, high=max(0.15, stage.warmup_ratio),
        centre=stage.warmup_ratio, prior_id="sft-warmup",
    )  # fmt: skip
    yield _choice("stages.0.weight_decay", (0.0, 0.01, 0.1), stage.weight_decay, "sft-weight-decay")


def _rate_range(stage: SftStage, n_params: int | None) -> tuple[float, float, str]:
    if isinstance(stage.adapter, LoraAdapter):
        return 5e-5, 2e-3, "sft-lora-lr-grid"
    tiny = n_params < TINY_PARAMS if n_params is not None else stage.learning_rate >= 2e-4
    return (2e-4, 5e-3, "sft-tiny-full-lr") if tiny else (5e-6, 5e-5, "sft-full-lr")


def _adapter(adapter: Any) -> Iterator[Dimension]:
    if not isinstance(adapter, LoraAdapter):
        return
    yield _choice("stages.0.adapter.r", (8, 16, 32, 64), adapter.r, "lora-rank-small-data")
    yield _choice("stages.0.adapter.alpha", (16, 32, 64, 128), adapter.alpha, "lora-alpha-2r")


def _data(recipe: Recipe, sources: Mapping[str, int], tokens: Mapping[str, int]) -> Iterator[Dimension]:
    yield _choice("data.dedupe", ("none", "exact", "near"), recipe.data.dedupe, "data-dedupe")
    excluded = list(recipe.data.exclude_sources)
    options = _exclusions(sources, excluded)
    if len(options) > 1:
        yield _choice("data.exclude_sources", options, excluded, "data-noisy-source")
    if tokens.get("p99") and tokens.get("max", 0) > tokens["p99"] >= 8:
        cut = recipe.data.max_row_tokens
        yield _choice("data.max_row_tokens", (None, tokens["p99"]), cut, "data-long-rows")


def _exclusions(sources: Mapping[str, int], excluded: list[str]) -> tuple[list[str], ...]:
    """Return what may be left out: nothing, one source, or one more than now; most rows must stay."""
    total = sum(sources.values())
    ordered = sorted(sources, key=lambda name: (-sources[name], name))[:MAX_SOURCES]
    options: list[list[str]] = [[]]
    options += [[name] for name in ordered]
    options += [sorted({*excluded, name}) for name in ordered if excluded and name not in excluded]
    kept = [names for names in options if sum(sources.get(name, 0) for name in names) <= total / 2]
    return tuple(names for place, names in enumerate(kept) if names not in kept[:place])


def _length(stage: SftStage, tokens: Mapping[str, int], max_positions: int | None) -> Iterator[Dimension]:
    """Offer the lengths of the row percentiles; longer than now only where the context is known."""
    limit = max_positions or stage.max_length
    lengths = {row_length(tokens[name], limit) for name in ("p90", "p99", "max") if tokens.get(name)}
    choices = tuple(sorted(length for length in lengths if length <= 4 * stage.max_length))
    if len({*choices, stage.max_length}) > 1:
        yield _choice("stages.0.max_length", choices, stage.max_length, "sft-max-length")


def _choice(path: str, choices: tuple[Any, ...], centre: Any, prior_id: str) -> Dimension:
    """Return a categorical dimension whose choices hold the centre."""
    listed = choices if centre in choices else (*choices, centre)
    return Dimension(path=path, kind="categorical", choices=listed, centre=centre, prior_id=prior_id)


def in_space(dimension: Dimension, value: Any) -> bool:
    """Whether `value` may be proposed for `dimension`."""
    if dimension.kind == "categorical":
        return value in dimension.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    low, high = dimension.low, dimension.high
    return (low is None or value >= low) and (high is None or value <= high)
