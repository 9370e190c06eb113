"""One job outside of a run: started, followed to its end, stopped when the person interrupts.

For verbs that change files and belong to no loop (`merge`, `export`). Nothing is journaled or retried.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rdagent_ft.errors import JobError, PreflightError, UserError
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.execution.port import Executor, JobKind, JobSpec
from rdagent_ft.training.failures import classify
from rdagent_ft.training.plan import read_failure

POLL_S = 0.1
LIMIT_S = 6 * 3600.0
_NOT_HERE = frozenset({"env.missing_dep"})
"""Failures that say that the machine is not fit, not that the work went wrong."""


@contextmanager
def work_folder(parent: Path, name: str) -> Generator[Path]:
    """Give a new hidden folder in `parent`, for jobs whose result is renamed into place beside it.

    It goes away in the end; only after a failed job it stays, because the job's log is in it. Raises
    `UserError` when the parent cannot be written.
    """
    work = parent / f".{name}.{secrets.token_hex(4)}"
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {str(parent)!r}: {error.strerror}") from None
    try:
        yield work
    except JobError:
        raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work)


def run_single_job(
    executor: Executor,
    what: str,
    argv: Sequence[str],
    out_dir: Path,
    *,
    inputs: dict[str, Path],
    kind: JobKind = "merge",
    needs_gpu: bool = False,
    env: dict[str, str] | None = None,
) -> None:
    """Run a job in `out_dir` to a good end.

    Args:
        what: names the job in messages, e.g. `merge`.
        env: further variables; never a secret.

    Raises `PreflightError` when the job says that something is missing, `JobError` for any other bad end;
    the message names the job's log.
    """
    handle = executor.submit(
        JobSpec(
            attempt_id=f"{what}-{secrets.token_hex(4)}",
            kind=kind,
            argv=tuple(argv),
            out_dir=out_dir,
            inputs=inputs,
            env={**(env or {}), **({"RDAGENT_FT_NEEDS_GPU": "1"} if needs_gpu else {})},
            deadline_unix=time.time() + LIMIT_S,
            needs_gpu=needs_gpu,
        )
    )
    try:
        while executor.poll(handle).state == "running":
            time.sleep(POLL_S)
    except BaseException:
        executor.cancel(handle)
        raise
    result = executor.collect(handle)
    log = executor.log_path(handle)
    failure = classify(read_log(log), result=result, failure_json=read_failure(out_dir))
    if failure is not None and failure.failure_class in _NOT_HERE:
        raise PreflightError(
            f"the {what} cannot be made here: {failure.message}",
            hint="jobs run in the train environment (FT_PYTHON, or the image of --executor docker)",
        )
    if failure is not None:
        message = f"the {what} failed: {failure.message} [{failure.failure_class}]"
        raise JobError(message, hint=f"{failure.fix + '; ' if failure.fix else ''}its log is {log}")
    if result.failure_class != "ok":
        raise JobError(
            f"the {what} failed ({result.reason}, exit code {result.exit_code})", hint=f"see {log}"
        )
