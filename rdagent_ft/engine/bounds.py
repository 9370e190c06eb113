"""When to stop: the bounds of one invocation, and the clock that jobs are cut by.

`--loop_n` counts loops of the whole run, so that `--loop_n 2` and a resume with `--loop_n 4` equal
`--loop_n 4` at once. `--step_n` and `--timeout` bound one invocation: a stepping user repeats
`--step_n 1`, and a night's `--timeout 8h` starts afresh each night.
"""

from __future__ import annotations

import re
import time
from typing import Literal

from rdagent_ft.errors import UserError
from rdagent_ft.values import Frozen

StopReason = Literal["loop_n", "step_n", "timeout", "budget", "interrupted", "failures"]

RESERVE_SHARE = 0.3
"""A timeout keeps time for the closing (test, merge) only when that needs at most this share of it;
a shorter timeout is a try-out that stops without a claim, resumable."""

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|sec|s)?", re.IGNORECASE)
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "sec": 1.0, "": 1.0}


class Bounds(Frozen):
    """The bounds of one invocation; None means unbounded."""

    loop_n: int | None = None
    step_n: int | None = None
    timeout_s: float | None = None


class StopRun(Exception):
    """Raised inside a step to end the invocation (control flow, no error); the step can be resumed."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


def parse_duration_s(text: str) -> float:
    """Return seconds for `2h`, `90m`, `1h30m`, `45s`, `3600`. Raises `UserError` on anything else."""
    stripped = text.strip().lower().replace(" ", "")
    seconds, at = 0.0, 0
    while at < len(stripped):
        match = _PART.match(stripped, at)
        if match is None:
            break
        seconds += float(match.group(1)) * _UNIT_S[match.group(2) or ""]
        at = match.end()
    if not stripped or at != len(stripped) or seconds <= 0:
        raise UserError(f"--timeout {text!r} is not a duration", hint="write 2h, 90m, 1h30m or seconds: 3600")
    return seconds


class Clock:
    """Time of one invocation. Monotonic for durations, wall clock only for job deadlines."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._start = time.monotonic()

    def active_s(self) -> float:
        """Return seconds since the invocation began."""
        return time.monotonic() - self._start

    def left_s(self) -> float | None:
        """Return seconds until the timeout, never below 0; None without one."""
        return None if self.timeout_s is None else max(0.0, self.timeout_s - self.active_s())

    def expired(self, reserve_s: float = 0.0) -> bool:
        """Return whether no time is left beyond `reserve_s`."""
        left = self.left_s()
        return left is not None and left <= reserve_s

    def deadline_unix(self, limit_s: float, reserve_s: float = 0.0) -> float:
        """Return the absolute end (Unix seconds) of a job that may take `limit_s` at most."""
        left = self.left_s()
        seconds = limit_s if left is None else min(limit_s, max(0.5, left - reserve_s))
        return time.time() + seconds

    def reserve_s(self, closing_s: float) -> float:
        """Return the time to keep for a closing that needs `closing_s`; 0 when it cannot be kept."""
        if self.timeout_s is None or closing_s > RESERVE_SHARE * self.timeout_s:
            return 0.0
        return closing_s
