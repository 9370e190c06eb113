"""Step 3 of a loop: train in a job, and judge by its evidence, never by its exit code alone."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.steps.code import CONFIG_NAME
from rdagent_ft.errors import JobError
from rdagent_ft.execution.carry import copy_file_inside, move_folder_inside
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.execution.weight_files import check_weights, combined_sha256
from rdagent_ft.reporting.records import CodeOutput, Failure, StepName, TrainOutput
from rdagent_ft.training.failures import classify, hostile_output
from rdagent_ft.training.monitor import MAX_BYTES as METRICS_MAX_BYTES
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_failure, read_train_result, sft_argv

METRICS_NAME = "metrics.jsonl"
CHECKPOINTS = "output"
"""The trainer's output_dir inside an attempt's folder."""
MAX_CHECKPOINT_FILES = 20_000
MAX_CHECKPOINT_BYTES = 4 << 40
"""Checkpoints are renamed, not copied: the bound only ends the absurd."""


def train(ctx: RunContext, loop: int) -> TrainOutput:
    """Run the stage's job; return where the weights are, or why there are none."""
    coded = ctx.journal.output(loop, "code", CodeOutput)
    assert coded is not None
    if coded.failure is not None:
        return TrainOutput(failure=coded.failure)
    folder = ctx.loop_dir(loop)
    return train_config(ctx, loop, "train", folder / "files" / CONFIG_NAME, folder / "stages" / "1-sft")


def train_config(
    ctx: RunContext, loop: int, step: StepName, config: Path, out_root: Path, part: str = ""
) -> TrainOutput:
    """Train what `config` says on the loop's data; return where the weights are, or why there are none.

    `part` names the job where a step has several of them.
    """

    def prepare(out_dir: Path, previous: Path | None) -> tuple[str, ...]:
        if previous is not None:
            _carry_checkpoints(previous, out_dir)
        return sft_argv(config)

    outcome = run_job(
        ctx,
        loop,
        step,
        JobRequest(
            kind="train",
            out_root=out_root,
            part=part,
            inputs={
                "model": Path(ctx.prepared.model.path),
                "data": ctx.loop_dir(loop) / "data",
                "config": config,
            },
            limit_s=ctx.settings.full_timeout,
            metrics_name=METRICS_NAME,
            needs_gpu=ctx.prepared.device == "cuda",
            scratch=(CHECKPOINTS,),
        ),
        prepare,
    )
    output = _judge(ctx, outcome)
    if output.failure is not None:
        ctx.executor.forget(outcome.result)
    return output


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


def _judge(ctx: RunContext, outcome: JobOutcome) -> TrainOutput:
    out_dir, result = outcome.out_dir, outcome.result
    health = read_health(out_dir / METRICS_NAME)
    failure = classify(
        read_log(outcome.log), result=result, health=health, failure_json=read_failure(out_dir)
    )
    output = TrainOutput(
        attempts=outcome.n_attempts,
        health=health,
        train_s=result.ended_unix - result.started_unix,
        failure=failure,
    )
    if failure is not None:
        return output
    try:
        trained = read_train_result(out_dir)
    except JobError as error:
        missing = Failure(failure_class="train.no_result", blame="environment", message=error.message)
        return output.model_copy(update={"failure": missing})
    base = Path(ctx.prepared.model.path)
    try:
        files = check_weights(out_dir, trained.weights, base_model=base, kind=trained.weights)
    except JobError as error:
        return output.model_copy(update={"failure": hostile_output(error.message)})
    ctx.journal.event("environment", {"python": platform.python_version(), **trained.versions})
    return output.model_copy(
        update={
            "kind": "lora" if trained.weights == "adapter" else "full",
            "weights": ctx.relative(out_dir / trained.weights),
            "weights_sha256": combined_sha256(files),
            "n_tokens": trained.n_tokens,
        }
    )
