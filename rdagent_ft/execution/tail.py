"""Following a JSON lines file while a job writes it, for live progress.

Not a record: a line that does not parse is skipped. What counts is read at the end by `outputs`.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, cast


class JsonLinesTail:
    """Reads the new complete lines of a growing file at each call of `read_new`.

    A line without its newline waits for the next call. A file that became shorter is read from its
    start. At most `max_bytes` are read at a call, so a flood cannot hold the caller.
    """

    def __init__(self, path: Path, *, max_bytes: int = 1 << 20) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._offset = 0
        self._cut_line = b""

    def read_new(self) -> list[dict[str, Any]]:
        """Return the objects that were completed since the last call; [] while there is no file."""
        piece = self._read_piece()
        *lines, self._cut_line = (self._cut_line + piece).split(b"\n")
        if len(self._cut_line) > self._max_bytes:
            self._cut_line = b""
        rows: list[dict[str, Any]] = []
        for line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                rows.append(cast("dict[str, Any]", value))
        return rows

    def _read_piece(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # a FIFO; a folder, which no stream takes
            os.close(descriptor)
            return b""
        with os.fdopen(descriptor, "rb") as stream:
            if status.st_size < self._offset:
                self._offset, self._cut_line = 0, b""
            stream.seek(self._offset)
            piece = stream.read(self._max_bytes)
        self._offset += len(piece)
        return piece
