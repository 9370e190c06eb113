"""Asking models in a job with lm-eval's hf backend, watched as the benchmarking guide says.

Silence for a minute is told once, progress every half minute, and at the end of the time the job is
stopped; tasks that were finished by then are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import Answer
from rdagent_ft.evaluation.lm_eval_harness import LmEvalHarness, adapters_without_effect, parse_finished
from rdagent_ft.evaluation.port import EvalRequest
from rdagent_ft.execution.outputs import clean_text, read_log
from rdagent_ft.execution.port import Executor, JobHandle, JobSpec
from rdagent_ft.execution.tail import JsonLinesTail
from rdagent_ft.training.failures import classify
from rdagent_ft.training.plan import read_failure

WARN_AFTER_S = 60.0
PROGRESS_EVERY_S = 30.0
POLL_S = 0.2
LIFE_S = 30 * 86_400.0
"""The deadline of a job without a time limit."""

Answers = dict[tuple[str, str, str], list[Answer]]


class Asked(NamedTuple):
    """What was answered. `failure` says why something is missing; `timed_out` when the time was up."""

    answers: Answers
    seconds: float
    failure: str | None = None
    timed_out: bool = False


def ask_in_job(
    executor: Executor,
    request: EvalRequest,
    out_dir: Path,
    name: str,
    *,
    timeout_s: float | None,
    needs_gpu: bool,
    notice: Callable[[str], None],
) -> Asked:
    """Run the job to its end or to the end of the time; never raises for what the job did."""
    out_dir.mkdir(parents=True, exist_ok=True)
    argv = LmEvalHarness().prepare(request, out_dir)
    inputs = {f"model-{n}": model.path for n, model in enumerate(request.models)}
    inputs |= {f"adapter-{n}": m.adapter for n, m in enumerate(request.models) if m.adapter is not None}
    started = time.time()
    spec = JobSpec(
        attempt_id=name,
        kind="evaluate",
        argv=argv,
        out_dir=out_dir,
        inputs=inputs | {"items": request.tasks[0].items_file.parent},
        labels={"stage": "benchmark", "run_dir": str(out_dir)},
        env={"RDAGENT_FT_NEEDS_GPU": "1"} if needs_gpu else {},
        deadline_unix=started + (timeout_s or LIFE_S),
        needs_gpu=needs_gpu,
    )
    handle = executor.submit(spec)
    try:
        _follow(executor, handle, out_dir, timeout_s, notice)
    except BaseException:
        executor.cancel(handle)
        raise
    result = executor.collect(handle)
    seconds = result.ended_unix - result.started_unix
    timed_out = result.reason == "deadline"
    failure = classify(read_log(executor.log_path(handle)), result=result, failure_json=read_failure(out_dir))
    if failure is not None:
        message = f"{clean_text(failure.message)[:300]} [{failure.failure_class}]"
        return Asked(parse_finished(request, out_dir), seconds, message, timed_out)
    try:
        inert = adapters_without_effect(out_dir)
        if inert:
            return Asked({}, seconds, f"the adapter of {', '.join(inert)} changes no output")
        return Asked(LmEvalHarness().parse(request, out_dir), seconds)
    except JobError as error:
        return Asked(parse_finished(request, out_dir), seconds, clean_text(error.message)[:300])


def _follow(
    executor: Executor,
    handle: JobHandle,
    out_dir: Path,
    timeout_s: float | None,
    notice: Callable[[str], None],
) -> None:
    tail = JsonLinesTail(out_dir / "progress.jsonl")
    started = last_sign = last_told = time.monotonic()
    warned, done = False, "no answers yet"
    while executor.poll(handle).state == "running":
        time.sleep(POLL_S)
        now = time.monotonic()
        for line in tail.read_new()[-1:]:
            done = f"{line.get('done')}/{line.get('total')} answers ({line.get('role')}, {line.get('benchmark')})"
            last_sign, warned = now, False
        if now - last_sign > WARN_AFTER_S and not warned:
            notice(f"warning: no new answers for {now - last_sign:.0f} s")
            warned = True
        if now - last_told >= PROGRESS_EVERY_S:
            left = "" if timeout_s is None else f", {max(0.0, timeout_s - (now - started)):.0f} s left"
            notice(f"{done}, {now - started:.0f} s elapsed{left}")
            last_told = now
