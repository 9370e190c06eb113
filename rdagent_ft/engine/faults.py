"""Failpoints for crash tests: `FT_FAULT=point:n:action` makes the n-th pass of a point die.

Points are named in the code as `faults.hit("after-intent:train")`. Actions: `kill` (SIGKILL to
ourselves, what a power cut looks like) and `raise`. Without the variable every call is a no-op.
Several faults are separated by commas.
"""

from __future__ import annotations

import os
import signal

from rdagent_ft.errors import UserError


class Faults:
    """The failpoints of one process."""

    def __init__(self, text: str | None) -> None:
        self._counts: dict[str, int] = {}
        self._armed: dict[tuple[str, int], str] = {}
        for part in filter(None, (text or "").split(",")):
            point, _, rest = part.rpartition(":")
            point, _, number = point.rpartition(":")
            if not point or not number.isdigit() or rest not in {"kill", "raise"}:
                raise UserError(f"FT_FAULT {part!r} is not point:n:kill|raise")
            self._armed[point, int(number)] = rest

    def hit(self, point: str) -> None:
        """Die here if this pass of `point` is armed."""
        if not self._armed:
            return
        self._counts[point] = self._counts.get(point, 0) + 1
        action = self._armed.get((point, self._counts[point]))
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise RuntimeError(f"failpoint {point}")
