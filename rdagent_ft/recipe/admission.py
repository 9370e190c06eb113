"""The admission rule: a recipe that cannot fit or cannot finish never starts, and the numbers say why.

Pure functions over forecasts; `resources.py` binds them to what is known and is V1's last rule. A fix is
tried on the forecast before it is named, in the order of the OOM ladder: first what keeps the task (smaller
passes, recomputed activations, an 8-bit optimizer), then what changes it, and is called so. An unknown
limit or forecast refuses nothing. Not covered: disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.forecast import TimeForecast
from rdagent_ft.recipe.memory import MemoryEstimate
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyTrainedStage, FullAdapter, LoraAdapter, MergeStage
from rdagent_ft.values import Frozen

MEMORY_MARGIN = 0.10
"""Share of the memory that is kept free: estimates without a measurement miss by about as much."""
MEASURED_MARGIN = 0.03
"""The same for an estimate that a measured peak has corrected."""
TIME_MARGIN = 0.15
"""Share of the remaining time that is kept for loading, saving and scoring."""
_MIN_LENGTH = 64

ForecastMemory = Callable[[Recipe, int], MemoryEstimate]
"""(recipe, stage index) -> estimate; the caller binds shape, device, setup and calibration."""


class Limits(Frozen):
    """What is there. None means unknown and switches that part of the rule off.

    Attributes:
        device: where training runs.
        memory_gib: of one device (of the host on CPU).
        host_gib: of the host, where merges run.
        remaining_s: seconds that training may still take.
        stage_limit_s: seconds that one stage may take.
        n_devices: devices that train together.
        has_bitsandbytes: whether 8-bit optimizers and 4-bit loading can be offered.
    """

    device: Literal["cpu", "cuda"]
    memory_gib: float | None = None
    host_gib: float | None = None
    remaining_s: float | None = None
    stage_limit_s: float | None = None
    n_devices: int = 1
    has_bitsandbytes: bool = False


class Rung(Frozen):
    """One step of the ladder, with all steps before it.

    Attributes:
        words: what is changed, all steps together.
        recipe: the recipe with them.
        total_gib: its forecast.
        changes_task: whether it trains something else than was asked for.
    """

    words: str
    recipe: Recipe
    total_gib: float
    changes_task: bool


def admit(recipe: Recipe, memory: ForecastMemory, time: TimeForecast | None, limits: Limits) -> list[Problem]:
    """Return why the recipe must not start; an empty list admits it."""
    problems: list[Problem] = []
    for place, stage in enumerate(recipe.stages):
        limit = limits.host_gib if isinstance(stage, MergeStage) else limits.memory_gib
        if limit is not None:
            problems += _memory_problem(recipe, place, memory, limit, limits)
    if time is not None:
        problems += _time_problems(recipe, time, limits)
    return problems


def lacks_only_time(problems: Sequence[Problem]) -> bool:
    """Return whether there are problems, and more time would solve all of them."""
    return bool(problems) and all(problem.problem_class == "resource.time" for problem in problems)


def usable_gib(estimate: MemoryEstimate, limit_gib: float) -> float:
    """Return how much of the memory may be planned: less while nothing has been measured."""
    return limit_gib * (1 - (MEMORY_MARGIN if estimate.calibration is None else MEASURED_MARGIN))


def memory_ladder(recipe: Recipe, place: int, memory: ForecastMemory, limits: Limits) -> Iterator[Rung]:
    """Give recipes that need less and less memory in one stage, each with the changes before it."""
    stage = recipe.stages[place]
    if isinstance(stage, MergeStage):
        return
    changes: dict[str, str] = {}
    changes_task = False
    while (step := _next_step(stage, limits)) is not None:
        stage, name, words, is_scope = step
        changes[name], changes_task = words, changes_task or is_scope
        stages = (*recipe.stages[:place], stage, *recipe.stages[place + 1 :])
        changed = recipe.model_copy(update={"stages": stages})
        yield Rung(
            words=", ".join(changes.values()),
            recipe=changed,
            total_gib=memory(changed, place).total_gib,
            changes_task=changes_task,
        )


def _memory_problem(
    recipe: Recipe, place: int, memory: ForecastMemory, limit: float, limits: Limits
) -> list[Problem]:
    estimate = memory(recipe, place)
    usable = usable_gib(estimate, limit)
    if estimate.total_gib <= usable:
        return []
    stage = recipe.stages[place]
    rule = (
        f"needs about {estimate.words()}; {limit:.1f} GiB are there, of which {usable:.1f} may be planned "
        f"({1 - usable / limit:.0%} are kept free)"
    )
    if isinstance(stage, MergeStage):
        fix = "merge on a machine with more memory, or choose a smaller model"
        return [Problem(f"stages.{place}", "merge", rule, "resource.memory", fix)]
    rungs = list(memory_ladder(recipe, place, memory, limits))
    fitting = next((rung for rung in rungs if rung.total_gib <= usable), None)
    if fitting is None:
        least = min((rung.total_gib for rung in rungs), default=estimate.total_gib)
        fix = f"choose a smaller model: with every known saving it still needs {least:.1f} GiB"
    else:
        kind = (
            "this trains another task, as a new recipe" if fitting.changes_task else "the task stays the same"
        )
        fix = f"{fitting.words}: about {fitting.total_gib:.1f} GiB; {kind}"
    key, value = (
        ("adapter", stage.adapter.kind)
        if fitting is None or fitting.changes_task
        else ("micro_batch", stage.micro_batch)
    )
    return [Problem(f"stages.{place}.{key}", value, rule, "resource.memory", fix)]


def _next_step(stage: AnyTrainedStage, limits: Limits) -> tuple[AnyTrainedStage, str, str, bool] | None:
    """Return (stage, name of the step, words, whether the task changes), or None at the ladder's end."""
    on_gpu = limits.device == "cuda" and limits.has_bitsandbytes
    smaller = _smaller_pass(stage, limits.n_devices)
    if smaller is not None:
        return _with(stage, micro_batch=smaller), "micro", f"micro_batch {smaller}", False
    if not stage.gradient_checkpointing:
        return _with(stage, gradient_checkpointing=True), "gc", "gradient_checkpointing true", False
    if on_gpu and stage.optim.startswith("adamw_torch"):
        return _with(stage, optim="adamw_8bit"), "optim", "optim adamw_8bit", False
    adapter = stage.adapter
    if isinstance(adapter, FullAdapter):
        words = f"train LoRA instead of all weights (learning_rate {stage.learning_rate * 10:g})"
        return (
            _with(stage, adapter=LoraAdapter(), learning_rate=stage.learning_rate * 10),
            "lora",
            words,
            True,
        )
    if on_gpu and adapter.quantization == "none":
        narrow = adapter.model_copy(update={"quantization": "nf4"})
        return _with(stage, adapter=narrow), "nf4", "adapter.quantization nf4", True
    length = stage.max_length // 2
    if length >= _MIN_LENGTH and length > getattr(stage, "max_completion_length", 0):
        return _with(stage, max_length=length), "length", f"max_length {length}", True
    return None


