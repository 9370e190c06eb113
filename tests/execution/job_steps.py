"""Small steps that tests of executors share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rdagent_ft.execution.port import Executor, JobHandle, JobResult, JobSpec

WAIT_S = 120.0


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at, "condition was not met in time"
        time.sleep(0.02)


def spec_of(folder: Path, code: str, **changes: object) -> JobSpec:
    """A job of Python code in `folder/job`; its attempt id is unique to the folder."""
    values: dict[str, object] = {
        "attempt_id": f"{folder.name}-{folder.parent.name}-000-train-1",
        "kind": "train",
        "argv": ("python", "-c", code),
        "out_dir": folder / "job",
        "deadline_unix": time.time() + 120,
    }
    return JobSpec.model_validate(values | changes)


def finish(executor: Executor, handle: JobHandle) -> JobResult:
    wait_until(lambda: executor.poll(handle).state == "ended")
    return executor.collect(handle)


def run(executor: Executor, folder: Path, code: str, **changes: object) -> JobResult:
    return finish(executor, executor.submit(spec_of(folder, code, **changes)))
