"""Copying a container's log to a file of ours, across crashes of the controller and of the stream.

The engine stamps each piece with its time. Beside the copy lies how far it got: byte offset, last
stamp, and how many pieces of that stamp. Whoever goes on cuts the copy to that offset and asks the
engine from that stamp on, so nothing is missing and nothing stands there twice. Progress bars that
only send carriage returns never arrive here; metrics come from files.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import RdagentFtError
from rdagent_ft.execution.bounded_log import BoundedLog
from rdagent_ft.execution.docker_engine import Engine, LogStream
from rdagent_ft.values import write_json

LOG_NAME = "job.log"
PLACE_NAME = "log.json"
KEEP_PLACE_S = 0.5
KEEP_PLACE_BYTES = 1 << 18
RECONNECT_S = 0.2


class LogCopy:
    """The copy in `folder/job.log`, bounded to `max_bytes`, and its place in the container's log."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._place = folder / PLACE_NAME
        place = _read_place(self._place)
        self._last: str = str(place.get("last", ""))
        self._n_at_last = int(place.get("n_at_last", 0))
        self._n_to_skip = self._n_at_last
        offset = int(place.get("offset", 0))
        stream = (folder / LOG_NAME).open("r+b" if offset else "w+b", buffering=0)
        stream.truncate(offset)
        stream.seek(offset)
        self._log = BoundedLog(stream, max_bytes, n_written=offset, n_dropped=int(place.get("n_dropped", 0)))
        self._kept_at, self._kept_bytes = 0.0, 0

    @property
    def since_unix(self) -> float | None:
        """From when on the engine is to be asked again; a little too early rather than too late."""
        if not self._last:
            return None
        return datetime.fromisoformat(self._last[:19] + "+00:00").timestamp()

    @property
    def last_write(self) -> float:
        """Monotonic time of the newest byte."""
        return self._log.last_write

    def again(self) -> None:
        """Say that the log is asked once more from `since_unix` on."""
        self._n_to_skip = self._n_at_last

    def take(self, piece: bytes) -> None:
        """Take one piece `STAMP SPACE BYTES`, unless the copy has it already."""
        stamp, _, data = piece.partition(b" ")
        at = stamp.decode("ascii", "replace")
        if at < self._last:
            return
        if at == self._last and self._n_to_skip:
            self._n_to_skip -= 1
            return
        if at != self._last:
            self._last, self._n_at_last, self._n_to_skip = at, 0, 0
        self._log.write(data)
        self._n_at_last += 1
        self._kept_bytes += len(data)
        if self._kept_bytes >= KEEP_PLACE_BYTES or time.monotonic() - self._kept_at >= KEEP_PLACE_S:
            self._keep_place()

    def close(self) -> None:
        """Write the end of a log that was cut, and close the file."""
        self._keep_place()
        self._log.close()

    def _keep_place(self) -> None:
        self._kept_at, self._kept_bytes = time.monotonic(), 0
        place = {
            "offset": self._log.n_written,
            "n_dropped": self._log.n_dropped,
            "last": self._last,
            "n_at_last": self._n_at_last,
        }
        with contextlib.suppress(OSError):  # a full disk costs a repeated reading, not the job
            write_json(self._place, place)


class LogFollower:
    """A thread that copies a running container's log until the container has ended."""

    def __init__(self, engine: Engine, name: str, folder: Path, max_bytes: int) -> None:
        self._engine, self._name = engine, name
        self._copy = LogCopy(folder, max_bytes)
        self._stream: LogStream | None = None
        self._over = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"log of {name}", daemon=True)
        self._thread.start()

    @property
    def last_write(self) -> float:
        """Monotonic time of the newest byte."""
        return self._copy.last_write

    def finish(self, timeout_s: float = 10.0) -> None:
        """Copy what is left of an ended container's log and close. A stuck stream is cut off."""
        self._thread.join(timeout_s)
        self._over.set()
        if self._thread.is_alive():
            self._cut()
            self._thread.join(timeout_s)
        if not self._thread.is_alive():  # else the copy is not ours to write any more
            with contextlib.suppress(RdagentFtError):
                self._read(follow=False)
            self._copy.close()
            self._is_closed = True

    def abandon(self, timeout_s: float = 2.0) -> None:
        """Stop following, whatever the log still holds; nothing is done after `finish`."""
        if self._is_closed:
            return
        self._over.set()
        self._cut()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._copy.close()
            self._is_closed = True

    def _cut(self) -> None:
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.close()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._read(follow=True)
                if self._has_ended():
                    return
            except RdagentFtError:
                pass  # the executor's own look at the container decides what that means
            self._over.wait(RECONNECT_S)

    def _read(self, *, follow: bool) -> None:
        self._copy.again()
        self._stream = self._engine.logs(self._name, since_unix=self._copy.since_unix, follow=follow)
        for piece in self._stream:
            self._copy.take(piece)

    def _has_ended(self) -> bool:
        found = self._engine.inspect(self._name)
        return found is None or not found["State"].get("Running")


def _read_place(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
