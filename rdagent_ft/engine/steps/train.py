"""Step 3 of a loop: train in a job, and judge by its evidence, never by its exit code alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.steps.code import CONFIG_NAME
from rdagent_ft.execution.outputs import read_json_file, read_text_tail
from rdagent_ft.reporting.records import CodeOutput, Failure, TrainOutput
from rdagent_ft.training.failures import classify
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import TrainResult, read_train_result, sft_argv
from rdagent_ft.values import sha256_file

METRICS_NAME = "metrics.jsonl"


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
    """Move the trainer's checkpoints of the attempt before, so that it resumes from them."""
    for checkpoint in sorted((previous / "output").glob("checkpoint-*")):
        if checkpoint.is_dir() and not checkpoint.is_symlink():
            (out_dir / "output").mkdir(exist_ok=True)
            shutil.move(str(checkpoint), str(out_dir / "output" / checkpoint.name))
    if (previous / METRICS_NAME).is_file():
        shutil.copyfile(previous / METRICS_NAME, out_dir / METRICS_NAME)


def _judge(ctx: RunContext, outcome: JobOutcome) -> TrainOutput:
    out_dir, result = outcome.out_dir, outcome.result
    seconds = result.ended_unix - result.started_unix
    health = read_health(out_dir / METRICS_NAME)
    failure = classify(
        read_text_tail(out_dir / "job.log", 200_000),
        result=result,
        health=health,
        failure_json=read_json_file(out_dir, "failure.json", 100_000, missing_ok=True),
    )
    trained: TrainResult | None = None
    if failure is None:
        trained = read_train_result(out_dir)
        if trained is None:
            failure = Failure(
                failure_class="train.no_weights",
                blame="candidate",
                message="the trainer ended without an error and left no weights",
                fix="see the job's log",
            )
    return TrainOutput(
        attempts=outcome.n_attempts,
        kind=None if trained is None else trained.kind,
        weights=None if trained is None else ctx.relative(out_dir / trained.weights),
        weights_sha256=None if trained is None else _weights_hash(out_dir / trained.weights),
        health=health,
        train_s=seconds,
        n_tokens=None if trained is None else trained.n_tokens,
        failure=failure,
    )


def _weights_hash(folder: Path) -> str:
    """Return the SHA-256 of the safetensors file, or of their hashes in name order when several."""
    hashes = [sha256_file(path) for path in sorted(folder.glob("*.safetensors"))]
    if len(hashes) == 1:
        return hashes[0]
    from rdagent_ft.values import sha256_text

    return sha256_text("".join(hashes))
