"""Scoring in child processes: one question a line, a hard time limit for each, a new child after one.

Symbolic checkers can hang where no Python timeout reaches, use all memory, or insist on the main
thread. A child that is killed costs its item, never the run. Knows nothing of scorers; the child's
side is `line_server`. Standard library only, because rewards ask children from inside a training job.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import clean_text

START_LIMIT_S = 180.0
"""Importing a symbolic library on a loaded machine; not part of any item's limit."""

MAX_REPLY_BYTES = 1 << 20
MAX_WORKERS = 4
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class LineReply:
    """What became of one request. `value` is there when `outcome` is `answered`."""

    outcome: Literal["answered", "timeout", "crashed"]
    value: dict[str, Any] = field(default_factory=dict[str, Any])


def ask_all(
    module: str,
    requests: Sequence[dict[str, Any]],
    *,
    limit_s: float,
    n_workers: int = 2,
    environment: Mapping[str, str] | None = None,
) -> list[LineReply]:
    """Return one reply a request, in order, from children that run `python -m module`.

    An item over `limit_s` seconds, or that ends its child, costs that child and nothing else. Raises
    `JobError` with the child's last words when a child cannot start.
    """
    children = LineChildren(module, limit_s=limit_s, n_workers=n_workers, environment=environment)
    try:
        return children.ask(requests)
    finally:
        children.end()


class LineChildren:
    """Children that stay for further requests: what they import is imported once, not once a batch.

    Arguments as those of `ask_all`. They start when they are first needed, and go with `end`, with this
    object, or with the process. One `ask` at a time.
    """

    def __init__(
        self,
        module: str,
        *,
        limit_s: float,
        n_workers: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        n = max(1, min(n_workers, MAX_WORKERS))
        self._children = [_Child(module, environment or {}, limit_s) for _ in range(n)]
        self.end = weakref.finalize(self, _end_all, self._children)

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[LineReply]:
        """Return one reply a request, in order. Raises `JobError` when a child cannot start."""
        n = min(len(self._children), len(requests))
        replies: list[LineReply] = [LineReply(outcome="crashed")] * len(requests)

        def work(first: int) -> None:
            for number in range(first, len(requests), n):
                replies[number] = self._children[first].ask(requests[number])

        if requests:
            with ThreadPoolExecutor(n) as pool:
                for future in [pool.submit(work, first) for first in range(n)]:
                    future.result()
        return replies


class _Child:
    """One child process, started when it is first needed and again after it was lost."""

    def __init__(self, module: str, environment: Mapping[str, str], limit_s: float) -> None:
        self._module, self._limit_s = module, limit_s
        self._environment = _environment(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> LineReply:
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process, self._limit_s)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            self.end()
            return LineReply(outcome="timeout")
        value = _object(line)
        if value is None:
            self.end()
            return LineReply(outcome="crashed")
        return LineReply(outcome="answered", value=value)

    def end(self) -> None:
        """Kill the child with everything it started, and free what belongs to it."""
        process, self._process = self._process, None
        if process is None:
            return
        # Its own session: helpers it forked go too. It is unreaped, so the number is still its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, self._errors):
            if stream is not None:
                _close(stream)

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment,
            start_new_session=True,
        )
        try:
            first = _object(_read_line(process, START_LIMIT_S))
        except TimeoutError:
            first = None
        if first is None:
            self._errors.seek(0)
            words = clean_text(self._errors.read(1 << 16).decode("utf-8", "replace")).strip()
            self.end()
            raise JobError(f"the scoring process {self._module} did not start: {words[-600:] or 'no word'}")
        return process


def _end_all(children: Sequence[_Child]) -> None:
    for child in children:
        child.end()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the child's whole environment: no key or token of the caller reaches it."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Not resolved: a job's path may be a folder that holds a link to this package and nothing else.
    package_root = str(Path(__file__).absolute().parents[2])
    return {
        **passed,
        "PYTHONPATH": package_root,
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **extra,
    }


def _read_line(process: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """Return the next line without its end; b"" when the child ended or writes without end."""
    assert process.stdout is not None
    deadline, line = time.monotonic() + limit_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                raise TimeoutError
            piece = os.read(process.stdout.fileno(), 1 << 16)
            line += piece
            if not piece or len(line) > MAX_REPLY_BYTES:
                return b""
    return line.rstrip(b"\n")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:  # unsent bytes to a child that is gone
        return
