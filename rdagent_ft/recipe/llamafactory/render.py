"""From a recipe's stage to LLaMA-Factory's config text, through `templates/llamafactory/`.

The same recipe gives the same training as with TRL: effective batch, masking, precision and rates
are written out, and what the trainer cannot say is refused (`fits.py`). One process on one device;
several devices are refused. Rendering is pure text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdagent_ft.errors import PreflightError, RecipeError
from rdagent_ft.recipe.batches import DeviceBatch, device_batch
from rdagent_ft.recipe.llamafactory.fits import FLASH_ATTN, sft_share, stage_problems
from rdagent_ft.recipe.llamafactory.keys import LlamaFactoryStage
from rdagent_ft.recipe.render import RenderedStage, RenderFacts, StagePaths, yaml_scalar
from rdagent_ft.recipe.rules import optimizer_steps
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, LoraAdapter, MergeStage, RewardStage, SftStage, TrainedStage
from rdagent_ft.shipped import shipped_folder

STAGE_NAMES: dict[str, LlamaFactoryStage] = {"sft": "sft", "dpo": "dpo", "kto": "kto", "reward": "rm"}
_LOGS_PER_RUN = 100
_SAVES_PER_RUN = 5


def render_llamafactory(
    recipe: Recipe, stage_index: int, *, paths: StagePaths, facts: RenderFacts, template: str
) -> RenderedStage:
    """Return the config of one training.

    Args:
        recipe: what to train.
        stage_index: which of its stages.
        paths: `train_file` is what `write_dataset` returned; its folder holds `dataset_info.json`.
        facts: the machine and the number of rows.
        template: the trainer's prompt template (`choose_template`).

    Raises `RecipeError` with every problem when the stage does not fit this trainer, and
    `PreflightError` when the batch cannot be split.
    """
    stage = recipe.stages[stage_index]
    problems = stage_problems(stage, f"stages.{stage_index}")
    if problems:
        raise RecipeError("LLaMA-Factory cannot train this recipe", problems=tuple(problems))
    if isinstance(stage, MergeStage):
        raise ValueError("a merge is rendered by `render_export`")
    _refuse_several_devices(facts)
    batch = device_batch(stage, facts.n_devices)
    steps = optimizer_steps(stage, facts.n_train_rows)
    intervals = {
        "logging": min(max(steps // _LOGS_PER_RUN, 1), 10),
        "save": max(steps // _SAVES_PER_RUN, 10),
    }
    on_gpu = facts.device == "cuda"
    name = STAGE_NAMES[stage.kind]
    text = _render(
        name,
        paths={"model": str(paths.model), "output_dir": str(paths.output_dir)},
        dataset={"name": paths.train_file.stem, "folder": str(paths.train_file.parent), "template": template},
        stage=stage.model_dump(mode="json"),
        adapter=stage.adapter.model_dump(mode="json"),
        lora_target=_lora_target(stage.adapter),
        flash_attn=FLASH_ATTN[stage.attn_implementation],
        batch=batch.model_dump(),
        precision={"bf16": on_gpu, "use_cpu": not on_gpu},
        intervals=intervals,
        sft_share=sft_share(stage) if isinstance(stage, DpoStage) else 0.0,
        pref_loss=next((word for word in getattr(stage, "loss_type", ()) if word != "sft"), "sigmoid"),
    )
    return RenderedStage(text=text, notes=tuple(_notes(stage, facts, template, batch, intervals)))


def render_export(*, model: Path, adapter: Path, out: Path, template: str) -> str:
    """Return the config that merges an adapter into its base model, in float32, and writes it to `out`."""
    return _render(
        "export",
        paths={"model": str(model), "adapter": str(adapter), "out": str(out)},
        template=template,
    )


def _render(name: LlamaFactoryStage, **context: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(shipped_folder("templates")),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = yaml_scalar
    return environment.get_template(f"llamafactory/{name}.yaml.j2").render(**context)


def _refuse_several_devices(facts: RenderFacts) -> None:
    if facts.n_devices > 1:
        raise PreflightError(
            f"LLaMA-Factory is run as one process, and the training is planned on {facts.n_devices} devices",
            hint="give the job one GPU, or train with `trl`",
        )


def _lora_target(adapter: object) -> str:
    """Return the trainer's word for all linear layers but the head, or the names with commas."""
    if not isinstance(adapter, LoraAdapter) or adapter.target_modules == "all-linear":
        return "all"
    return ",".join(adapter.target_modules)


def _notes(
    stage: TrainedStage, facts: RenderFacts, template: str, batch: DeviceBatch, intervals: dict[str, int]
) -> list[str]:
    computed = "bfloat16 (autocast)" if facts.device == "cuda" else "float32"
    notes = [
        f"computed in {computed} because training runs on {facts.device}; frozen weights keep their dtype",
        f"gradient_accumulation_steps {batch.accumulation} = effective_batch {stage.effective_batch} / "
        f"micro_batch {batch.micro}",
        f"logging every {intervals['logging']} steps, saving every {intervals['save']} "
        "(the last 2 checkpoints are kept)",
        f"template {template}: compared with the model's own before training",
        f"rows over {stage.max_length} tokens lose part of the prompt and part of the answer, by their "
        "lengths; TRL cuts at the right",
    ]
    if stage.attn_implementation == "auto":
        notes.append("flash_attn sdpa: it needs no extra package")
    if isinstance(stage, SftStage) and stage.train_on == "assistant_turns":
        notes.append("every assistant turn is trained; this trainer marks them itself, without the template")
    if isinstance(stage, RewardStage):
        notes.append("the reward model is a value head of this trainer's own form; TRL cannot read it")
    if stage.max_steps is not None:
        notes.append(f"epochs {stage.epochs:g} is not written because max_steps {stage.max_steps} decides")
    return notes
