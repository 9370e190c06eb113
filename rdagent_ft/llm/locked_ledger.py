"""One ledger for several threads: every booking and look-up waits for the one before it.

A run's journal has one connection, whose transactions must not overlap. This lock orders the calls
that come through it; it does not order what the owner of the ledger does beside them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from rdagent_ft.llm.port import Ledger, LedgerEntry, Usage


class LockedLedger:
    """A `Ledger` that passes each call on under one lock, and counts the dollars of its own calls."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._booked_usd: dict[int, float] = {}

    @property
    def spent_usd(self) -> float:
        """Dollars booked through this object: settled, plus reservations that stay open."""
        with self._lock:
            return sum(self._booked_usd.values())

    def find(self, key: str) -> LedgerEntry | None:
        """See `Ledger.find`."""
        with self._lock:
            return self._ledger.find(key)

    def reserve(self, entry: LedgerEntry, limit_usd: float | None) -> int:
        """See `Ledger.reserve`."""
        with self._lock:
            number = self._ledger.reserve(entry, limit_usd)
            self._booked_usd[number] = entry.reserved_usd
            return number

    def settle(
        self, number: int, usage: Usage, reply: str | None, status: Literal["settled", "void"]
    ) -> None:
        """See `Ledger.settle`."""
        with self._lock:
            self._ledger.settle(number, usage, reply, status)
            self._booked_usd[number] = usage.usd if status == "settled" else 0.0

    def ordered(self, note: Callable[[str], None]) -> Callable[[str], None]:
        """Return `note` under the same lock: it may write where the ledger writes."""

        def note_in_turn(text: str) -> None:
            with self._lock:
                note(text)

        return note_in_turn
