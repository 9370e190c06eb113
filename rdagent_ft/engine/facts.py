"""What is known of model, data and device, in the form that recipe rules take."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rdagent_ft.data.models import local_model
from rdagent_ft.data.rows import ModelSource
from rdagent_ft.data.tokens import chat_template_text
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.measured import measured, remaining_s
from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.teacher_endpoint import resolve_teacher_endpoint
from rdagent_ft.recipe.learnt import FailedTry, LearntRule, learn
from rdagent_ft.recipe.memory import read_model_shape
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DistillStage
from rdagent_ft.reporting.records import CodeOutput, TrainOutput
from rdagent_ft.settings import Settings

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\b")


def rule_facts(
    ctx: RunContext,
    n_train_rows: int | None,
    recipe: Recipe | None = None,
    *,
    tokens_per_row: float | None = None,
) -> RuleFacts:
    """Return the facts that V1 judges a recipe by; None rows switches the rules about their number off.

    Args:
        recipe: its teachers are looked up; without one nothing is known of teachers.
        tokens_per_row: of these rows; None takes the mean row of the newest loop.
    """
    prepared, known = ctx.prepared, measured(ctx)
    pairs, profile = prepared.preferences, ctx.settings.parallel
    return model_facts(prepared.model, ctx.settings, recipe).model_copy(
        update={
            "device": prepared.device,
            "n_gpus": n_devices(ctx),
            "memory_gib": prepared.memory_gib,
            "gpu_memory_gib": prepared.gpu_memory_gib,
            "n_train_rows": n_train_rows,
            "has_preferences": pairs is not None,
            "n_preferences": None if pairs is None else pairs.n_rows,
            "has_scorer": True,
            "learnt": learnt_rules(ctx),
            "model": prepared.model.name,
            "sharding": "ddp" if profile == "none" else profile,
            "tokens_per_row": tokens_per_row or known.tokens_per_row,
            "memory_factors": known.factors,
            "speeds": known.speeds,
            "remaining_s": remaining_s(ctx),
            "stage_limit_s": ctx.settings.full_timeout,
        }
    )


def n_devices(ctx: RunContext) -> int:
    """Return the processes that one training is shared by (FT_PARALLEL)."""
    return 1 if ctx.settings.parallel == "none" else max(ctx.prepared.n_gpus, 1)


def model_facts(model: ModelSource, settings: Settings, recipe: Recipe | None) -> RuleFacts:
    """Return what is known before a run has begun: model, executor, and the recipe's teachers."""
    shape = read_model_shape(Path(model.path))
    template = chat_template_text(Path(model.path))
    return RuleFacts(
        n_params=model.n_params,
        hidden_size=shape.hidden_size,
        vocab_size=model.vocab_size,
        max_positions=model.max_positions,
        shape=shape,
        has_training_template=template is not None and _GENERATION_MARK.search(template) is not None,
        teacher_vocab_sizes={} if recipe is None else _teachers(recipe, settings),
        has_teacher=resolve_teacher_endpoint(settings, os.environ) is not None,
        can_contain=settings.executor == "docker",
        trainer=settings.trainer,
    )


def learnt_rules(ctx: RunContext) -> tuple[LearntRule, ...]:
    """Return what this run's own failed trainings forbid."""
    tries: list[FailedTry] = []
    for loop in ctx.journal.finished_loops():
        coded = ctx.journal.output(loop, "code", CodeOutput)
        trained = ctx.journal.output(loop, "train", TrainOutput)
        for probe in () if coded is None else coded.probes:
            tries += probe.tries
        for stage in () if trained is None else trained.stages:
            tries += stage.tries
    return learn(tries)


def teacher_folder(settings: Settings, name: str) -> Path | None:
    """Return where a teacher's weights lie: a model under FT_FILE_PATH/models and no other path."""
    return local_model(name, settings.file_path)


def _teachers(recipe: Recipe, settings: Settings) -> dict[str, int | None]:
    sizes: dict[str, int | None] = {}
    for stage in recipe.stages:
        if isinstance(stage, DistillStage):
            folder = teacher_folder(settings, stage.teacher)
            try:
                sizes[stage.teacher] = None if folder is None else read_model_shape(folder).vocab_size
            except PreflightError:
                sizes[stage.teacher] = None
    return sizes
