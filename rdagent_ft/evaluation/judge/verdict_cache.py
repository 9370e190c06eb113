"""Verdicts on disk, shared by runs: SQLite (WAL), one row a question, keyed by all that shapes a verdict.

Rows hold the reply and no prompt text. A damaged row or file is a miss, never an error: it can be asked
again. What failed (an outage, an unreadable reply) is not stored.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from rdagent_ft.evaluation.judge.replies import JudgeReply
from rdagent_ft.values import sha256_text

SCHEMA_VERSION = 1
_TABLE = (
    "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, "
    "reply TEXT NOT NULL, sha256 TEXT NOT NULL, created_utc TEXT NOT NULL)"
)
_log = logging.getLogger(__name__)


class VerdictCache:
    """The file `verdicts-1.db` in a folder; threads may share it, and so may processes."""

    def __init__(self, folder: Path) -> None:
        """Open or create it. A file that is none is put aside as `.damaged`."""
        self._path = folder / f"verdicts-{SCHEMA_VERSION}.db"
        self._lock = threading.Lock()
        self._connection = self._opened(folder)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def find(self, key: str, schema: type[JudgeReply]) -> JudgeReply | None:
        """Return the stored reply of this key, or None when there is none that is whole and fits."""
        text = self.find_text(key)
        if text is None:
            return None
        try:
            return schema.model_validate_json(text)
        except ValidationError:
            _log.warning("a stored verdict does not fit its schema and is asked again: %s", key)
            return None

    def find_text(self, key: str) -> str | None:
        """Return the stored text of this key, or None. Damage is a miss, noted in the log."""
        try:
            with self._lock:
                if self._connection is None:
                    return None
                row = self._connection.execute(
                    "SELECT reply, sha256 FROM verdicts WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            _log.warning("the judge's cache cannot be read: %s", error)
            return None
        if row is None:
            return None
        text, digest = row
        if not isinstance(text, str) or sha256_text(f"{key}\n{text}") != digest:
            _log.warning("a stored verdict is damaged and is asked again: %s", key)
            return None
        return text

    def store(self, key: str, text: str, *, kind: str, model: str) -> None:
        """Keep `text` under `key`, replacing a damaged row. A failure is noted and costs only money."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = (key, kind, model, text, sha256_text(f"{key}\n{text}"), now)
        try:
            with self._lock:
                if self._connection is not None:
                    self._connection.execute("INSERT OR REPLACE INTO verdicts VALUES (?,?,?,?,?,?)", row)
        except sqlite3.Error as error:
            _log.warning("a verdict could not be kept: %s", error)

    def _opened(self, folder: Path) -> sqlite3.Connection | None:
        for is_second in (False, True):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return _connect(self._path)
            except sqlite3.OperationalError as error:
                _log.warning("the judge's cache cannot be opened: %s: %s", self._path, error)
                return None
            except sqlite3.DatabaseError as error:
                _log.warning("the judge's cache is damaged and begun anew: %s: %s", self._path, error)
                if not is_second:
                    self._put_aside()
            except OSError as error:
                _log.warning("the judge's cache cannot be used: %s: %s", self._path, error.strerror)
                return None
        return None

    def _put_aside(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + suffix)
            if path.exists():
                path.replace(path.with_name(path.name + ".damaged"))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
