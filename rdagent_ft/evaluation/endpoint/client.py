"""The evaluation job as a process: started in a session of its own, looked at, and ended for certain.

A session and a marker in its environment, so that whatever the job started can be found and killed
with it, also what ignores SIGTERM or left the process group. Nothing is ever found by name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.evaluation.endpoint.ends import END_PREFIX, PARENT_VARIABLE
from rdagent_ft.execution.outputs import read_text_tail
from rdagent_ft.execution.processes import MARKER, ProcessId, handles, identify, kill_strays, send

LOG_NAME = "client.log"
_STACK_WAIT_S = 1.0


class Client(NamedTuple):
    """A started job. `leader` is None when it was gone before it could be identified."""

    process: subprocess.Popen[bytes]
    leader: ProcessId | None
    marker: str
    log: Path


def start_client(argv: Sequence[str], out_dir: Path) -> Client:
    """Start the job in `out_dir`, its output appended to `client.log` there. Raises `OSError`."""
    marker = f"evaluation-{uuid.uuid4().hex}"
    log = out_dir / LOG_NAME
    package_parent = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        MARKER: marker,
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH")))),
    }
    with log.open("ab") as stream:
        process = subprocess.Popen(
            argv,
            cwd=out_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Client(process, identify(process.pid), marker, log)


def dump_stack(client: Client) -> None:
    """Ask the job to write the stacks of its threads into its log; nothing when it cannot yet."""
    if client.process.poll() is None and handles(client.process.pid, signal.SIGUSR1):
        before = _size(client.log)
        send(client.process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _STACK_WAIT_S
        while time.monotonic() < deadline and _size(client.log) == before:
            time.sleep(0.02)


def stop_client(client: Client, grace_s: float) -> int:
    """End the job and all it started: SIGTERM to its group, `grace_s` later SIGKILL.

    Returns the exit code (negative: the signal). Nothing of the job's session is left afterwards.
    """
    if client.process.poll() is None:
        _signal_group(client, signal.SIGTERM)
        try:
            client.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            _signal_group(client, signal.SIGKILL)
    code = client.process.wait()
    kill_strays(client.leader, client.marker)
    return code


def last_words(client: Client) -> str:
    """Return what the job said of its own end, or the last line of its log; "" for an empty log."""
    lines = [line for line in read_text_tail(client.log).splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(END_PREFIX):
            return line.removeprefix(END_PREFIX).split(": ", 1)[-1]
    return lines[-1] if lines else ""


def _signal_group(client: Client, number: signal.Signals) -> None:
    try:
        os.killpg(client.process.pid, number)  # not yet waited for: the number is still its own
    except ProcessLookupError:
        return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
