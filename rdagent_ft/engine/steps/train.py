"""Step 3 of a loop: train in a job, and judge by its evidence, never by its exit code alone."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.steps.code import CONFIG_NAME
from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.reporting.records import CodeOutput, Failure, TrainOutput
from rdagent_ft.training.failures import classify
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_failure, read_train_result, sft_argv
from rdagent_ft.values import sha256_file, sha256_text

METRICS_NAME = "metrics.jsonl"
CHECKPOINTS = "output"
"""The trainer's output_dir inside an attempt's folder."""


def train(ctx: RunContext, loop: int) -> TrainOutput:
    """Run the stage's job; return where the weights are, or why there are none."""
    coded = ctx.journal.output(loop, "code", CodeOutput)
    assert coded is not None
    if coded.failure is not None:
        return TrainOutput(failure=coded.failure)
    folder = ctx.loop_dir(loop)
    config = folder / "files" / CONFIG_NAME

    def prepare(out_dir: Path, previous: Path | None) -> tuple[str, ...]:
        if previous is not None:
            _carry_checkpoints(previous, out_dir)
        return sft_argv(config)

    outcome = run_job(
        ctx,
        loop,
        "train",
        JobRequest(
            kind="train",
            out_root=folder / "stages" / "1-sft",
            inputs={"model": Path(ctx.prepared.model.path), "data": folder / "data", "config": config},
            limit_s=ctx.settings.full_timeout,
            metrics_name=METRICS_NAME,
            needs_gpu=ctx.prepared.device == "cuda",
        ),
        prepare,
    )
    return _judge(ctx, outcome)


def _carry_checkpoints(previous: Path, out_dir: Path) -> None:
    """Hand the attempt before's checkpoints and metrics on, so that the trainer resumes from them."""
    if (previous / CHECKPOINTS).is_dir() and not (out_dir / CHECKPOINTS).exists():
        shutil.move(previous / CHECKPOINTS, out_dir / CHECKPOINTS)
    if (previous / METRICS_NAME).is_file():
        shutil.copyfile(previous / METRICS_NAME, out_dir / METRICS_NAME)


def _judge(ctx: RunContext, outcome: JobOutcome) -> TrainOutput:
    out_dir, result = outcome.out_dir, outcome.result
    health = read_health(out_dir / METRICS_NAME)
    failure = classify(
        read_log(out_dir / "job.log"), result=result, health=health, failure_json=read_failure(out_dir)
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
    weights = out_dir / trained.weights
    ctx.journal.event("environment", {"python": platform.python_version(), **trained.versions})
    return output.model_copy(
        update={
            "kind": "lora" if trained.weights == "adapter" else "full",
            "weights": ctx.relative(weights),
            "weights_sha256": _weights_hash(weights),
            "n_tokens": trained.n_tokens,
        }
    )


def _weights_hash(folder: Path) -> str:
    """Return the SHA-256 of the safetensors file, or of their hashes in name order when several."""
    hashes = [sha256_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return hashes[0] if len(hashes) == 1 else sha256_text("".join(hashes))
