"""Ending a container that must end: deadline, stall, too much output, or a cancel.

The steps are those of the local executor: a stack dump where the job can give one, SIGTERM, SIGKILL.
All are signals to the first process: nothing is ever run inside (`docker_profile.LAUNCHER` says why).
The reason is kept on disk before the first step, so that a controller that dies in between still
tells the truth about the end.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from rdagent_ft.errors import RdagentFtError
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_judge import StopReason
from rdagent_ft.execution.docker_profile import Limits
from rdagent_ft.values import write_json

STOP_NAME = "stop.json"
STACK_DUMP_S = 1.0
OUTPUT_LOOK_S = 10.0
MAX_TOP_ENTRIES = 2_000


class Watch:
    """One controller's watch over one running container."""

    def __init__(
        self, engine: Engine, name: str, out_dir: Path, control: Path, *, deadline_unix: float,
        stall_timeout_s: float | None, holds_too_much: Callable[[], bool], grace_s: float,
    ) -> None:  # fmt: skip
        self._engine, self._name = engine, name
        self._out_dir, self._control = out_dir, control
        self._deadline_unix = deadline_unix
        self._stall_timeout_s = stall_timeout_s
        self._holds_too_much = holds_too_much
        self._grace_s = grace_s
        self._began = time.monotonic()
        self._asked_at: float | None = None
        self._n_steps_taken = 0
        self._next_look = 0.0

    def look(self, last_log_write: float) -> None:
        """Stop the container when it is time, one step a call. `last_log_write`: monotonic seconds."""
        if read_stop(self._control) is None:
            cause = self._cause(last_log_write)
            if cause is None:
                return
            keep_stop(self._control, cause)
        self.advance()

    def advance(self) -> None:
        """Take the next step of stopping, when its time has come."""
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        waited_s = now - self._asked_at
        dump_s = 0.0 if read_stop(self._control) == "cancelled" else STACK_DUMP_S
        if self._n_steps_taken == 0:
            if dump_s:
                self._engine.signal(self._name, "SIGUSR1")  # the launcher passes it on
            self._n_steps_taken = 1
        if self._n_steps_taken == 1 and waited_s >= dump_s:
            self._engine.signal(self._name, "SIGTERM")
            self._n_steps_taken = 2
        elif self._n_steps_taken == 2 and waited_s >= dump_s + self._grace_s:
            self._engine.signal(self._name, "SIGKILL")

    def _cause(self, last_log_write: float) -> StopReason | None:
        if time.time() >= self._deadline_unix:
            return "deadline"
        now = time.monotonic()
        if self._stall_timeout_s is not None:
            quiet_since = max(last_log_write, self._began)
            if now - quiet_since >= self._stall_timeout_s:
                quiet_since = max(quiet_since, _newest_change(self._out_dir, now))
                if now - quiet_since >= self._stall_timeout_s:
                    return "stalled"
        if now >= self._next_look:
            self._next_look = now + OUTPUT_LOOK_S
            if self._holds_too_much():
                return "output_limit"
        return None


def keep_stop(control: Path, reason: StopReason) -> None:
    """Keep why a job is being ended; the first reason stays."""
    if read_stop(control) is None:
        write_json(control / STOP_NAME, {"reason": reason, "asked_unix": time.time()})


def read_stop(control: Path) -> StopReason | None:
    """Return why a job is being ended; None when it is not."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = str(json.loads((control / STOP_NAME).read_text(encoding="utf-8"))["reason"])
        return next((reason for reason in get_args(StopReason) if reason == found), None)
    return None


def stop_and_wait(engine: Engine, name: str, watch: Watch, timeout_s: float) -> None:
    """Advance a stop until the container has ended. Raises `RdagentFtError` when it does not."""
    give_up_at = time.monotonic() + timeout_s
    while (found := engine.inspect(name)) is not None and found["State"].get("Running"):
        watch.advance()
        if time.monotonic() > give_up_at:
            raise RdagentFtError(f"container {name} does not end", hint="restart the Docker engine")
        time.sleep(0.05)


def output_is_too_much(folder: Path, limits: Limits) -> bool:
    """Return whether a job's folder holds more bytes on disk or more files than it may.

    Counts allocated blocks, so a sparse file counts for what it really takes. Follows no link. A folder
    that we may not look into, or that lies deeper than any path reaches, is too much: what a job hides
    cannot be counted.
    """
    n_files, n_bytes = 0, 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    n_files += 1
                    if n_files > limits.n_output_files or n_bytes > limits.output_bytes:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        n_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}:
                return True
            continue  # it vanished meanwhile
    return n_bytes > limits.output_bytes


def disk_is_almost_full(folder: Path, limits: Limits) -> bool:
    """Return whether the disk under a job's folder has less free space than jobs must leave.

    Space of files that were deleted and are still open shows nowhere else.
    """
    try:
        return shutil.disk_usage(folder).free < limits.min_free_bytes
    except OSError:
        return False


def _newest_change(folder: Path, now: float) -> float:
    """Return the monotonic time of the newest change of a file at the top of the job's folder.

    A time in the future does not count: a job could set one and never look stalled again.
    """
    newest, latest = 0.0, time.time() + 1.0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in itertools.islice(entries, MAX_TOP_ENTRIES):
            with contextlib.suppress(OSError):
                changed = entry.stat(follow_symlinks=False).st_mtime
                newest = max(newest, changed if changed <= latest else 0.0)
    return now - max(0.0, time.time() - newest)
