"""Records structured calls to JSON lines and answers from such a file later.

Replay is strict: a call that is not in the file is an error, so a changed prompt is noticed. The
file holds prompts and replies, no keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rdagent_ft.errors import LlmError, UserError
from rdagent_ft.llm.port import LlmClient, LlmMessage, LlmRole, Usage
from rdagent_ft.values import Frozen, content_hash

T = TypeVar("T", bound=BaseModel)
MAX_FILE_BYTES = 100_000_000


class RecordedCall(Frozen):
    """One line of a recording; `key` is the hash of role, messages, schema name and salt."""

    key: str
    role: LlmRole
    salt: str
    messages: tuple[LlmMessage, ...]
    reply: dict[str, Any]
    usage: Usage


class RecordingClient:
    """Passes calls on and appends each successful one to a file."""

    def __init__(self, client: LlmClient, path: Path) -> None:
        self._client = client
        self._path = path

    def complete(
        self, role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[T], *, salt: str
    ) -> tuple[T, Usage]:
        """See `LlmClient.complete`."""
        value, usage = self._client.complete(role, messages, schema, salt=salt)
        call = RecordedCall(
            key=_call_key(role, messages, schema, salt),
            role=role,
            salt=salt,
            messages=messages,
            reply=value.model_dump(mode="json"),
            usage=usage,
        )
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(call.model_dump_json() + "\n")
        return value, usage


class ReplayClient:
    """Answers from a recording. The same call asked again gets its recordings in order, then the last."""

    def __init__(self, path: Path) -> None:
        """Read the recording. Raises `UserError` naming file and line when it is none."""
        self._path = path
        self._replies: dict[str, list[RecordedCall]] = {}
        for call in _read(path):
            self._replies.setdefault(call.key, []).append(call)

    def complete(
        self, role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[T], *, salt: str
    ) -> tuple[T, Usage]:
        """Return the recorded reply. Raises `LlmError` (kind `replay_miss`) when there is none."""
        calls = self._replies.get(_call_key(role, messages, schema, salt))
        if not calls:
            raise LlmError(
                f"{self._path} holds no {role} call with salt {salt!r} and this prompt",
                kind="replay_miss",
                hint="the prompt, the schema or the history differs from the recording: record again",
            )
        call = calls.pop(0) if len(calls) > 1 else calls[0]
        return schema.model_validate(call.reply), call.usage


def _call_key(role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[BaseModel], salt: str) -> str:
    identity = [role, [[m.role, m.content] for m in messages], schema.__name__, salt]
    return content_hash(identity, n_chars=32)


def _read(path: Path) -> list[RecordedCall]:
    if not path.is_file():
        raise UserError(f"recording {str(path)!r} does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"recording {str(path)!r} is larger than {MAX_FILE_BYTES} bytes")
    calls: list[RecordedCall] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                calls.append(RecordedCall.model_validate(json.loads(line)))
            except (json.JSONDecodeError, ValidationError) as error:
                raise UserError(
                    f"{path}:{number} is no recorded call: {str(error).splitlines()[0]}"
                ) from None
    return calls
