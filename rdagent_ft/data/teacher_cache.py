"""Replies of a teacher on disk, by content: what was paid for once is never paid for again.

One file a reply, `<sha256>.json`, written whole or not at all, so that runs may share the folder and a kill
loses nothing that was answered. The key covers model, prompt and sampling. Nothing is deleted here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from rdagent_ft.values import Frozen, content_hash, write_atomic

Lost = Literal["truncated", "refused", "malformed"]
"""Why a paid reply is none: cut at the token bound, refused, or not in the asked form. Asking again would
pay for the same again."""

LOST_KINDS: dict[str, Lost] = {"truncated": "truncated", "refused": "refused", "malformed": "malformed"}
"""Kinds of `LlmError` that are the reply's fault, not the connection's."""

MAX_FILE_BYTES = 8_000_000


class StoredReply(Frozen):
    """One reply: its JSON object, or why there is none. `model` is for people who look at the file."""

    schema_version: Literal[1] = 1
    key: str
    model: str
    reply: dict[str, Any] | None
    lost: Lost | None = None


class TeacherCache:
    """A folder of replies. Threads and processes may share it: equal keys mean equal questions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> StoredReply | None:
        """Return the stored reply; None where there is none, or where the file is damaged."""
        path = self._path(key)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                return None
            stored = StoredReply.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        is_whole = (stored.reply is None) != (stored.lost is None)
        return stored if stored.key == key and is_whole else None

    def store(self, stored: StoredReply) -> None:
        """Keep a reply; it is on disk when this returns."""
        write_atomic(self._path(stored.key), stored.model_dump_json(indent=1) + "\n")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def reply_key(identity: dict[str, Any], messages: tuple[tuple[str, str], ...], schema: Any, salt: str) -> str:
    """Return the key of a question, 64 hex digits.

    Args:
        identity: model, server and sampling.
        messages: role and content of each message.
        schema: the JSON schema of the reply.
        salt: tells questions apart that are equal on purpose, such as samples.
    """
    question = {"identity": identity, "messages": [list(m) for m in messages], "schema": schema, "salt": salt}
    return content_hash(question, n_chars=64)
