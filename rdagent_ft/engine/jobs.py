"""Running a step's job durably: intent, launch, watch, record; adopt after a crash, retry infra.

A step asks for a job by (loop, step) and a function that describes attempt n. What was launched
before a crash is adopted by its attempt id, never started twice. Nothing here knows what a job does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rdagent_ft.engine.bounds import StopRun
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.journal import Attempt
from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.port import JobHandle, JobKind, JobResult, JobSpec
from rdagent_ft.execution.tail import JsonLinesTail
from rdagent_ft.reporting.records import SETUP_LOOP, StepName
from rdagent_ft.values import Frozen

POLL_S = 0.1
MAX_INFRA_RETRIES = 2
RETRY_PAUSE_S = 2.0


class JobRequest(Frozen):
    """A job as a step describes it; the rest of the JobSpec is filled in here.

    Attributes:
        kind, argv, inputs, needs_gpu: see `execution.port.JobSpec`.
        out_root: attempt n runs in `out_root/attempt-n`.
        limit_s: the job's own time limit; the run's timeout may cut it shorter.
        metrics_name: JSON-lines file in the attempt's folder that shows progress; None shows none.
        aliases, scratch: see `execution.port.JobSpec`.
        part: names one job of a step that has several (`seed-43`); "" is the step's only or main one.
        must_succeed: the step cannot be recorded without it (set-up, closing): a failure of an
            earlier invocation is tried again.
    """

    kind: JobKind
    out_root: Path
    inputs: dict[str, Path] = {}
    limit_s: float
    metrics_name: str | None = "metrics.jsonl"
    needs_gpu: bool = False
    aliases: dict[str, str] = {}
    scratch: tuple[str, ...] = ()
    part: str = ""
    must_succeed: bool = False


class JobOutcome(Frozen):
    """How a step's job ended, and where its last attempt left its files and its log."""

    result: JobResult
    out_dir: Path
    log: Path
    n_attempts: int


def run_job(
    ctx: RunContext,
    loop: int,
    step: StepName,
    request: JobRequest,
    prepare: Callable[[Path, Path | None], tuple[str, ...]],
) -> JobOutcome:
    """Run the step's job to its end and return how it ended.

    `prepare(out_dir, previous_out_dir)` writes the inputs of a new attempt into `out_dir` and returns
    its argv; `previous_out_dir` is that of the attempt before, for trainers that resume. Raises
    `StopRun` when the run has to stop while the job runs: the step is then unfinished.
    """
    if request.needs_gpu and ctx.warm is not None:
        ctx.warm.rest()
    followed_here = False
    while True:
        attempts = ctx.journal.attempts(loop, step, request.part)
        last = attempts[-1] if attempts else None
        if last is not None and last.status == "done" and last.result is not None:
            if not _try_again(request, attempts, last.result, followed_here):
                return _outcome(ctx, last, last.result, len(attempts))
            if followed_here:
                ctx.progress.notice(f"{step}: {last.result.reason}; trying once more")
                time.sleep(RETRY_PAUSE_S)
            last = None
        if last is None:
            last = _new_attempt(ctx, loop, step, request, prepare, attempts)
        _launch_and_follow(ctx, step, request, last)
        followed_here = True


def _outcome(ctx: RunContext, last: Attempt, result: JobResult, n_attempts: int) -> JobOutcome:
    out_dir = last.spec.out_dir
    handle = last.handle
    log = out_dir / "job.log" if handle is None else ctx.executor.log_path(handle)
    return JobOutcome(result=result, out_dir=out_dir, log=log, n_attempts=n_attempts)


def _try_again(request: JobRequest, attempts: list[Attempt], last: JobResult, followed_here: bool) -> bool:
    """Return whether an ended attempt is followed by another one."""
    if last.failure_class == "infra":
        n_infra = sum(1 for a in attempts if a.result is not None and a.result.failure_class == "infra")
        return n_infra <= MAX_INFRA_RETRIES or (request.must_succeed and not followed_here)
    if last.failure_class == "stopped":
        # Stopped by the run's own end: go on. Stopped by someone else: the step is over.
        return last.reason == "run_stopped" or (request.must_succeed and not followed_here)
    return request.must_succeed and last.failure_class != "ok" and not followed_here


