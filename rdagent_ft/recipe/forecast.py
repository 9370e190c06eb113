"""How long a recipe will train, from counted arithmetic and a measured speed.

Arithmetic alone says nothing about a machine, so there is no forecast without a measurement: of an
earlier training or of the probe (`training/probe_job.py`). Not covered: loading, tokenisation, saving,
sampling of preference pairs, merging (seconds to minutes; the engine measures them itself).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rdagent_ft.errors import UserError
from rdagent_ft.recipe.model_shape import ModelShape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DistillStage,
    DpoStage,
    GrpoStage,
    LoraAdapter,
    StageKind,
)
from rdagent_ft.values import Frozen

GENERATING: tuple[StageKind, ...] = ("grpo", "distill")


class Throughput(Frozen):
    """A measured speed of one training.

    Attributes:
        stage_kind: what was trained.
        tokens_per_s: row tokens a second over all devices, prompts included, padding not.
        flops_per_token: arithmetic of one row token in that training (`flops_per_token`).
    """

    stage_kind: StageKind
    tokens_per_s: float
    flops_per_token: float

    @property
    def flops_per_s(self) -> float:
        """Arithmetic a second that the machine really did."""
        return self.tokens_per_s * self.flops_per_token

    def mfu(self, peak_flops: float) -> float:
        """Return the share of a device's peak arithmetic rate (model FLOPs utilisation, arXiv 2204.02311)."""
        return self.flops_per_s / peak_flops


class Rows(Frozen):
    """Data of a kind: how many rows, and tokens of the mean row (both answers of a pair together)."""

    n_rows: int
    tokens_per_row: float


class TimeForecast(Frozen):
    """Seconds of training.

    Attributes:
        stage_seconds: one entry a stage; None where nothing comparable was measured; 0 for a merge.
        total_seconds: their sum; None when one of them is unknown.
        words: the forecast as one line.
    """

    stage_seconds: tuple[float | None, ...]
    total_seconds: float | None
    words: str


def measured_throughput(
    stage: AnyTrainedStage,
    shape: ModelShape,
    *,
    n_tokens: float,
    seconds: float,
    tokens_per_row: float,
    teacher: ModelShape | None = None,
) -> Throughput:
    """Return the speed of a training that saw `n_tokens` in `seconds`. Raises `UserError` for no time."""
    if seconds <= 0 or n_tokens <= 0:
        raise UserError(f"{n_tokens:g} tokens in {seconds:g} s is no speed")
    return Throughput(
        stage_kind=stage.kind,
        tokens_per_s=n_tokens / seconds,
        flops_per_token=flops_per_token(stage, shape, tokens_per_row, teacher=teacher),
    )


def flops_per_token(
    stage: AnyTrainedStage, shape: ModelShape, tokens_per_row: float, *, teacher: ModelShape | None = None
) -> float:
    """Return the floating-point operations of one row token in a stage.

    Forward 2 a weight and token, backward 4, of which 2 are the weights' gradients that a frozen base
    does not need (Kaplan et al., arXiv 2001.08361, section 2.1; LoRA then costs 4, and 6 for its own
    weights). Checkpointing repeats the forward pass. Attention adds 2 x length x width a layer and pass
    (half of it under a causal mask). Rewards and sampling on the CPU are free here.
    """
    forward = 2.0 * _multiplied(stage, shape) + _attention_flops(stage, shape, tokens_per_row)
    adapter = stage.adapter
    if isinstance(adapter, LoraAdapter):
        targets = () if adapter.target_modules == "all-linear" else (adapter.target_modules,)
        passes = 2.0 * forward + 6.0 * shape.lora_params(adapter.r, *targets)
    else:
        passes = 3.0 * forward
    passes += forward * stage.gradient_checkpointing
    return passes + forward * _passes_without_gradient(stage) + _teacher_flops(stage, teacher or shape)


