"""The default recipe: what loop 0 trains, so that every planner starts from the same trial.

Values come from `knowledge/priors/`; the ids stand beside them and a test resolves each. It looks at
model and data sizes only, never at scores.
"""

from __future__ import annotations

import math
from typing import Literal

from rdagent_ft.recipe.rules import TINY_PARAMS
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, LoraAdapter, SftStage
from rdagent_ft.values import Frozen

MIN_STEPS = 100
DEFAULT_PRIORS = (
    "lora-vs-full", "lora-all-linear", "lora-rank-small-data", "lora-alpha-2r", "sft-lora-lr-grid",
    "sft-tiny-full-lr", "sft-tiny-epochs", "sft-epochs", "sft-steps", "sft-lora-batch", "sft-warmup",
    "sft-scheduler", "sft-weight-decay", "sft-clip", "sft-max-length",
)  # fmt: skip
"""Ids of the priors that the default rests on."""


class DefaultFacts(Frozen):
    """What the default depends on.

    Attributes:
        n_params: weights of the base model.
        n_train_rows: rows of the train split.
        token_percentiles: p50, p90, p99 and max of tokens per training row (missing ones are guessed).
        max_positions: context length in tokens.
        device: where training runs.
        hidden_size: of the base model; LoRA's rank stays at or below it.
    """

    n_params: int
    n_train_rows: int
    token_percentiles: dict[str, int]
    max_positions: int
    device: Literal["cpu", "cuda"]
    hidden_size: int


def default_recipe(facts: DefaultFacts) -> Recipe:
    """Return the recipe of loop 0: LoRA on all linear layers, or all weights of a tiny model."""
    tiny = facts.n_params < TINY_PARAMS
    batch = _effective_batch(facts, tiny)
    return Recipe(
        stages=(
            SftStage(
                adapter=FullAdapter() if tiny else _lora(facts),
                learning_rate=1e-3 if tiny else _lora_rate(facts.n_params),
                lr_scheduler="cosine",
                warmup_ratio=0.05,
                epochs=_epochs(facts.n_train_rows, batch, tiny),
                effective_batch=batch,
                micro_batch=_micro_batch(facts, batch, tiny),
                max_length=row_length(facts.token_percentiles.get("p99", 1024), facts.max_positions),
                gradient_checkpointing=facts.device == "cuda" and facts.n_params > 2_000_000_000,
                optim="adamw_torch_fused" if facts.device == "cuda" else "adamw_torch",
            ),
        )
    )


def row_length(n_tokens: int, max_positions: int) -> int:
    """Return a `max_length` that holds rows of `n_tokens`: a multiple of 16, within the context."""
    return max(min(math.ceil(max(n_tokens, 1) / 16) * 16, max_positions), 8)


def _lora(facts: DefaultFacts) -> LoraAdapter:
    rank = max(min(16, facts.hidden_size), 1)
    return LoraAdapter(r=rank, alpha=2 * rank)


def _lora_rate(n_params: int) -> float:
    """Small models take more: 1e-3 was best for most below 4B, 3e-4 above (`sft-lora-lr-grid`)."""
    if n_params < 4_000_000_000:
        return 5e-4
    return 3e-4 if n_params < 30_000_000_000 else 2e-4


def _effective_batch(facts: DefaultFacts, tiny: bool) -> int:
    """16 rows (32 for a tiny model), less where the data would give fewer than 25 steps an epoch."""
    wanted = 32 if tiny else 16
    while wanted > 4 and facts.n_train_rows < 25 * wanted:
        wanted //= 2
    return max(min(wanted, facts.n_train_rows), 1)


def _micro_batch(facts: DefaultFacts, batch: int, tiny: bool) -> int:
    """The largest divisor of the batch below a bound that fits common memory."""
    bound = 64 if tiny else 4 if facts.device == "cpu" or facts.n_params > 4_000_000_000 else 8
    return max(n for n in range(1, min(bound, batch) + 1) if batch % n == 0)


def _epochs(n_rows: int, batch: int, tiny: bool) -> float:
    """Two passes (three for a tiny model), more where the data are few, for at least `MIN_STEPS` steps."""
    usual, most = (3, 20) if tiny else (2, 5)
    steps_per_epoch = max(math.ceil(n_rows / batch), 1)
    return float(min(max(usual, math.ceil(MIN_STEPS / steps_per_epoch)), most))
