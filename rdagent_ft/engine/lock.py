"""One live process per run: `flock` on `run.lock`, released by the kernel when the process dies.

The file names its owner, so that a second process can be refused with a useful message. A lock is
never broken by age: clocks lie, the kernel does not.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rdagent_ft.errors import RunLockedError

LOCK_NAME = "run.lock"


@contextmanager
def hold_run(run_dir: Path) -> Generator[str]:
    """Hold the run's lock; yield the owner text. Raises `RunLockedError` that names the owner."""
    descriptor = os.open(run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip() or "an unknown process"
            raise RunLockedError(
                f"{run_dir.name} is owned by {owner}",
                hint="wait for it to end or stop it; `rdagent-ft status` shows what it does",
            ) from None
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner.encode(), 0)
        yield owner
    finally:
        os.close(descriptor)
