"""A ledger in memory: for single calls outside a run, and for tests. A crash loses it."""

from __future__ import annotations

import threading
from typing import Literal

from rdagent_ft.errors import BudgetError
from rdagent_ft.llm.port import LedgerEntry, Usage


class MemoryLedger:
    """Keeps entries in a list; safe for several threads."""

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self._lock = threading.Lock()

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """All entries in booking order."""
        with self._lock:
            return tuple(self._entries)

    @property
    def spent_usd(self) -> float:
        """Settled dollars plus open reservations."""
        return sum(_booked_usd(entry) for entry in self.entries)

    def find(self, key: str) -> LedgerEntry | None:
        """Return the newest entry of this key that has a reply, or None."""
        return next((e for e in reversed(self.entries) if e.key == key and e.reply is not None), None)

    def reserve(self, entry: LedgerEntry, limit_usd: float | None) -> int:
        """Book `entry`; return its number. Raises `BudgetError` when the sum could pass the limit."""
        with self._lock:
            spent = sum(_booked_usd(booked) for booked in self._entries)
            if limit_usd is not None and spent + entry.reserved_usd > limit_usd:
                raise BudgetError(
                    f"the next LLM call may cost {entry.reserved_usd:.4f} $ and {spent:.4f} $ of "
                    f"{limit_usd:.4f} $ are booked, so it was not sent"
                )
            self._entries.append(entry.model_copy(update={"status": "reserved"}))
            return len(self._entries) - 1

    def settle(
        self, number: int, usage: Usage, reply: str | None, status: Literal["settled", "void"]
    ) -> None:
        """Close reservation `number`."""
        with self._lock:
            update = {"status": status, "usage": usage, "reply": reply}
            self._entries[number] = self._entries[number].model_copy(update=update)


def _booked_usd(entry: LedgerEntry) -> float:
    if entry.status == "void":
        return 0.0
    return entry.usage.usd if entry.status == "settled" else entry.reserved_usd