def _new_attempt(
    ctx: RunContext,
    loop: int,
    step: StepName,
    request: JobRequest,
    prepare: Callable[[Path, Path | None], tuple[str, ...]],
    attempts: list[Attempt],
) -> Attempt:
    number = len(attempts) + 1
    out_dir = request.out_root / f"attempt-{number}"
    out_dir.mkdir(parents=True, exist_ok=True)
    argv = prepare(out_dir, attempts[-1].spec.out_dir if attempts else None)
    place = "setup" if loop == SETUP_LOOP else f"{loop:03d}"
    spec = JobSpec(
        attempt_id="-".join(filter(None, (ctx.run_id, place, step, request.part, str(number)))),
        kind=request.kind,
        argv=argv,
        out_dir=out_dir,
        inputs=request.inputs,
        aliases=request.aliases,
        scratch=request.scratch,
        labels={
            "run": ctx.run_id,
            "loop": place,
            "stage": step,
            "run_dir": str(ctx.run_dir),
            "executor": ctx.executor.name,
        },
        env={"RDAGENT_FT_NEEDS_GPU": "1"} if request.needs_gpu else {},
        deadline_unix=ctx.clock.deadline_unix(request.limit_s, ctx.reserve_s),
        needs_gpu=request.needs_gpu,
    )
    ctx.faults.hit(f"before-intent:{step}")
    ctx.journal.intend(loop, step, number, spec, request.part)
    ctx.faults.hit(f"after-intent:{step}")
    return Attempt(attempt_id=spec.attempt_id, number=number, status="intent", spec=spec)


def _launch_and_follow(ctx: RunContext, step: StepName, request: JobRequest, attempt: Attempt) -> None:
    handle = attempt.handle
    began_with = attempt.spec.labels.get("executor", ctx.executor.name)
    if began_with != ctx.executor.name:  # it may run there: to start it here could start it twice
        raise PreflightError(
            f"attempt {attempt.attempt_id} was started by the {began_with} executor",
            hint=f"resume with --executor {began_with}",
        )
    if handle is None:
        handle = ctx.executor.submit(attempt.spec)
        ctx.faults.hit(f"after-launch:{step}")
        ctx.journal.launched(attempt.attempt_id, handle)
        ctx.faults.hit(f"while-running:{step}")
    stopped = _follow(ctx, request, attempt.spec, handle)
    result = ctx.executor.collect(handle)
    run_is_over = stopped is not None or (result.reason == "deadline" and ctx.clock.expired(ctx.reserve_s))
    if run_is_over:
        # The run ended the job, not its own limit: the step stays unfinished and resumable.
        result = result.model_copy(update={"failure_class": "stopped", "reason": "run_stopped"})
    ctx.faults.hit(f"before-result:{step}")
    ctx.journal.ended(attempt.attempt_id, result)
    ctx.faults.hit(f"after-result:{step}")
    if run_is_over:
        raise stopped or StopRun("timeout")


def _follow(ctx: RunContext, request: JobRequest, spec: JobSpec, handle: JobHandle) -> StopRun | None:
    """Wait for the job's end, showing its metrics; return why the run must stop, if it must."""
    tail = None if request.metrics_name is None else JsonLinesTail(spec.out_dir / request.metrics_name)
    while ctx.executor.poll(handle).state == "running":
        for line in tail.read_new()[-1:] if tail is not None else ():
            ctx.progress.metrics(line)
        if ctx.stop.number is not None:
            ctx.executor.cancel(handle)
            return StopRun("interrupted")
        if ctx.clock.expired(ctx.reserve_s):
            ctx.executor.cancel(handle)
            return StopRun("timeout")
        time.sleep(POLL_S)
    return None
