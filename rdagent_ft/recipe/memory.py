"""How much memory a training stage needs on one device, before anything is loaded.

Every stage kind and adapter, one device or many (DDP, ZeRO-2, ZeRO-3, FSDP2). An upper estimate: rows of
`max_length` tokens unless the longest row is given. Meant to reject what cannot fit, and to be made exact
by a measured peak (`calibration.py`); errors on small models are in `docs/forecast.md`. Not covered:
vision towers, expert and tensor parallelism, offloading, an allocator's waste beyond a flat allowance.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.recipe import memory_parts as parts_of
from rdagent_ft.recipe.launch import Profile
from rdagent_ft.recipe.memory_parts import Device
from rdagent_ft.recipe.model_shape import ModelShape, read_model_shape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DistillStage,
    DpoStage,
    GrpoStage,
    LoraAdapter,
    MergeStage,
    StageKind,
)
from rdagent_ft.values import Frozen

__all__ = [
    "GIB",
    "AdapterName",
    "MemoryEstimate",
    "MemorySetup",
    "ModelShape",
    "adapter_name",
    "estimate_memory_gib",
    "read_model_shape",
]

GIB = 1 << 30
AdapterName = Literal["lora", "dora", "qlora", "full", "none"]
# CUDA context and libraries (measured 0.5-0.9 GiB by vendors); torch, transformers and TRL on CPU (measured).
_RUNTIME_GIB: dict[Device, float] = {"cuda": 0.8, "cpu": 0.55}
# What comes and goes in a pass leaves gaps; on CPU malloc keeps freed blocks below 32 MiB (chosen so that the
# cases of bench/memory_forecast.py are rather forecast too high than too low; not measured on a GPU).
_WASTE: dict[Device, float] = {"cuda": 1.05, "cpu": 1.35}
_LASTING = ("weights", "gradients", "optimizer", "communication", "other models")


class MemorySetup(Frozen):
    """What the estimate depends on beside recipe and model.

    Attributes:
        n_devices: devices that train together.
        sharding: what they share out; `ddp` repeats everything.
        longest_row_tokens: of the data, prompt and answer (for `grpo` and `distill`: the prompt alone);
            None takes `max_length`.
        teacher: shape of a `distill` stage's teacher; None takes the student's own.
        gpu_memory_gib: memory of one GPU, of which vLLM takes its share.
    """

    n_devices: int = 1
    sharding: Profile = "ddp"
    longest_row_tokens: int | None = None
    teacher: ModelShape | None = None
    gpu_memory_gib: float | None = None


class MemoryEstimate(Frozen):
    """Peak memory of one device in GiB, as a whole and by part.

    Attributes:
        total_gib: the peak; the sum of the parts.
        parts: name -> GiB. `generation` and `step` hold only what goes beyond the training pass.
        stage_kind, adapter: what was estimated.
        calibration: the measured factor that is in the numbers already; None without one.
    """

    total_gib: float
    parts: dict[str, float]
    stage_kind: StageKind = "sft"
    adapter: AdapterName = "lora"
    calibration: float | None = None

    def words(self) -> str:
        """Return the estimate as one line, largest part first."""
        ordered = sorted(self.parts.items(), key=lambda item: -item[1])
        return f"{self.total_gib:.1f} GiB: " + ", ".join(f"{name} {size:.2f}" for name, size in ordered)


_ALONE = MemorySetup()


def estimate_memory_gib(
    recipe: Recipe, shape: ModelShape, device: Device, *, stage_index: int = 0, setup: MemorySetup = _ALONE
) -> MemoryEstimate:
    """Return the peak memory of training one stage on one device. A merge holds the model in float32 twice.

    The peak is what lies there all the time (weights, gradients, optimizer state) and the largest of the
    training pass, generation, and the optimizer's step, which follow one another.
    """
    stage = recipe.stages[stage_index]
    if isinstance(stage, MergeStage):
        return _estimate({"weights": 2.0 * 4 * shape.n_params}, "cpu", "merge", "none")
    widths, trained = parts_of.dtypes(stage, device), parts_of.trained_params(stage, shape)
    shares = parts_of.sharded(
        setup.sharding,
        setup.n_devices,
        shape,
        base=parts_of.model_bytes(stage, shape, widths.model),
        trained=trained,
        widths=widths,
        moments=parts_of.optimizer_bytes(stage, widths.trained),
        is_adapter=isinstance(stage.adapter, LoraAdapter),
    )
    row_tokens = _row_tokens(stage, shape, setup)
    n_tokens = _sequences(stage) * row_tokens
    pass_parts = {
        "activations": parts_of.activation_bytes(stage, shape, widths.model, n_tokens, row_tokens),
        "logits": _logit_bytes(stage, shape, device, widths.model, n_tokens),
        "second pass": _second_pass_bytes(stage, shape, setup, widths.model, n_tokens),
    }
    in_pass = sum(pass_parts.values())
    generation = _generation_bytes(stage, shape, setup, widths.model, row_tokens)
    step = trained / setup.n_devices * parts_of.step_bytes(stage, device, widths.trained)
    if setup.sharding == "ddp":
        step *= setup.n_devices
    peak = max(in_pass, generation, step)
    sizes = {
        "weights": shares.weights,
        "gradients": shares.gradients,
        "optimizer": shares.optimizer,
        "communication": shares.communication,
        "other models": _other_models_bytes(stage, shape, setup, widths.model),
        **pass_parts,
        ("generation" if generation >= step else "step"): peak - in_pass,
    }
    return _estimate(sizes, device, stage.kind, adapter_name(stage))


def adapter_name(stage: AnyTrainedStage) -> AdapterName:
    """Return what is trained, in one word. DoRA on a 4-bit base counts as `qlora`."""
    if not isinstance(stage.adapter, LoraAdapter):
        return "full"
    if stage.adapter.quantization == "nf4":
        return "qlora"
    return "dora" if stage.adapter.use_dora else "lora"


def _estimate(
    sizes: dict[str, float], device: Device, kind: StageKind, adapter: AdapterName
) -> MemoryEstimate:
    always = ("weights", "gradients", "optimizer", "activations", "logits")
    gib = {
        name: size * (1.0 if name in _LASTING else _WASTE[device]) / GIB
        for name, size in sizes.items()
        if size or (name in always and kind != "merge")
    }
    gib["runtime"] = _RUNTIME_GIB[device]
    return MemoryEstimate(
        total_gib=round(sum(gib.values()), 3),
        parts={name: round(size, 4) for name, size in gib.items()},
        stage_kind=kind,
        adapter=adapter,
    )


def _row_tokens(stage: AnyTrainedStage, shape: ModelShape, setup: MemorySetup) -> int:
    """Return the tokens of the longest row that a pass sees."""
    longest = setup.longest_row_tokens
    tokens = stage.max_length
    if isinstance(stage, GrpoStage | DistillStage):
        prompt = longest if longest is not None else max(stage.max_length - stage.max_completion_length, 1)
        tokens = prompt + stage.max_completion_length
    elif longest is not None and not getattr(stage, "packing", False):
        tokens = min(tokens, longest)
    return min(tokens, shape.max_positions)


def _sequences(stage: AnyTrainedStage) -> int:
    """Return the sequences of one pass: pairs are two, chosen and rejected, in one batch."""
    if isinstance(stage, GrpoStage):
        return min(stage.micro_batch, stage.effective_batch * stage.num_generations)
    return stage.micro_batch * (2 if stage.kind in ("dpo", "reward") else 1)


def _logit_bytes(
    stage: AnyTrainedStage, shape: ModelShape, device: Device, width: int, n_tokens: int
) -> float:
    around = parts_of.head_bytes(stage, shape, width, n_tokens)
    if stage.kind == "reward":
        return around
    n_models = 2 if isinstance(stage, DistillStage) else 1
    return around + parts_of.tile_bytes(shape, device, width, n_tokens, n_models=n_models)


def _second_pass_bytes(
    stage: AnyTrainedStage, shape: ModelShape, setup: MemorySetup, width: int, n_tokens: int
) -> float:
    """Return what a pass without gradients adds while the first one's activations are still held."""
    if isinstance(stage, DistillStage):
        return parts_of.forward_bytes(setup.teacher or shape, width, n_tokens)
    has_reference = stage.kind == "kto" or (
        isinstance(stage, DpoStage) and not stage.precompute_ref_log_probs
    )
    return parts_of.forward_bytes(shape, width, n_tokens) if has_reference else 0.0


