"""When to stop asking: money is over, the key is refused, or too many requests failed one after another."""

from __future__ import annotations

import threading

from rdagent_ft.evaluation.judge.values import UnscoredReason

MAX_CONSECUTIVE_FAILURES = 20
FATAL_KINDS = frozenset({"auth", "quota"})
"""Failures that waiting does not heal."""


class Breaker:
    """Counts failures over all threads of one judge. Once open it stays open."""

    def __init__(self, max_failures: int = MAX_CONSECUTIVE_FAILURES) -> None:
        self._max_failures = max_failures
        self._lock = threading.Lock()
        self._n_failures = 0
        self._reason: UnscoredReason | None = None
        self._detail = ""

    @property
    def open_reason(self) -> UnscoredReason | None:
        """`budget` or `stopped` when nothing may be asked any more, else None."""
        with self._lock:
            return self._reason

    @property
    def detail(self) -> str:
        """What opened it, in words; empty while it is closed."""
        with self._lock:
            return self._detail

    def succeeded(self) -> None:
        """Note a verdict: failures before it were no outage."""
        with self._lock:
            self._n_failures = 0

    def failed(self, kind: str, message: str) -> None:
        """Note a request that brought no verdict."""
        with self._lock:
            self._n_failures += 1
            if self._reason is None and (kind in FATAL_KINDS or self._n_failures >= self._max_failures):
                self._reason = "stopped"
                self._detail = f"{self._n_failures} requests in a row failed, the last one: {message}"

    def money_is_over(self, message: str) -> None:
        """Note that the next request could pass the limit."""
        with self._lock:
            if self._reason is None:
                self._reason, self._detail = "budget", message

    def stop(self) -> None:
        """Ask nothing more: the caller is being interrupted."""
        with self._lock:
            if self._reason is None:
                self._reason, self._detail = "stopped", "interrupted"