def _smaller_pass(stage: AnyTrainedStage, n_devices: int) -> int | None:
    """Return the next smaller micro-batch with the same effective batch. KTO needs two rows a pass."""
    least = 2 if stage.kind == "kto" and stage.effective_batch % (2 * n_devices) == 0 else 1
    fitting = (
        n
        for n in range(stage.micro_batch // 2, least - 1, -1)
        if stage.effective_batch % (n * n_devices) == 0
    )
    return next(fitting, None)


def _time_problems(recipe: Recipe, time: TimeForecast, limits: Limits) -> list[Problem]:
    """Refuse by the total; with an unknown stage, by what the known stages take already."""
    seconds = [known or 0.0 for known in time.stage_seconds]
    longest = max(range(len(seconds)), key=lambda place: seconds[place])
    if limits.remaining_s is not None:
        usable = limits.remaining_s * (1 - TIME_MARGIN)
        if sum(seconds) > usable:
            rule = (
                f"would take {time.words}; {limits.remaining_s:,.0f} s remain, of which {usable:,.0f} may be "
                f"planned ({TIME_MARGIN:.0%} are kept for loading, saving and scoring)"
            )
            others = sum(seconds) - seconds[longest]
            return [_too_long(recipe, longest, rule, (usable - others) / seconds[longest])]
    if limits.stage_limit_s is not None and seconds[longest] > limits.stage_limit_s:
        rule = (
            f"would take {seconds[longest]:,.0f} s, above the {limits.stage_limit_s:,.0f} s of one training"
        )
        return [_too_long(recipe, longest, rule, limits.stage_limit_s / seconds[longest])]
    return []


def _too_long(recipe: Recipe, place: int, rule: str, share: float) -> Problem:
    stage = recipe.stages[place]
    assert not isinstance(stage, MergeStage)  # a merge is forecast to take no time
    key, value = ("max_steps", stage.max_steps) if stage.max_steps is not None else ("epochs", stage.epochs)
    return Problem(f"stages.{place}.{key}", value, rule, "resource.time", _time_fix(stage, share))


def _time_fix(stage: AnyTrainedStage, share: float) -> str:
    """Return what brings the stage down to `share` of its time. Each of them trains another task."""
    if share <= 0:
        return "leave a stage out: the others alone take longer than the time that remains"
    if stage.max_steps is not None:
        shorter = f"write at most {max(int(stage.max_steps * share), 1)} max_steps"
    else:
        shorter = f"write at most {max(math.floor(stage.epochs * share * 100), 1) / 100:g} epochs"
    also = ", or lower data.max_items in the same proportion"
    faster = (
        ", or first set gradient_checkpointing false, which keeps the task" * stage.gradient_checkpointing
    )
    return f"{shorter}{also} (both train another task, as a new recipe){faster}"


def _with(stage: AnyTrainedStage, **changes: object) -> AnyTrainedStage:
    return stage.model_copy(update=changes)
