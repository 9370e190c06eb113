"""What code does about a failed training: neutral fixes, and fixes that change the task.

A neutral fix keeps what is learnt: the same rows, the same effective batch, the same method. It is made
at once, inside the loop, and shown. A fix that changes the task (a lower learning rate, LoRA instead of
all weights, shorter rows) is never made silently: it becomes a new recipe with its reason.
The order of the memory fixes is that of the OOM ladder: smaller passes, recomputed activations, an 8-bit
optimizer, and only then another task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    FullAdapter,
    GrpoStage,
    LoraAdapter,
    MergeStage,
    SftStage,
)
from rdagent_ft.values import Frozen

OUT_OF_MEMORY = frozenset({"resource.gpu_oom", "resource.host_oom"})
MIN_LENGTH = 64
MAX_CHANGED_TASKS = 2
"""In a row and for one failure class; then the planner is asked again."""
S = TypeVar("S", bound=AnyTrainedStage)


class RepairFacts(Frozen):
    """What the fixes depend on: where training runs and whether bitsandbytes is there."""

    device: str
    has_bitsandbytes: bool = False


class NeutralFix(Frozen):
    """The stage to train instead, and what was changed, in words."""

    stage: AnyTrainedStage
    words: str


class ChangedTask(Frozen):
    """A recipe for another task, and why the one before could not be trained."""

    recipe: Recipe
    reason: str


def neutral_fix(stage: AnyTrainedStage, failure_class: str, facts: RepairFacts) -> NeutralFix | None:
    """Return the next fix that keeps the task, or None when the ladder has ended."""
    if failure_class == "resource.vllm_kv" and isinstance(stage, GrpoStage):
        return _more_cache(stage)
    if failure_class not in OUT_OF_MEMORY:
        return None
    if stage.micro_batch > _smallest_pass(stage):
        half = max(n for n in range(1, stage.micro_batch // 2 + 1) if stage.effective_batch % n == 0)
        half = max(half, _smallest_pass(stage))
        words = f"micro_batch {stage.micro_batch} -> {half}, with the same effective batch"
        return NeutralFix(stage=_with(stage, micro_batch=half), words=words)
    if not stage.gradient_checkpointing:
        words = "gradient_checkpointing on: activations are computed again instead of kept"
        return NeutralFix(stage=_with(stage, gradient_checkpointing=True), words=words)
    if facts.device == "cuda" and facts.has_bitsandbytes and stage.optim.startswith("adamw_torch"):
        words = f"optim {stage.optim} -> adamw_8bit: the optimizer's moments in 8 bits"
        return NeutralFix(stage=_with(stage, optim="adamw_8bit"), words=words)
    return None


def changed_task(
    recipe: Recipe, stage_index: int, failure_class: str, *, n_before: int = 0
) -> ChangedTask | None:
    """Return the recipe that code would try next, or None when no rule knows one.

    `n_before`: how often the same class has been answered by a changed task already.
    """
    stage = recipe.stages[stage_index]
    change = _CHANGES.get(failure_class)
    if change is None or isinstance(stage, MergeStage) or n_before >= MAX_CHANGED_TASKS:
        return None
    made = change(stage, n_before)
    if made is None:
        return None
    changed, reason = made
    stages = (*recipe.stages[:stage_index], changed, *recipe.stages[stage_index + 1 :])
    return ChangedTask(recipe=recipe.model_copy(update={"stages": stages}), reason=reason)


def _smallest_pass(stage: AnyTrainedStage) -> int:
    """KTO estimates its KL term from other rows of the pass, so it needs two."""
    return 2 if stage.kind == "kto" and stage.effective_batch % 2 == 0 else 1


def _more_cache(stage: GrpoStage) -> NeutralFix | None:
    share = round(min(stage.vllm_gpu_memory_utilization + 0.1, 0.6), 2)
    if share <= stage.vllm_gpu_memory_utilization:
        return None
    words = f"vllm_gpu_memory_utilization {stage.vllm_gpu_memory_utilization:g} -> {share:g}"
    return NeutralFix(stage=_with(stage, vllm_gpu_memory_utilization=share), words=words)


def _less_memory(stage: AnyTrainedStage, _n_before: int) -> tuple[AnyTrainedStage, str] | None:
    if isinstance(stage.adapter, FullAdapter):
        reason = "all weights do not fit: LoRA instead, at ten times the learning rate (sft-lora-lr-rule)"
        rate = stage.learning_rate * 10
        return _with(stage, adapter=LoraAdapter(), learning_rate=rate), reason
    if stage.max_length // 2 >= MIN_LENGTH:
        reason = f"rows do not fit: max_length {stage.max_length} -> {stage.max_length // 2}"
        return _with(stage, max_length=stage.max_length // 2), reason
    return None


def _slower(stage: AnyTrainedStage, n_before: int) -> tuple[AnyTrainedStage, str]:
    """Diverged: a tenth of the rate; the second time a third, with more warm-up and clipping."""
    if n_before == 0:
        rate = stage.learning_rate / 10
        reason = f"it diverged: learning_rate {stage.learning_rate:g} -> {rate:g}"
        return _with(stage, learning_rate=rate), reason
    rate, warmup = stage.learning_rate / 3, max(stage.warmup_ratio, 0.1)
    changed = _with(stage, learning_rate=rate, warmup_ratio=warmup, max_grad_norm=1.0)
    return changed, f"it diverged: learning_rate -> {rate:g} with warmup_ratio {warmup:g} and clipping at 1"


def _without_packing(stage: AnyTrainedStage, _n_before: int) -> tuple[AnyTrainedStage, str] | None:
    if not isinstance(stage, SftStage) or not stage.packing:
        return None
    return _with(stage, packing=False, attn_implementation="auto"), "packed rows saw each other: packing off"


def _longer_completions(stage: AnyTrainedStage, _n_before: int) -> tuple[AnyTrainedStage, str] | None:
    if not isinstance(stage, GrpoStage):
        return None
    length = stage.max_completion_length * 2
    if length >= stage.max_length:
        return None
    reason = f"completions were cut off: max_completion_length {stage.max_completion_length} -> {length}"
    return _with(stage, max_completion_length=length), reason


def _wider_sampling(stage: AnyTrainedStage, _n_before: int) -> tuple[AnyTrainedStage, str] | None:
    if not isinstance(stage, GrpoStage) or stage.num_generations >= 16:
        return None
    n = stage.num_generations * 2
    return _with(stage, num_generations=n, temperature=max(stage.temperature, 1.0)), (
        f"all completions of a prompt scored alike: num_generations {stage.num_generations} -> {n}"
    )


def _longer_rows(stage: AnyTrainedStage, _n_before: int) -> tuple[AnyTrainedStage, str]:
    length = min(stage.max_length * 2, 1_048_576)
    return _with(stage, max_length=length), (
        f"every answer lay past max_length: max_length {stage.max_length} -> {length}"
    )


def _all_linear(stage: AnyTrainedStage, _n_before: int) -> tuple[AnyTrainedStage, str] | None:
    if not isinstance(stage.adapter, LoraAdapter) or stage.adapter.target_modules == "all-linear":
        return None
    adapter = stage.adapter.model_copy(update={"target_modules": "all-linear"})
    return _with(stage, adapter=adapter), "the model has no such modules: target_modules all-linear"


def _with(stage: S, **changes: object) -> S:
    return stage.model_copy(update=changes)


_CHANGES: dict[str, Callable[[AnyTrainedStage, int], tuple[AnyTrainedStage, str] | None]] = {
    "resource.gpu_oom": _less_memory,
    "resource.host_oom": _less_memory,
    "train.diverged": _slower,
    "train.pack_sdpa": _without_packing,
    "train.truncated": _longer_completions,
    "train.no_signal": _wider_sampling,
    "data.empty_after_filter": _longer_rows,
    "config.lora_targets": _all_linear,
}
"""Failure class -> the task-changing fix that code knows for it."""