def forecast_time(
    recipe: Recipe,
    shape: ModelShape,
    n_rows: int,
    tokens_per_row: float,
    throughput: Sequence[Throughput],
    *,
    preferences: Rows | None = None,
    teacher: ModelShape | None = None,
) -> TimeForecast | None:
    """Return the seconds of every stage, or None when no speed was measured.

    Args:
        recipe: its `max_steps` or `epochs` decide how often rows are seen.
        shape: of the base model.
        n_rows, tokens_per_row: rows after the data mix, and mean tokens of one, as the stages cut them.
        throughput: measured speeds, the newest last. The newest of the same kind decides; else the
            newest of a kind that also generates, or also does not: a generating step is bound by
            memory, so arithmetic cannot carry one over to the other.
        preferences: the pairs of `dpo`, `kto` and `reward` stages; None takes `n_rows` pairs of twice
            the tokens (`sampled` pairs are at most one a prompt).
        teacher: shape of a `distill` stage's teacher; None takes the student's own.
    """
    if not throughput:
        return None
    seconds: list[float | None] = [0.0] * len(recipe.stages)
    words: list[str] = []
    for place, stage in enumerate(recipe.stages):
        if stage.kind == "merge":
            continue
        rows = _rows_of(stage, Rows(n_rows=n_rows, tokens_per_row=tokens_per_row), preferences)
        speed = speed_for(stage.kind, throughput)
        if speed is None:
            seconds[place] = None
            words.append(f"stage {place} ({stage.kind}) unknown: no training that generates was measured")
            continue
        row_length = rows.tokens_per_row / (2 if stage.kind in ("dpo", "reward") else 1)
        work = _row_visits(stage, rows.n_rows) * rows.tokens_per_row
        work *= flops_per_token(stage, shape, row_length, teacher=teacher)
        seconds[place] = round(work / speed.flops_per_s, 1)
        words.append(f"stage {place} ({stage.kind}) {seconds[place]:,.0f} s")
    known = [value for value in seconds if value is not None]
    total = round(sum(known), 1) if len(known) == len(seconds) else None
    whole = "unknown" if total is None else f"{total:,.0f} s"
    return TimeForecast(
        stage_seconds=tuple(seconds),
        total_seconds=total,
        words=f"{whole} of training: " + ", ".join(words),
    )


def _multiplied(stage: AnyTrainedStage, shape: ModelShape) -> float:
    """Return the weights that a token meets; a reward model has no head of the vocabulary's size."""
    return shape.multiplied_params - (shape.embedding_params if stage.kind == "reward" else 0)


def _attention_flops(stage: AnyTrainedStage, shape: ModelShape, tokens_per_row: float) -> float:
    length = min(tokens_per_row, stage.max_length)
    return 2.0 * shape.n_layers * length * shape.queries


def _passes_without_gradient(stage: AnyTrainedStage) -> float:
    """Return the forward passes beside the trained one: reference, KL rows, generation of each token."""
    if isinstance(stage, DpoStage):
        once = 1.0 / max(stage.epochs, 1.0) if stage.max_steps is None else 0.0
        return once if stage.precompute_ref_log_probs else 1.0
    if stage.kind == "kto":
        return 3.0
    if isinstance(stage, GrpoStage):
        return 1.0 + (stage.beta > 0)
    return 1.0 if stage.kind == "distill" else 0.0


def _teacher_flops(stage: AnyTrainedStage, teacher: ModelShape) -> float:
    return 2.0 * teacher.multiplied_params if isinstance(stage, DistillStage) else 0.0


def _rows_of(stage: AnyTrainedStage, rows: Rows, preferences: Rows | None) -> Rows:
    """Return what one row visit of the stage is: a row, a pair, or a prompt with all its completions."""
    if isinstance(stage, GrpoStage | DistillStage):
        a_group = stage.num_generations if isinstance(stage, GrpoStage) else 1
        tokens = min(rows.tokens_per_row + stage.max_completion_length, stage.max_length)
        return Rows(n_rows=rows.n_rows, tokens_per_row=a_group * tokens)
    answers = 2 if stage.kind in ("dpo", "reward") else 1
    if stage.kind in ("dpo", "kto", "reward") and preferences is not None:
        # KTO trains the two answers of a pair as two rows.
        n_rows, tokens = preferences.n_rows * 2 // answers, preferences.tokens_per_row * answers / 2
    else:
        n_rows, tokens = rows.n_rows, rows.tokens_per_row * answers
    return Rows(n_rows=n_rows, tokens_per_row=min(tokens, stage.max_length * answers))


def _row_visits(stage: AnyTrainedStage, n_rows: int) -> float:
    """Return how often a row is trained, over all steps."""
    if stage.max_steps is not None:
        return float(stage.max_steps * stage.effective_batch)
    return math.ceil(n_rows / stage.effective_batch) * stage.effective_batch * stage.epochs


def speed_for(kind: StageKind, throughput: Sequence[Throughput]) -> Throughput | None:
    """Return the measured speed that a kind of stage is forecast with, or None."""
    same = [speed for speed in throughput if speed.stage_kind == kind]
    alike = [speed for speed in throughput if (speed.stage_kind in GENERATING) == (kind in GENERATING)]
    return (same or alike or [None])[-1]
