"""From a recipe's stage to the trainer's config text, through the templates in `templates/trl/`.

The program adds what a recipe may not say (paths, precision of the device, logging, saving) and
derives what it must (accumulation from the effective batch, intervals from the number of steps).
Every such choice is a note. Rendering is pure text: the same recipe and facts give the same bytes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.rules import optimizer_steps
from rdagent_ft.recipe.schema import LoraAdapter, Recipe, SftStage
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen

# What YAML refuses or folds inside quotes although JSON allows it.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_LOGS_PER_RUN = 100
_SAVES_PER_RUN = 5


class StagePaths(Frozen):
    """Where a stage reads and writes.

    Attributes:
        model: folder of the base model.
        train_file: JSON lines with `prompt` and `completion`.
        output_dir: folder for checkpoints; relative to the job's working directory.
    """

    model: Path
    train_file: Path
    output_dir: Path


class RenderFacts(Frozen):
    """What rendering must know of machine and data.

    Attributes:
        device: where training runs.
        n_devices: processes that share the effective batch.
        n_train_rows: rows after the data mix; sets logging and saving intervals.
    """

    device: Literal["cpu", "cuda"]
    n_devices: int = 1
    n_train_rows: int = 1000


class RenderedStage(Frozen):
    """Config text and the choices that the program made for it."""

    text: str
    notes: tuple[str, ...] = ()


def render_stage(recipe: Recipe, stage_index: int, *, paths: StagePaths, facts: RenderFacts) -> RenderedStage:
    """Return one stage's TRL config.

    Raises `PreflightError` when the batch cannot be split over the devices; `check_recipe` finds
    that earlier with all other problems.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    stage = recipe.stages[stage_index]
    batch = _batch(stage, facts.n_devices)
    steps = optimizer_steps(stage, facts.n_train_rows)
    intervals = {"logging": _logging_steps(steps), "save": max(steps // _SAVES_PER_RUN, 10)}
    environment = Environment(
        loader=FileSystemLoader(shipped_folder("templates")),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = yaml_scalar
    text = environment.get_template(f"trl/{stage.kind}.yaml.j2").render(
        paths={name: str(getattr(paths, name)) for name in StagePaths.model_fields},
        stage=stage.model_dump(mode="json"),
        adapter=stage.adapter.model_dump(mode="json"),
        batch=batch,
        precision=_precision(facts.device),
        attn_implementation="sdpa" if stage.attn_implementation == "auto" else stage.attn_implementation,
        intervals=intervals,
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


def _batch(stage: SftStage, n_devices: int) -> dict[str, int]:
    per_pass = stage.micro_batch * n_devices
    if stage.effective_batch % per_pass:
        raise PreflightError(
            f"effective_batch {stage.effective_batch} is not a multiple of micro_batch "
            f"{stage.micro_batch} x {n_devices} device(s)",
            hint="change micro_batch; check_recipe names a value that fits",
        )
    return {"micro": stage.micro_batch, "accumulation": stage.effective_batch // per_pass}


def _precision(device: str) -> dict[str, Any]:
    """bfloat16 where there is a GPU; CPU kernels are faster and exact in float32."""
    on_gpu = device == "cuda"
    return {"dtype": "bfloat16" if on_gpu else "float32", "bf16": on_gpu, "use_cpu": not on_gpu}


def _logging_steps(n_steps: int) -> int:
    """About a hundred lines a run, at least every ten steps, so that divergence is seen early."""
    return min(max(n_steps // _LOGS_PER_RUN, 1), 10)


def _notes(
    stage: SftStage, facts: RenderFacts, batch: dict[str, int], intervals: dict[str, int], steps: int
) -> tuple[str, ...]:
    precision = _precision(facts.device)
    notes = [
        f"dtype {precision['dtype']} because training runs on {facts.device}",
        f"gradient_accumulation_steps {batch['accumulation']} = effective_batch {stage.effective_batch} / "
        f"(micro_batch {batch['micro']} x {facts.n_devices} device(s))",
        f"about {steps} optimizer steps: logging every {intervals['logging']}, saving every "
        f"{intervals['save']} (the last 2 checkpoints are kept)",
    ]
    if stage.attn_implementation == "auto":
        notes.append("attn_implementation sdpa: it needs no extra package")
    if isinstance(stage.adapter, LoraAdapter) and stage.adapter.target_modules == "all-linear":
        notes.append("lora_target_modules all-linear: the trainer's default adapts q_proj and v_proj only")
    if stage.max_steps is not None:
        notes.append(f"epochs {stage.epochs:g} is not written because max_steps {stage.max_steps} decides")
    return tuple(notes)
