"""A job's log of bounded size: its beginning and its end survive any flood.

Standard library only: the local supervisor imports this without site-packages.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import IO

KEPT_TAIL_BYTES = 65_536


@dataclass
class BoundedLog:
    """Appends to a file up to a bound; past it keeps only the newest bytes for the end of the file."""

    stream: IO[bytes]
    max_bytes: int
    n_written: int = 0
    n_dropped: int = 0
    last_write: float = field(default_factory=time.monotonic)
    _tail: deque[bytes] = field(default_factory=deque)
    _tail_bytes: int = 0

    def write(self, piece: bytes) -> None:
        """Take one piece of output."""
        self.last_write = time.monotonic()
        room = self.max_bytes - self.n_written
        kept, rest = piece[:room], piece[room:]
        if kept:
            try:
                self.stream.write(kept)
            except OSError:  # a full disk must not end the supervision; the bytes count as dropped
                kept, rest = b"", piece
            self.n_written += len(kept)
        if rest:
            self.n_dropped += len(rest)
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) >= KEPT_TAIL_BYTES:
                self._tail_bytes -= len(self._tail.popleft())

    def close(self) -> None:
        """Write the marker and the newest dropped bytes, so that a last traceback survives a flood."""
        if self.n_dropped:
            tail = b"".join(self._tail)[-KEPT_TAIL_BYTES:]
            lost = self.n_dropped - len(tail)
            with contextlib.suppress(OSError):
                self.stream.write(f"\n[log bounded: {lost} bytes left out here]\n".encode() + tail)
        self.stream.close()
