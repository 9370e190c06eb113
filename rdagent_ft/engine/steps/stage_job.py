"""One training stage as a job: render its config, run it, judge it by its evidence, mend what is neutral.

An exit code alone is never believed: metrics, the job's own account and the files it left decide. A
failure for which a fix keeps the task (smaller passes, recomputed activations) is tried again at once,
as a job of another name; every fix is recorded. What would change the task is left to `propose`.
"""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.facts import n_devices, teacher_folder
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.measured import training_speed
from rdagent_ft.engine.steps.chain_place import ChainPlace
from rdagent_ft.engine.steps.llamafactory_stage import (
    llamafactory_command,
    llamafactory_data,
    render_for_llamafactory,
)
from rdagent_ft.engine.steps.stage_data import StageData
from rdagent_ft.engine.steps.token_cache import keep_tokens, token_folder
from rdagent_ft.errors import JobError
from rdagent_ft.execution.carry import copy_file_inside, move_folder_inside
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.execution.weight_files import check_weights, combined_sha256
from rdagent_ft.recipe.forecast import Throughput
from rdagent_ft.recipe.launch import render_accelerate
from rdagent_ft.recipe.learnt import FailedTry, failed_try
from rdagent_ft.recipe.model_shape import read_model_shape
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyTrainedStage, DistillStage, GrpoStage
from rdagent_ft.reporting.stage_records import Failure, KeptStep, StageOutput
from rdagent_ft.training.failures import classify, hostile_output
from rdagent_ft.training.monitor import MAX_BYTES as METRICS_MAX_BYTES
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import TrainResult, read_failure, read_train_result, shared_argv, stage_argv
from rdagent_ft.training.repair import RepairFacts, neutral_fix
from rdagent_ft.training.token_files import LEFT_NAME
from rdagent_ft.values import write_atomic, write_json

METRICS_NAME = "metrics.jsonl"
CHECKPOINTS = "output"
"""The trainer's output_dir inside an attempt's folder."""
MAX_CHECKPOINT_FILES = 20_000
MAX_CHECKPOINT_BYTES = 4 << 40
"""Checkpoints are renamed, not copied: the bound only ends the absurd."""


class TrainedStageJob(NamedTuple):
    """What is trained: the stage at place `number` (from 1) of a recipe, from `parent`'s weights.

    `repairs` are the fixes that `stage` has already against the recipe, as its probe needed them.
    """

    recipe: Recipe
    number: int
    stage: AnyTrainedStage
    parent: int | None
    repairs: tuple[str, ...] = ()


class StageInputs(NamedTuple):
    """The model folder it starts from, its rows, and the reward model that a `grpo` stage may ask."""

    model: Path
    data: StageData
    reward_model: Path | None = None


def train_stage(ctx: RunContext, place: ChainPlace, job: TrainedStageJob, inputs: StageInputs) -> StageOutput:
    """Train one stage, with neutral fixes where they help; return what it left or why it failed."""
    repairs, tries = list(job.repairs), list[FailedTry]()
    facts = RepairFacts(device=ctx.prepared.device)
    stage = job.stage
    while True:
        output = _try(ctx, place, job._replace(stage=stage), inputs, tuple(repairs))
        if output.failure is not None:
            tries.append(failed_try(stage, output.failure.failure_class))
        output = output.model_copy(update={"tries": tuple(tries)})
        if output.failure is None:
            return output
        fix = neutral_fix(stage, output.failure.failure_class, facts)
        if fix is None:
            return output
        ctx.progress.notice(f"{job.stage.kind}: {output.failure.failure_class}; once more with {fix.words}")
        repairs.append(fix.words)
        stage = fix.stage


def stage_folder(number: int, kind: str) -> str:
    """Return the name of a stage's folder: `2-dpo`."""
    return f"{number}-{kind}"


