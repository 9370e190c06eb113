"""Several paid requests at once under one limit: who does not fit beside the others waits for its turn.

A reservation is an upper bound, many times what a verdict costs. Without waiting, four requests in
flight would end a budget that is still good for hundreds, one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from rdagent_ft.errors import BudgetError

T = TypeVar("T")
MAX_ROUNDS = 4
"""Threads that wake together may get in each other's way again; after so many rounds the money is over."""


class Turns:
    """Counts requests in flight over all threads of one judge."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_sending = 0

    def send(self, request: Callable[[], T]) -> T:
        """Return `request()`. Its `BudgetError` is raised when no other reservation was in its way."""
        for n_round in range(MAX_ROUNDS):
            with self._changed:
                n_others = self._n_sending
                self._n_sending += 1
            try:
                return request()
            except BudgetError:
                if n_round + 1 == MAX_ROUNDS:
                    raise
                with self._changed:
                    if n_others == 0 and self._n_sending == 1:
                        raise
            finally:
                with self._changed:
                    self._n_sending -= 1
                    self._changed.notify_all()
            with self._changed:
                self._changed.wait_for(lambda: self._n_sending == 0)
        raise AssertionError("unreachable: the last round returns or raises")
