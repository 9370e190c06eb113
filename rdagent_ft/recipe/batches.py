"""How a stage's effective batch is split over devices, micro-batches and accumulation.

The recipe fixes how many rows one optimizer step sees; this file finds a split that gives exactly
that number. How many bytes a micro-batch needs is judged in `memory.py`.
"""

from __future__ import annotations

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.stages import GrpoStage, TrainedStage
from rdagent_ft.values import Frozen


class DeviceBatch(Frozen):
    """What one device does for an optimizer step.

    Attributes:
        micro: sequences per forward pass (completions for `grpo`, else rows).
        accumulation: forward passes per optimizer step.
    """

    micro: int
    accumulation: int


def device_batch(stage: TrainedStage, n_devices: int) -> DeviceBatch:
    """Return the split of one optimizer step over `n_devices` equal devices.

    A step of `grpo` sees `effective_batch * num_generations` completions, so its micro-batch is the
    largest divisor of a device's share at or below `micro_batch`: whole groups come out always. For
    the other stages `micro_batch` stays as it is. Raises `PreflightError` when no split exists.
    """
    if isinstance(stage, GrpoStage):
        return _group_batch(stage, n_devices)
    per_pass = stage.micro_batch * n_devices
    if stage.effective_batch % per_pass:
        raise PreflightError(
            f"effective_batch {stage.effective_batch} is not a multiple of micro_batch "
            f"{stage.micro_batch} x {n_devices} device(s)",
            hint="change micro_batch; check_recipe names a value that fits",
        )
    return DeviceBatch(micro=stage.micro_batch, accumulation=stage.effective_batch // per_pass)


def _group_batch(stage: GrpoStage, n_devices: int) -> DeviceBatch:
    completions = stage.effective_batch * stage.num_generations
    share, rest = divmod(completions, n_devices)
    if rest or not share:
        raise PreflightError(
            f"effective_batch {stage.effective_batch} x num_generations {stage.num_generations} is not a "
            f"multiple of {n_devices} device(s)",
            hint="change effective_batch or num_generations; check_recipe names a value that fits",
        )
    micro = max(n for n in range(1, min(stage.micro_batch, share) + 1) if share % n == 0)
    return DeviceBatch(micro=micro, accumulation=share // micro)
