"""One record becomes a row, or a reason why not. Covers single turns, alpaca and lists of turns.
Preference rows are made from the same turns in `preferences.py`.

Text is kept byte for byte: nothing is stripped, joined or repaired except where the format says so
(alpaca's `input` follows its instruction after a newline).
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

from rdagent_ft.data.rows import Message, Role, Row, make_row

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_MAY_FOLLOW: dict[Role | None, frozenset[Role]] = {
    None: frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"assistant"}),
    "assistant": frozenset({"user", "tool"}),
    "tool": frozenset({"assistant", "tool"}),
}
_TURN_KEYS = (frozenset({"role", "content"}), frozenset({"from", "value"}), frozenset({"role", "parts"}))
_MAX_META_COLUMNS = 32
# Long enough for the tests of a coding task, which a reward reads.
_MAX_META_CHARS = 8_000


class Unusable(Exception):
    """A record cannot become a row; the text is the reason that the read report counts."""


def row_of(columns: dict[str, Any], fields: dict[str, str]) -> Row:
    """Return the row of one record. Raises `Unusable` with the reason.

    Args:
        columns: the record.
        fields: canonical field -> column, see `columns.map_columns`.
    """
    messages = conversation(columns, fields)
    check_turns(messages)
    source = columns.get(fields["source"]) if "source" in fields else None
    shown = None if source is None or is_nan(source) else text_of(source, "source")
    check_unicode([*(message.content for message in messages), shown or ""])
    used = set(fields.values())
    meta = _meta({name: value for name, value in columns.items() if name not in used})
    return make_row(messages, source=shown, meta=meta)


def text_of(value: Any, what: str) -> str:
    """Return a cell as text: numbers and booleans as JSON writes them, objects as JSON text.

    Raises `Unusable` for a missing cell, NaN, and an object where a prompt is expected.
    """
    if isinstance(value, str):
        return value
    if value is None or is_nan(value):
        raise Unusable(f"missing {what}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, (dict, list)) and what == "completion":
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            raise Unusable("the completion is not valid JSON") from None
    raise Unusable(f"the {what} is not text")


def conversation(columns: dict[str, Any], fields: dict[str, str]) -> tuple[Message, ...]:
    """Return all turns of the record, the system turn first, without judging their order."""
    turns: list[Message] = []
    if "messages" in fields:
        turns += turns_of(columns.get(fields["messages"]))
    else:
        if "history" in fields:
            turns += _history(columns.get(fields["history"]))
        prompt = columns.get(fields["prompt"])
        turns += turns_of(prompt) if is_turn_list(prompt) else [_user_turn(prompt, columns, fields)]
    if "completion" in fields:
        turns.append(Message(role="assistant", content=_completion(columns.get(fields["completion"]))))
    system = columns.get(fields["system"]) if "system" in fields else None
    if system is not None and not is_nan(system):
        text = _system_text(system)
        if text.strip():
            turns.insert(0, Message(role="system", content=text))
    return tuple(turns)


def _system_text(value: Any) -> str:
    """Return a system column's text; Vertex writes it as an object with `parts`."""
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return _content(fields["parts"]) if "parts" in fields else text_of(value, "system turn")


def _user_turn(prompt: Any, columns: dict[str, Any], fields: dict[str, str]) -> Message:
    text = text_of(prompt, "prompt")
    extra = columns.get(fields["input"]) if "input" in fields else None
    if extra is not None and not is_nan(extra):
        more = text_of(extra, "input")
        if more.strip():
            text = f"{text}\n{more}" if text.strip() else more
    if not text.strip():
        raise Unusable("empty prompt")
    return Message(role="user", content=text)


def _completion(value: Any) -> str:
    """Return the answer: text, a number, a JSON object, or one assistant turn in either spelling."""
    if is_turn_list(value):
        turns = turns_of(value)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise Unusable("the completion is not one assistant turn")
        return turns[0].content
    if isinstance(value, dict) and frozenset(cast("dict[str, Any]", value)) in _TURN_KEYS:
        return turns_of([value])[0].content
    return text_of(value, "completion")


def is_turn_list(value: Any) -> bool:
    """Return whether a list begins with a turn: `role`/`content`, `from`/`value` or `role`/`parts`."""
    if not isinstance(value, list) or not value:
        return False
    first = cast("list[Any]", value)[0]
    return isinstance(first, dict) and any(keys <= first.keys() for keys in _TURN_KEYS)


def turns_of(value: Any) -> list[Message]:
    """Return the turns of a list in any of the three spellings. Raises `Unusable`."""
    if not isinstance(value, list) or not value:
        raise Unusable("the turns are missing or not a list")
    turns: list[Message] = []
    for item in cast("list[Any]", value):
        if not isinstance(item, dict):
            raise Unusable("a turn is not an object")
        turn = cast("dict[str, Any]", item)
        speaker = turn.get("role", turn.get("from"))
        role = ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise Unusable("a turn has an unknown role")
        text = next((turn[name] for name in ("content", "value", "parts") if name in turn), None)
        turns.append(Message(role=role, content=_content(text)))
    return turns


def _content(value: Any) -> str:
    """Return a turn's text; a list of text parts is joined, anything else is not text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [_text_part(part) for part in cast("list[Any]", value)]
        if None not in texts:
            return "".join(cast("list[str]", texts))
    raise Unusable("empty turn" if value is None else "a turn's content is not text")


def _text_part(part: Any) -> str | None:
    """Return the text of one content part (OpenAI, Vertex), None where it is an image, a call or else."""
    fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    text = fields.get("text") if fields.get("type", "text") == "text" else None
    return text if isinstance(text, str) else None


def _history(value: Any) -> list[Message]:
    """Return alpaca's earlier turns: a list of [question, answer] pairs."""
    turns: list[Message] = []
    for pair in cast("list[Any]", value or []):
        texts = cast("list[Any]", pair) if isinstance(pair, list) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise Unusable("the history is not a list of pairs")
        turns += [Message(role="user", content=texts[0]), Message(role="assistant", content=texts[1])]
    return turns


def check_turns(messages: tuple[Message, ...]) -> None:
    """Raise `Unusable` unless the roles alternate as a chat does and the last turn is a real answer."""
    if len(messages) < 2:
        raise Unusable("fewer than two turns")
    if messages[-1].role != "assistant":
        raise Unusable("the last turn is not the assistant's")
    if not messages[-1].content.strip():
        raise Unusable("empty completion")
    previous: Role | None = None
    for message in messages:
        if message.role not in _MAY_FOLLOW[previous]:
            raise Unusable("wrong order of roles")
        if not message.content.strip():
            raise Unusable("empty turn")
        previous = message.role


def check_unicode(texts: list[str]) -> None:
    """Raise `Unusable` for text that came from bytes which are not UTF-8."""
    try:
        for text in texts:
            text.encode("utf-8")
    except UnicodeEncodeError:
        raise Unusable("not valid UTF-8") from None


def _meta(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the other columns that are JSON values; long ones and those past the 32nd are left out."""
    meta: dict[str, Any] = {}
    for name, value in columns.items():
        if value is None or is_nan(value) or len(meta) >= _MAX_META_COLUMNS:
            continue
        try:
            size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8"))
            name.encode("utf-8")
        except (ValueError, TypeError, RecursionError):  # UnicodeEncodeError is a ValueError
            continue
        if size <= _MAX_META_CHARS:
            meta[name] = value
    return meta


def is_nan(value: Any) -> bool:
    """Return whether the cell is empty in the way of CSV and pandas."""
    return isinstance(value, float) and math.isnan(value)
