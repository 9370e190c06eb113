"""Running one hostile Python program inside a job's container, and judging how it ended.

Standard library only: it runs in any image. The program's process is `program_child`; here is what it
cannot reach: the clock, the nonce, the bound of its output. It belongs into a container: against the
machine itself the filter alone is no promise.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.execution.program_child import AT_END, NONCE_BYTES, SET_UP
from rdagent_ft.execution.syscall_filter import filter_bytes

Outcome = Literal["passed", "failed", "timeout", "memory", "not_run"]
TAIL_BYTES = 4096
DETAIL_CHARS = 300
_CHILD = Path(__file__).with_name("program_child.py")
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set must not decide a score
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Limits(NamedTuple):
    """What one program may use: seconds of wall clock, address space, bytes that it prints.

    15 s is the usual limit of code benchmarks with slack for a busy machine. There is no limit of
    processes: the filter allows none, and RLIMIT_NPROC would count the user's other work as well.
    """

    wall_s: float = 15.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 20
    file_bytes: int = 1 << 20


class Ended(NamedTuple):
    """How a program ended; `detail` is the last line that it printed, or our reason."""

    outcome: Outcome
    detail: str
    seconds: float


class _Watched(NamedTuple):
    """What was seen of a process.

    Attributes:
        said: the beginning of what it told us over its pipe.
        closed: it closed that pipe by itself, in time, usually by ending.
        flooded: it printed more than it may.
        proven: it sent the nonce back.
        tail: the end of what it printed.
    """

    said: bytes = b""
    closed: bool = False
    flooded: bool = False
    proven: bool = False
    tail: bytes = b""


def run_program(program: str, limits: Limits) -> Ended:
    """Run a program to its end or its limit; nothing of it is left afterwards.

    `not_run` means that the walls could not be put up, so that not one line of it was executed.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as ours:
        with contextlib.ExitStack() as theirs:  # closed here once the process has its own
            from_job, to_child = os.pipe()
            theirs.callback(os.close, from_job)
            ours.callback(os.close, to_child)
            from_child, to_job = os.pipe()
            theirs.callback(os.close, to_job)
            ours.callback(os.close, from_child)
            folder = ours.enter_context(tempfile.TemporaryDirectory(prefix="program-"))
            process = _start(folder, from_job, to_job)
        seen = _Watched()
        try:
            _send(to_child, _order(program, limits))
            seen = _watch(process, to_child, from_child, started + limits.wall_s, limits.output_bytes)
        finally:
            code = _end(process, patience_s=1.0 if seen.closed else 0.0)
    outcome, detail = _judge(seen, code, limits)
    return Ended(outcome, detail[:DETAIL_CHARS], time.monotonic() - started)


def usable_workers(n_asked: int) -> int:
    """Return how many programs may run at a time: one a core, so that none waits its own time away.

    A container's share of cores shows in no affinity; its `OMP_NUM_THREADS` is that share.
    """
    share = os.environ.get("OMP_NUM_THREADS", "")
    n_cores = len(os.sched_getaffinity(0))
    return max(1, min(n_asked, n_cores, int(share) if share.isdecimal() else n_cores))


def run_surely(program: str, limits: Limits) -> Ended:
    """Run a program; once more when the machine, not the program, was in the way."""
    ended = Ended("not_run", "", 0.0)
    for pause_s in (0.0, 1.0):
        time.sleep(pause_s)
        try:
            ended = run_program(program, limits)
        except OSError as error:
            ended = Ended("not_run", f"the process could not be started: {error.strerror}", 0.0)
        if ended.outcome != "not_run":
            break
    return ended


def _start(folder: str, from_job: int, to_job: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-P", "-s", "-B", "-X", "utf8", str(_CHILD), str(from_job), str(to_job)]
    return subprocess.Popen(
        argv, cwd=folder, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, pass_fds=(from_job, to_job),
    )  # fmt: skip


def _order(program: str, limits: Limits) -> bytes:
    order = {
        "program": program,
        "filter": filter_bytes().hex(),
        "memory_bytes": limits.memory_bytes,
        "cpu_s": int(limits.wall_s) + 1,
        "file_bytes": limits.file_bytes,
    }
    return json.dumps(order).encode()


def _send(sink: int, content: bytes) -> None:
    """Hand the order over; a process that is gone already is judged by its end."""
    view = memoryview(struct.pack("<Q", len(content)) + content)
    while view:
        try:
            view = view[os.write(sink, view) :]
        except BrokenPipeError:
            return


def _watch(
    process: subprocess.Popen[bytes], sink: int, source: int, until: float, max_output: int
) -> _Watched:
    """Follow the process until it closes its pipe to us, floods us, or its time is over."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    said, tail, n_output, nonce = b"", b"", 0, b""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        selector.register(output, selectors.EVENT_READ)
        while selector.get_map().get(source) is not None:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return _Watched(said, tail=tail)
            for key, _ in selector.select(left_s):
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fd)
                elif key.fd == output:
                    n_output, tail = n_output + len(piece), (tail + piece)[-TAIL_BYTES:]
                else:
                    said = (said + piece)[: 2 + 2 * NONCE_BYTES]
            if n_output > max_output:
                return _Watched(said, flooded=True, tail=tail)
            if not nonce and said.startswith(SET_UP + AT_END):
                nonce = secrets.token_bytes(NONCE_BYTES)
                _write_nonce(sink, nonce)
    proven = bool(nonce) and hmac.compare_digest(said, SET_UP + AT_END + nonce)
    return _Watched(said, closed=True, proven=proven, tail=_rest(output, tail))


def _write_nonce(sink: int, nonce: bytes) -> None:
    try:
        os.write(sink, nonce)
    except BrokenPipeError:
        return  # it said that it came to its end and left: not proven


def _rest(output: int, tail: bytes) -> bytes:
    """Return the tail with what still waits in the pipe; the process has nothing more to say."""
    os.set_blocking(output, False)
    try:
        while piece := os.read(output, 1 << 16):
            tail = (tail + piece)[-TAIL_BYTES:]
    except BlockingIOError:
        pass
    return tail


def _end(process: subprocess.Popen[bytes], patience_s: float) -> int | None:
    """Wait for an ending process, else kill it; return its exit code, None when we ended it."""
    code: int | None = None
    try:
        code = process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


def _judge(seen: _Watched, code: int | None, limits: Limits) -> tuple[Outcome, str]:
    last = _last_line(seen.tail)
    if not seen.said.startswith(SET_UP):
        return "not_run", f"the process could not be confined: {last or 'it did not come up in time'}"
    if seen.flooded:
        return "failed", f"printed more than {limits.output_bytes} bytes"
    if not seen.closed or code == -signal.SIGXCPU:
        return "timeout", f"ran longer than {limits.wall_s:g} s"
    if seen.proven and code == 0:
        return "passed", ""
    if code == -signal.SIGKILL or last.startswith("MemoryError"):
        return "memory", f"needed more than {limits.memory_bytes >> 20} MiB"
    if code in {0, None}:
        return "failed", "ended before its tests did"
    return "failed", last or f"ended with {code}"


def _last_line(tail: bytes) -> str:
    lines = tail.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
