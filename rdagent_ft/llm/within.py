"""A hard deadline around a blocking call.

HTTP libraries time out per read, so a server that drips one byte a second holds a caller for ever.
Here the caller waits on a thread and leaves at the deadline; the thread is a daemon and ends with
its own timeouts. It does not undo what the call did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_within(function: Callable[[], T], timeout_s: float) -> T:
    """Return `function()`; raise what it raised, or `TimeoutError` after `timeout_s` seconds."""
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread, not swallowed
            failures.append(error)

    thread = threading.Thread(target=work, name="llm-request", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return results[0]
