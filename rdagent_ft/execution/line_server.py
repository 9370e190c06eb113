"""The child's side of `line_worker`: answer one JSON line after another on a private pipe.

Standard library only. What a library prints must not mix with answers, so the real standard output is
kept for answers and `print` goes to standard error. Catches nothing: an item that raises ends the
process, and the parent counts it as crashed and starts another.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

READY = {"ready": True}


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], *, max_memory_bytes: int, cpu_s: float) -> None:
    """Answer requests from standard input until it ends; the first line out says that we are ready.

    `cpu_s` bounds the CPU time of one item from inside, so that a child whose parent died ends by
    itself; `max_memory_bytes` bounds its address space.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    _send(replies, READY)
    for line in sys.stdin.buffer:
        # SIGPROF ends a process that has no handler for it.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        reply = answer(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(replies, reply)


def _send(replies: Any, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()
