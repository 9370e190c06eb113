"""OpenCompass as a family of processes that ends when it is told to, with nothing left behind.

OpenCompass starts a shell that starts a task that starts more; each inherits a marker in its
environment, and they share one session. Bounded in time here, because `executors` run jobs in
environments that have no OpenCompass.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.processes import MARKER, identify, kill_strays, marked, send
from rdagent_ft.values import Frozen

TICK_S = 0.1
TERM_GRACE_S = 5.0
Reason = Literal["exit", "timeout", "stopped"]


class ProcessEnd(Frozen):
    """How the processes ended: their own end (`exit_code`), the time limit or a wish to stop."""

    reason: Reason
    exit_code: int | None
    duration_s: float


def run_family(
    argv: tuple[str, ...],
    cwd: Path,
    env: dict[str, str],
    log: Path,
    timeout_s: float,
    should_stop: Callable[[], bool],
    each_tick: Callable[[], None],
    grace_s: float = TERM_GRACE_S,
) -> ProcessEnd:
    """Run a command in a session of its own and end its whole family before returning.

    Whatever it writes goes to `log`. At the time limit or on `should_stop` every process gets SIGTERM
    and, `grace_s` later, SIGKILL; so does what outlives the first process. An exception raised meanwhile (a
    signal to us) ends the family too. Raises `PreflightError` when the command cannot be started.
    """
    marker = uuid.uuid4().hex
    started = time.monotonic()
    with log.open("wb") as stream:
        try:
            child = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**env, MARKER: marker},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise PreflightError(
                f"cannot start {argv[0]}: {error.strerror}",
                hint="set FT_OPENCOMPASS_PYTHON to the Python of an environment that has OpenCompass",
            ) from None
        leader = identify(child.pid)
        reason: Reason = "exit"
        try:
            while child.poll() is None:
                if should_stop():
                    reason = "stopped"
                    break
                if time.monotonic() - started > timeout_s:
                    reason = "timeout"
                    break
                each_tick()
                time.sleep(TICK_S)
        finally:
            _end_family(child, marker, grace_s)
            kill_strays(leader, marker)
            child.wait()
    exit_code = child.returncode if reason == "exit" else None
    return ProcessEnd(reason=reason, exit_code=exit_code, duration_s=time.monotonic() - started)


def _end_family(child: subprocess.Popen[bytes], marker: str, grace_s: float) -> None:
    """Ask every process to end and give them a moment."""
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while time.monotonic() < deadline:
        alive = marked(marker) - {os.getpid()}
        for pid in alive - asked:
            send(pid, signal.SIGTERM)
        asked |= alive
        if child.poll() is not None and not alive:
            return
        time.sleep(TICK_S / 2)
