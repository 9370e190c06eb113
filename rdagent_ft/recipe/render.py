"""From a recipe's stage to the trainer's config text, through the templates in `templates/trl/`.

The program adds what a recipe may not say (paths, precision of the device, logging, saving) and
derives what it must (accumulation from the effective batch, intervals from the number of steps).
Every such choice is a note. Rendering is pure text: the same recipe and facts give the same bytes.
Rewards are no keys of a config: the job reads their declarations. Several processes: `launch.py`.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.batches import DeviceBatch, device_batch
from rdagent_ft.recipe.launch import Profile
from rdagent_ft.recipe.rules import VARLEN_KERNELS, optimizer_steps
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DistillStage,
    DpoStage,
    FullAdapter,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    MergeStage,
    SftStage,
)
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen

if TYPE_CHECKING:
    from jinja2 import Environment

# What YAML refuses or folds inside quotes although JSON allows it.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_LOGS_PER_RUN = 100
_SAVES_PER_RUN = 5


class StagePaths(Frozen):
    """Where a stage reads and writes.

    Attributes:
        model: folder of the model that the stage starts from.
        train_file: JSON lines in the form of the stage, see `docs/recipes.md`.
        output_dir: folder for checkpoints; relative to the job's working directory.
        teacher: folder of the teacher; a `distill` stage needs one.
    """

    model: Path
    train_file: Path
    output_dir: Path
    teacher: Path | None = None


class RenderFacts(Frozen):
    """What rendering must know of machine and data. None means unknown and forbids nothing.

    Attributes:
        device: where training runs.
        n_devices: processes that share the effective batch.
        n_train_rows: rows after the data mix; sets logging and saving intervals.
        profile: how several processes share the work; says nothing when there is one.
        kernels: attention kernels that the environment has.
        bitsandbytes, vllm: whether these packages are there.
        hub_kernels: whether the environment holds kernels for the layers of this model; they are
            used on a GPU.
    """

    device: Literal["cpu", "cuda"]
    n_devices: int = 1
    n_train_rows: int = 1000
    profile: Profile = "ddp"
    kernels: tuple[str, ...] | None = None
    bitsandbytes: bool | None = None
    vllm: bool | None = None
    hub_kernels: bool = False


class RenderedStage(Frozen):
    """Config text and the choices that the program made for it."""

    text: str
    notes: tuple[str, ...] = ()


def render_stage(recipe: Recipe, stage_index: int, *, paths: StagePaths, facts: RenderFacts) -> RenderedStage:
    """Return the TRL config of one stage that trains.

    Raises `PreflightError` when the batch cannot be split over the devices, when the stage asks for
    what the environment lacks, or when a teacher is missing; `check_recipe` finds most of that
    earlier with all other problems. Raises `ValueError` for a merge, which has no config.
    """
    stage = recipe.stages[stage_index]
    if isinstance(stage, MergeStage):
        raise ValueError(f"stages.{stage_index} is a merge: it has no trainer config")
    _refuse_what_is_missing(stage, paths, facts)
    batch = device_batch(stage, facts.n_devices)
    steps = optimizer_steps(stage, facts.n_train_rows)
    intervals = {"logging": _logging_steps(steps), "save": _save_steps(stage, steps)}
    on_gpu = facts.device == "cuda"
    text = (
        _environment()
        .get_template(f"trl/{stage.kind}.yaml.j2")
        .render(
            paths={
                name: None if getattr(paths, name) is None else str(getattr(paths, name))
                for name in StagePaths.model_fields
            },
            stage=stage.model_dump(mode="json"),
            adapter=stage.adapter.model_dump(mode="json"),
            batch=batch.model_dump() | {"generation": batch.micro * batch.accumulation * facts.n_devices},
            precision=_precision(stage, facts),
            attn_implementation=_attention(stage),
            hub_kernels=facts.hub_kernels and on_gpu,
            sharded_weights=facts.n_devices > 1 and facts.profile in ("zero3", "fsdp2"),
            reentrant=_reentrant(facts),
            intervals=intervals,
            held_out=_held_out(stage),
        )
    )
    return RenderedStage(text=text, notes=_notes(stage, facts, batch, intervals, steps))


def yaml_scalar(value: Any) -> str:
    """Return a value as YAML that every YAML 1.1 reader gives back as the same value.

    JSON text is YAML; floats get a dot, because YAML 1.1 reads `1e-05` as text.
    """
    if isinstance(value, float):
        text = repr(value)
        mantissa, exponent, power = text.partition("e")
        if exponent and "." not in mantissa:
            sign = "" if power.startswith("-") else "+"
            return f"{mantissa}.0e{sign}{power.lstrip('+')}"
        return text
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(shipped_folder("templates")),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = yaml_scalar
    return environment


def _refuse_what_is_missing(stage: AnyTrainedStage, paths: StagePaths, facts: RenderFacts) -> None:
    """Never leave out what the recipe asks for: a training of another kind would be scored."""
    on_cpu = facts.device == "cpu"
    adapter = stage.adapter
    if isinstance(adapter, LoraAdapter) and adapter.quantization != "none":
        _need_gpu_package("adapter.quantization nf4", "bitsandbytes", on_cpu, facts.bitsandbytes)
    if stage.optim == "adamw_8bit":
        _need_gpu_package("optim adamw_8bit", "bitsandbytes", on_cpu, facts.bitsandbytes)
    if isinstance(stage, GrpoStage) and stage.use_vllm:
        _need_gpu_package("use_vllm", "vllm", on_cpu, facts.vllm)
    if stage.attn_implementation in VARLEN_KERNELS:
        kernel = stage.attn_implementation
        there = None if facts.kernels is None else kernel in facts.kernels
        _need_gpu_package("attn_implementation", kernel, on_cpu, there)
    elif isinstance(stage, SftStage) and stage.packing:
        raise PreflightError(
            f"packing needs a variable-length kernel, not {stage.attn_implementation!r}",
            hint=f"set attn_implementation to {VARLEN_KERNELS[0]!r} on a GPU, or packing to false",
        )
    if on_cpu and facts.n_devices > 1 and facts.profile != "ddp":
        raise PreflightError(
            f"profile {facts.profile} needs GPUs, and training runs on the CPU", hint="use ddp"
        )
    if isinstance(stage, DistillStage) and paths.teacher is None:
        raise PreflightError("a distill stage has no teacher folder", hint="name the teacher in the recipe")


def _need_gpu_package(wanted: str, package: str, on_cpu: bool, there: bool | None) -> None:
    if on_cpu:
        raise PreflightError(f"{wanted} needs a GPU, and training runs on the CPU", hint="drop it")
    if there is False:
        raise PreflightError(f"{wanted} needs {package}, which the environment lacks", hint="drop it")


def _attention(stage: AnyTrainedStage) -> str:
    return "sdpa" if stage.attn_implementation == "auto" else stage.attn_implementation


def _precision(stage: AnyTrainedStage, facts: RenderFacts) -> dict[str, Any]:
    """Return dtype and switches of one stage.

    A CPU is faster and exact in float32. On a GPU matrices are multiplied in bfloat16 always; frozen
    weights are held in it too. Weights that are trained are held in float32: a step of 1e-6 on a
    weight of 0.02 is below bfloat16's spacing there and would be rounded away. DeepSpeed keeps such a
    float32 copy itself.
    """
    on_gpu = facts.device == "cuda"
    frozen_dtype = "bfloat16" if on_gpu else "float32"
    own_copy = on_gpu and isinstance(stage.adapter, FullAdapter) and not _uses_deepspeed(facts)
    return {
        "dtype": "float32" if own_copy else frozen_dtype,
        "why": "full-float32-weights" if own_copy else "device-precision",
        "frozen_dtype": frozen_dtype,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
    }


def _uses_deepspeed(facts: RenderFacts) -> bool:
    return facts.n_devices > 1 and facts.profile in ("zero2", "zero3")


def _reentrant(facts: RenderFacts) -> bool:
    """ZeRO-3 gathers weights during the recomputation, which only the reentrant form allows."""
    return facts.n_devices > 1 and facts.profile == "zero3"


def _logging_steps(n_steps: int) -> int:
    """About a hundred lines a run, at least every ten steps, so that divergence is seen early."""
    return min(max(n_steps // _LOGS_PER_RUN, 1), 10)


def _save_steps(stage: AnyTrainedStage, n_steps: int) -> int:
    """A fifth of the run; short runs save less, unless their checkpoints are to be compared."""
    return max(n_steps // _SAVES_PER_RUN, 10 if stage.eval_share == 0 else 1)


def _held_out(stage: AnyTrainedStage) -> dict[str, Any] | None:
    """Return what is measured on held-out rows; None when the stage trains all of its rows.

    A `dpo` loss can rise while the order of answers is still getting better, so its checkpoints are
    ranked by the share of pairs in the right order; TRL measures that for `dpo` and not for `kto`.
    """
    if stage.eval_share == 0:
        return None
    rises = isinstance(stage, DpoStage)
    return {
        "metric": "eval_rewards/accuracies" if rises else "eval_loss",
        "rises": rises,
        "best": stage.keep == "best",
    }


def _notes(
    stage: AnyTrainedStage, facts: RenderFacts, batch: DeviceBatch, intervals: dict[str, int], steps: int
) -> tuple[str, ...]:
    precision = _precision(stage, facts)
    reason = (
        "because all weights are trained: bfloat16 would round small steps away"
        if precision["why"] == "full-float32-weights"
        else f"because training runs on {facts.device}"
    )
    notes = [
        f"dtype {precision['dtype']} {reason}",
        _batch_note(stage, facts, batch),
        f"about {steps} optimizer steps: logging every {intervals['logging']}, saving every "
        f"{intervals['save']} ({_kept_words(stage)})",
    ]
    held_out = _held_out(stage)
    if held_out is not None:
        notes.append(
            f"about {stage.eval_share:.0%} of the stage's rows are held out, whole prompts; "
            f"{held_out['metric']} is measured at every save, and the {stage.keep} weights are left"
        )
    if stage.attn_implementation == "auto":
        notes.append("attn_implementation sdpa: it needs no extra package")
    if isinstance(stage.adapter, LoraAdapter) and stage.adapter.target_modules == "all-linear":
        notes.append("lora_target_modules all-linear: the trainer's default adapts q_proj and v_proj only")
    if stage.max_steps is not None:
        notes.append(f"epochs {stage.epochs:g} is not written because max_steps {stage.max_steps} decides")
    if facts.hub_kernels and facts.device == "cuda":
        notes.append("model_init_kwargs use_kernels: the environment holds kernels for this model's layers")
    if stage.gradient_checkpointing and _reentrant(facts):
        notes.append("gradient_checkpointing_kwargs use_reentrant true: ZeRO-3 needs it")
    return (*notes, *_kind_notes(stage, precision))


def _kept_words(stage: AnyTrainedStage) -> str:
    return "the last 2 checkpoints are kept" if stage.eval_share == 0 else "the best and the last are kept"


def _batch_note(stage: AnyTrainedStage, facts: RenderFacts, batch: DeviceBatch) -> str:
    rows = f"effective_batch {stage.effective_batch}"
    if isinstance(stage, GrpoStage):
        rows += f" x num_generations {stage.num_generations}"
        if batch.micro < stage.micro_batch:
            rows += f" (micro_batch {stage.micro_batch} is lowered so that whole groups fit)"
    return (
        f"gradient_accumulation_steps {batch.accumulation} = {rows} / "
        f"(micro_batch {batch.micro} x {facts.n_devices} device(s))"
    )


def _kind_notes(stage: AnyTrainedStage, precision: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    if isinstance(stage, (DpoStage, KtoStage)):
        lora = isinstance(stage.adapter, LoraAdapter)
        what = "this model with the adapter switched off" if lora else "a frozen copy of the start"
        notes.append(f"reference model: {what}")
    if isinstance(stage, (GrpoStage, DistillStage)):
        notes.append(
            f"max_length {stage.max_length} is kept by the rows: the trainer has no key for prompt length"
        )
    if isinstance(stage, GrpoStage) and stage.use_vllm:
        notes.append("vllm_enable_sleep_mode: vLLM gives its memory back while weights are trained")
    if isinstance(stage, DistillStage):
        notes.append(f"the teacher is held in {precision['frozen_dtype']}; all samples are the student's own")
    return notes