def render_config(
    ctx: RunContext, recipe: Recipe, number: int, *, model: Path, train_file: Path, n_rows: int
) -> tuple[str, tuple[str, ...]]:
    """Return the trainer's config of a stage, and one line for each automatic choice."""
    stage = recipe.stages[number - 1]
    teacher = teacher_folder(ctx.settings, stage.teacher) if isinstance(stage, DistillStage) else None
    paths = StagePaths(model=model, train_file=train_file, output_dir=Path(CHECKPOINTS), teacher=teacher)
    profile = ctx.settings.parallel
    facts = RenderFacts(
        device=ctx.prepared.device,
        n_devices=n_devices(ctx),
        n_train_rows=n_rows,
        profile="ddp" if profile == "none" else profile,
    )
    if ctx.settings.trainer == "llamafactory":
        rendered = render_for_llamafactory(ctx, recipe, number, paths=paths, facts=facts)
    else:
        rendered = render_stage(recipe, number - 1, paths=paths, facts=facts)
    return rendered.text, rendered.notes


def _try(
    ctx: RunContext, place: ChainPlace, job: TrainedStageJob, inputs: StageInputs, repairs: tuple[str, ...]
) -> StageOutput:
    """Run the stage once as it stands. Fixed stages have configs, folders and jobs of their own."""
    name = stage_folder(job.number, job.stage.kind)
    fixed = f"-fix{len(repairs)}" if repairs else ""
    stages = (*job.recipe.stages[: job.number - 1], job.stage, *job.recipe.stages[job.number :])
    recipe = job.recipe.model_copy(update={"stages": stages})
    rows = inputs.data.file
    if ctx.settings.trainer == "llamafactory":
        rows = llamafactory_data(ctx, rows, job.stage.kind)
    text, _ = render_config(
        ctx, recipe, job.number, model=inputs.model, train_file=rows, n_rows=inputs.data.n_rows
    )
    config = place.configs / f"{name}{fixed}.yaml"
    write_atomic(config, text)
    part = place.part(job.number, job.stage.kind) + fixed
    outcome = _run(ctx, place, job.stage, inputs, config, place.stages / f"{name}{fixed}", part)
    output = StageOutput(
        number=job.number,
        kind=job.stage.kind,
        folder=ctx.relative(place.stages / f"{name}{fixed}"),
        parent=job.parent,
        reference=_reference(job),
        attempts=outcome.n_attempts,
        train_s=outcome.result.ended_unix - outcome.result.started_unix,
        n_rows=inputs.data.n_rows,
        repairs=repairs,
    )
    judged = _judge(ctx, outcome, inputs.model, output)
    if judged.failure is not None:
        ctx.executor.forget(outcome.result)
        return judged
    return judged.model_copy(update={"speed": _speed(ctx, job.stage, outcome.out_dir)})


def _speed(ctx: RunContext, stage: AnyTrainedStage, out_dir: Path) -> Throughput | None:
    """Return the speed of a training for later forecasts; None for one that went on after a stop."""
    trained = read_train_result(out_dir)
    if trained.resumed_from_step is not None:
        return None
    shape = read_model_shape(Path(ctx.prepared.model.path))
    return training_speed(
        stage, shape, n_tokens=trained.n_tokens, n_steps=trained.n_steps, seconds=trained.train_s
    )


def _run(
    ctx: RunContext, place: ChainPlace, stage: AnyTrainedStage, inputs: StageInputs, config: Path,
    out_root: Path, part: str,
) -> JobOutcome:  # fmt: skip
    folders, rewards = input_folders(ctx, stage, inputs, config)
    shared = write_profile(ctx, config)
    if shared is not None:
        folders["accelerate"] = shared
    tokens = token_folder(ctx, stage, inputs.data, inputs.model)
    if tokens is not None:
        folders["tokens"] = tokens

    def prepare(out_dir: Path, previous: Path | None) -> tuple[str, ...]:
        if previous is not None:
            _carry_checkpoints(previous, out_dir)
            if tokens is not None:
                keep_tokens(ctx, tokens, previous, inputs.data)
        if ctx.settings.trainer == "llamafactory":
            return llamafactory_command(ctx, config)
        argv = stage_argv(
            stage.kind, config, rewards=rewards, reward_model=inputs.reward_model, tokens=tokens
        )
        return argv if shared is None else shared_argv(argv, shared)

    request = JobRequest(
        kind="train" if ctx.settings.trainer == "trl" else "train_llamafactory",
        out_root=out_root,
        part=part,
        inputs=folders,
        limit_s=ctx.settings.full_timeout,
        metrics_name=METRICS_NAME,
        needs_gpu=ctx.prepared.device == "cuda",
        scratch=(CHECKPOINTS,) if tokens is None else (CHECKPOINTS, LEFT_NAME),
    )
    outcome = run_job(ctx, place.loop, place.step, request, prepare)
    if tokens is not None:
        keep_tokens(ctx, tokens, outcome.out_dir, inputs.data)
    return outcome


