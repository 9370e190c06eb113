"""Small real jobs that show what a sandbox on this engine is like. For `doctor`; a run needs none.

They go through the same executor as every other job, so what they meet is what a training will meet.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_json_file, read_text_tail
from rdagent_ft.execution.port import Executor, JobResult, JobSpec
from rdagent_ft.execution.probe_job import PROBE_NAME
from rdagent_ft.values import Frozen

PROBE_S = 60.0
POLL_S = 0.1
OUTPUT_CHARS = 20_000


class Sandbox(Frozen):
    """What a job found, and who owns its file outside.

    Attributes:
        uid, gid: of the job, as it sees itself.
        shm_bytes: size of its /dev/shm.
        root_free_bytes: free space of the disk below its `/`, which is the engine's.
        owner_uid, owner_gid: of the file that it wrote, as we see it.
    """

    uid: int
    gid: int
    shm_bytes: int
    root_free_bytes: int
    owner_uid: int
    owner_gid: int


class Small(Frozen):
    """How a small job ended, and all it printed (bounded)."""

    result: JobResult
    output: str


def probe_sandbox(executor: Executor, root: Path) -> Sandbox:
    """Run one job in a folder below `root` and return what it found.

    Raises `JobError` with the end of the job's output when it could not write its file.
    """
    with _folder(root) as folder:
        argv = ("python", "-m", "rdagent_ft.execution.probe_job")
        small = _run(executor, folder, argv, needs_gpu=False)
        if small.result.failure_class != "ok":
            raise JobError(f"a job ended with {how_it_ended(small)}")
        found = read_json_file(folder / "job", PROBE_NAME)
        status = (folder / "job" / PROBE_NAME).lstat()
        return Sandbox.model_validate({**found, "owner_uid": status.st_uid, "owner_gid": status.st_gid})


def run_small_job(executor: Executor, root: Path, argv: tuple[str, ...], *, needs_gpu: bool) -> Small:
    """Run one command as a job in a folder below `root`, which is removed again."""
    with _folder(root) as folder:
        return _run(executor, folder, argv, needs_gpu=needs_gpu)


def how_it_ended(small: Small) -> str:
    """Return the end of a job in one line: class, reason, and the last line of its output."""
    lines = [line.strip() for line in small.output.splitlines() if line.strip()]
    said = f": {lines[-1][:200]}" if lines else ""
    return f"{small.result.failure_class}/{small.result.reason}{said}"


def _run(executor: Executor, folder: Path, argv: tuple[str, ...], *, needs_gpu: bool) -> Small:
    spec = JobSpec(
        attempt_id=f"probe-{secrets.token_hex(6)}",
        kind="train",
        argv=argv,
        out_dir=folder / "job",
        labels={"run": "doctor", "run_dir": str(folder)},
        deadline_unix=time.time() + PROBE_S,
        needs_gpu=needs_gpu,
    )
    handle = executor.submit(spec)
    try:
        while executor.poll(handle).state == "running":
            time.sleep(POLL_S)
    finally:  # also when a person interrupts: nothing may be left
        executor.cancel(handle)
        result = executor.collect(handle)
    return Small(result=result, output=read_text_tail(executor.log_path(handle), OUTPUT_CHARS))


@contextlib.contextmanager
def _folder(root: Path) -> Generator[Path]:
    """Yield a new folder below `root`, or below the nearest parent of it that exists."""
    root = root.absolute()
    while not root.is_dir():
        root = root.parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=root))
    except OSError as error:
        raise JobError(f"{root} cannot be written: {os.strerror(error.errno or 0)}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
