"""A stage for LLaMA-Factory instead of TRL: its data file, its config and its command (FT_TRAINER).

The rows are those that TRL would get, in the trainer's own form beside them; recipes that it cannot train
the same way are refused by V1. Merges, scoring and export do not know which trainer made the weights.
"""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.recipe.llamafactory.chat_format import choose_template
from rdagent_ft.recipe.llamafactory.dataset_info import PlainTexts, write_dataset
from rdagent_ft.recipe.llamafactory.render import render_llamafactory
from rdagent_ft.recipe.render import RenderedStage, RenderFacts, StagePaths
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import StageKind
from rdagent_ft.training.llamafactory_plan import llamafactory_argv

DATA_FOLDER = "llamafactory"


def llamafactory_data(ctx: RunContext, rows: Path, kind: StageKind) -> Path:
    """Write a stage's rows as the trainer reads them, in a folder of their own beside `rows`."""
    encoder = ctx.text_encoder
    plain = None
    if ctx.prepared.prompt_format == "plain":
        plain = PlainTexts(begin=encoder.begin_text, end=encoder.eos_token or "")
    return write_dataset(rows, rows.parent / DATA_FOLDER / rows.stem, kind, plain=plain)


def render_for_llamafactory(
    ctx: RunContext, recipe: Recipe, number: int, *, paths: StagePaths, facts: RenderFacts
) -> RenderedStage:
    """Return the trainer's config of the stage at place `number` (from 1).

    Raises `PreflightError` when none of its prompt templates is the model's own.
    """
    template = choose_template(Path(ctx.prepared.model.path), ctx.prepared.prompt_format)
    return render_llamafactory(recipe, number - 1, paths=paths, facts=facts, template=template)


def llamafactory_command(ctx: RunContext, config: Path) -> tuple[str, ...]:
    """Return the job's command; the local executor takes the Python of FT_LLAMAFACTORY_PYTHON."""
    argv = llamafactory_argv(config)
    if ctx.executor.name == "local" and ctx.settings.llamafactory_python is not None:
        return (str(ctx.settings.llamafactory_python), *argv[1:])
    return argv