def input_folders(
    ctx: RunContext, stage: AnyTrainedStage, inputs: StageInputs, config: Path
) -> tuple[dict[str, Path], Path | None]:
    """Return what a stage's job may read, and the file of its rewards, which is written beside the config."""
    folders = {"model": inputs.model, "data": inputs.data.file.parent, "config": config}
    rewards: Path | None = None
    if isinstance(stage, GrpoStage):
        rewards = config.with_name(f"{config.stem}-rewards.json")
        write_json(rewards, [reward.model_dump(mode="json") for reward in stage.rewards])
        folders["rewards"] = rewards
        if inputs.reward_model is not None:
            folders["reward_model"] = inputs.reward_model
    if isinstance(stage, DistillStage):
        teacher = teacher_folder(ctx.settings, stage.teacher)
        assert teacher is not None  # V1 refuses a teacher that is not there
        folders["teacher"] = teacher
    return folders, rewards


def write_profile(ctx: RunContext, config: Path) -> Path | None:
    """Write accelerate's config beside the trainer's where several GPUs share the training."""
    profile = ctx.settings.parallel
    if profile == "none" or n_devices(ctx) < 2:
        return None
    path = config.with_name(f"{config.stem}-{profile}.yaml")
    write_atomic(path, render_accelerate(profile, n_devices(ctx)))
    return path


def _reference(job: TrainedStageJob) -> str | None:
    """Return the model that the loss compares with: always the one that the stage starts from."""
    compares = job.stage.kind in ("dpo", "kto") or (isinstance(job.stage, GrpoStage) and job.stage.beta > 0)
    if not compares:
        return None
    return "base" if job.parent is None else f"stage {job.parent}"


def _carry_checkpoints(previous: Path, out_dir: Path) -> None:
    """Hand the attempt before's checkpoints and metrics on, so that the trainer resumes from them.

    The job before may have left anything under these names; what is no regular file stays behind, and
    a tree past the bounds is not carried at all: the training then begins anew. The optimizer, random
    and scheduler states among the checkpoints are pickles. The trainer opens them inside the next
    job, where code of the job before may run anyway; nothing in the controller ever does.
    """
    with contextlib.suppress(JobError):
        move_folder_inside(
            previous, CHECKPOINTS, out_dir, max_files=MAX_CHECKPOINT_FILES, max_bytes=MAX_CHECKPOINT_BYTES
        )
    with contextlib.suppress(JobError):
        copy_file_inside(previous, METRICS_NAME, out_dir / METRICS_NAME, max_bytes=METRICS_MAX_BYTES)


def _judge(ctx: RunContext, outcome: JobOutcome, model: Path, output: StageOutput) -> StageOutput:
    out_dir, result = outcome.out_dir, outcome.result
    assert output.kind != "merge"
    health = read_health(out_dir / METRICS_NAME, output.kind)
    failure = classify(
        read_log(outcome.log), result=result, health=health, failure_json=read_failure(out_dir)
    )
    output = output.model_copy(update={"health": health, "failure": failure})
    if failure is not None:
        return output
    try:
        trained = read_train_result(out_dir)
    except JobError as error:
        missing = Failure(failure_class="train.no_result", blame="environment", message=error.message)
        return output.model_copy(update={"failure": missing})
    try:
        files = check_weights(out_dir, trained.weights, base_model=model, kind=trained.weights)
    except JobError as error:
        return output.model_copy(update={"failure": hostile_output(error.message)})
    ctx.journal.event("environment", {"python": platform.python_version(), **trained.versions})
    return output.model_copy(
        update={
            "weights_kind": "reward" if output.kind == "reward" else trained.weights,
            "weights": ctx.relative(out_dir / trained.weights),
            "weights_sha256": combined_sha256(files),
            "n_tokens": trained.n_tokens,
            "metrics": trained.metrics,
            "kept": _kept(trained),
        }
    )


def _kept(trained: TrainResult) -> KeptStep | None:
    """Return the checkpoint that a training with held-out rows left, as the journal keeps it."""
    if trained.kept is None:
        return None
    return KeptStep(n_steps=trained.n_steps, **trained.kept.model_dump())
