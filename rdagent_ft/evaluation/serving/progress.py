"""Telling a hang from a long generation: a server that works produces tokens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from rdagent_ft.evaluation.serving.unix_http import Reply

_TOKENS = re.compile(rb"^vllm:generation_tokens_total(?:\{[^}\n]*\})? ([0-9.eE+-]+)\s*$", re.MULTILINE)


def generated_tokens(metrics: Reply) -> int | None:
    """Return the tokens generated since the server started, from `/metrics`; None where it names none."""
    found = _TOKENS.findall(metrics.body) if metrics.status == 200 else []
    return int(sum(float(value) for value in found)) if found else None


class ProgressClock:
    """Decides that a server with work to do hangs. Feed it the token count, every few seconds.

    A runaway generation still counts up, so it is no hang but a result. Make a new one when work starts:
    an idle server does not count.

    Args:
        limit_s: how long the count may stand still; the reference's default is 300 s.
        now: a monotonic clock, seconds.
    """

    def __init__(self, limit_s: float = 300.0, now: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._now = now
        self._last: int | None = None
        self._since = now()

    def hangs(self, n_tokens: int | None) -> bool:
        """Return whether the count stood still for too long. None (no answer) is no progress.

        A count that fell belongs to a restarted server: that is progress.
        """
        if n_tokens is not None and n_tokens != self._last:
            self._last, self._since = n_tokens, self._now()
        return self._now() - self._since >= self._limit_s