def _other_models_bytes(stage: AnyTrainedStage, shape: ModelShape, setup: MemorySetup, width: int) -> float:
    """Return the bytes of frozen models beside the trained one: reference, teacher, reward model.

    With an adapter the reference is the base with the adapter off: no weights of its own. Sharding
    that shards weights shards these too.
    """
    full = not isinstance(stage.adapter, LoraAdapter)
    n_params = 0
    if isinstance(stage, DistillStage):
        n_params = (setup.teacher or shape).n_params
    elif isinstance(stage, GrpoStage):
        n_params += shape.n_params if full and stage.beta > 0 else 0
        n_params += shape.n_params if any(reward.kind == "reward_model" for reward in stage.rewards) else 0
    elif full and (
        stage.kind == "kto" or (isinstance(stage, DpoStage) and not stage.precompute_ref_log_probs)
    ):
        n_params = shape.n_params
    divided = setup.n_devices if setup.sharding in ("zero3", "fsdp2") else 1
    return n_params * width / divided


def _generation_bytes(
    stage: AnyTrainedStage, shape: ModelShape, setup: MemorySetup, width: int, row_tokens: int
) -> float:
    """Return what generation holds: all completions of an optimizer step are made at once.

    vLLM beside the trainer takes a share of the GPU (its own weights are in it) and sleeps in training.
    """
    if not isinstance(stage, GrpoStage | DistillStage):
        return 0.0
    a_group = stage.num_generations if isinstance(stage, GrpoStage) else 1
    sequences = max(stage.effective_batch * a_group // setup.n_devices, stage.micro_batch)
    if isinstance(stage, GrpoStage) and stage.use_vllm and setup.gpu_memory_gib is not None:
        return stage.vllm_gpu_memory_utilization * setup.gpu_memory_gib * GIB
    return parts_of.cache_bytes(shape, width, sequences, row_tokens)
