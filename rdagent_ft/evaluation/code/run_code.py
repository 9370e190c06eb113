"""Running code cases in a container: the controller's side of the code job.

Programs that a model wrote are never executed with the user's rights: without containers this refuses
before anything is generated. What the job left is read as hostile input; a case without a believable
result is `not_run`, so that its answer is unscored, never wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.code.code_job import RESULTS_NAME
from rdagent_ft.evaluation.outside import CodeCase, CodeResult, CodeRunner
from rdagent_ft.execution.contained import Limits
from rdagent_ft.execution.outputs import clean_text, read_json_lines
from rdagent_ft.execution.port import Executor, JobResult, JobSpec
from rdagent_ft.values import Frozen, canonical_json, sha256_text, write_atomic

REQUEST_NAME = "request.json"
MAX_TRIES = 3
"""Of one batch, while its job ends for reasons of the machine; being stopped does not count."""
MAX_CASES = 2000
"""Of one job; more cases go into further jobs."""
LINE_BYTES = 8192
POLL_S = 0.2


class _Line(Frozen):
    """One line of the job's results."""

    index: Annotated[int, Field(ge=0)]
    outcome: Literal["passed", "failed", "timeout", "memory", "not_run"]
    detail: Annotated[str, Field(max_length=2000)] = ""
    seconds: Annotated[float, Field(ge=0, le=1e6)] = 0.0


def refuse_uncontained(executor_name: str, what: str = "the answers to humaneval and mbpp") -> None:
    """Raise `PreflightError` when an executor runs jobs with the user's rights."""
    if executor_name == "local":
        raise PreflightError(
            f"{what}: this is code that must run in a container, and the local executor has none",
            hint="use --executor docker, or leave these benchmarks out",
        )


def code_runner(
    executor: Executor,
    out_root: Path,
    *,
    name: str,
    deadline_unix: float,
    limits: Limits = Limits(),  # noqa: B008  (immutable)
    n_workers: int = 8,
    labels: dict[str, str] | None = None,
    between_polls: Callable[[], None] = lambda: None,
) -> CodeRunner:
    """Return what runs code cases as jobs of `executor`.

    Args:
        executor: must have containers.
        out_root: each job gets a folder below it.
        name: beginning of the attempt ids, unique in the run, e.g. `r-20261120-a1b2-003-code`.
        deadline_unix: absolute end of all of it; what was not run by then is `not_run`.
        limits: of one program.
        n_workers: programs at a time; at most one a core that the job has.
        labels: of the jobs.
        between_polls: called while a job runs; what it raises ends the job and is passed on.

    The same cases again, also after a crash, adopt the job that is there. Raises `PreflightError` for the
    local executor, before anything runs.
    """
    refuse_uncontained(executor.name)

    def run(cases: Sequence[CodeCase]) -> list[CodeResult]:
        found: list[CodeResult] = []
        for start in range(0, len(cases), MAX_CASES):
            batch = cases[start : start + MAX_CASES]
            request: dict[str, Any] = {
                "programs": [case.program for case in batch],
                "limits": limits._asdict(),
                "n_workers": n_workers,
            }
            found += _run_batch(batch, request)
        return found

    def _run_batch(cases: Sequence[CodeCase], request: dict[str, Any]) -> list[CodeResult]:
        text = canonical_json(request)
        key = sha256_text(text)[:12]
        number, n_infra = 1, 0
        while True:
            out_dir = (out_root / f"code-{key}-{number}").absolute()
            _place_request(out_dir, text)
            place = sha256_text(str(out_dir))[:8]
            spec = JobSpec(
                attempt_id=f"{name}-{key}-{place}-{number}",
                kind="evaluate",
                argv=("python", "-m", "rdagent_ft.evaluation.code.code_job", REQUEST_NAME),
                out_dir=out_dir,
                aliases={"/out": "out"},  # only containers can give one: the local executor refuses
                labels=labels or {},
                deadline_unix=deadline_unix,
            )
            ended = _run_job(executor, spec, between_polls)
            n_infra += ended.failure_class == "infra"
            if n_infra == MAX_TRIES or not _was_cut_short(ended, deadline_unix):
                break
            number += 1
        found = _read_results(out_dir, len(cases))
        return [_result(case, found.get(index), ended) for index, case in enumerate(cases)]

    return run


def _was_cut_short(ended: JobResult, deadline_unix: float) -> bool:
    """Return whether a job ended for no reason of its own, and there is time for another one.

    An adopted job may have been stopped with its run, or at the earlier deadline of that time.
    """
    if time.time() >= deadline_unix:
        return False
    early = ended.reason == "deadline" and ended.ended_unix < deadline_unix
    return early or ended.failure_class in {"infra", "stopped"}


def _place_request(out_dir: Path, text: str) -> None:
    """Make the job's folder with its request, whole or not at all; the job deletes what it has read."""
    if out_dir.exists():
        return
    part = out_dir.with_name(f"{out_dir.name}.part")
    write_atomic(part / REQUEST_NAME, text)
    part.rename(out_dir)


def _run_job(executor: Executor, spec: JobSpec, between_polls: Callable[[], None]) -> JobResult:
    handle = executor.submit(spec)
    ended = False
    try:
        while executor.poll(handle).state == "running":
            between_polls()
            time.sleep(POLL_S)
        ended = True
    finally:
        if not ended:
            executor.cancel(handle)
    return executor.collect(handle)


def _read_results(out_dir: Path, n_cases: int) -> dict[int, _Line]:
    """Return what the job found, by index; nothing where a line of it cannot be believed."""
    try:
        lines = read_json_lines(out_dir, RESULTS_NAME, LINE_BYTES * n_cases, n_cases)
        found = [_Line.model_validate(line) for line in lines]
    except (JobError, ValidationError):
        return {}
    by_index = {line.index: line for line in found if line.index < n_cases}
    return by_index if len(by_index) == len(found) else {}


def _result(case: CodeCase, line: _Line | None, ended: JobResult) -> CodeResult:
    if line is None:
        why = f"the job has no result of it ({ended.failure_class}: {ended.reason})"
        return CodeResult(case_id=case.case_id, outcome="not_run", detail=why)
    return CodeResult(case_id=case.case_id, outcome=line.outcome, detail=clean_text(line.detail))
