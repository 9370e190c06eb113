"""From a reply's text to a validated object, and from a pydantic class to the schema we send.

Nothing is repaired: a value that a person did not see in the text never becomes a number. Truncated
replies never come here (`policy.py` stops them first).
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)
MAX_REPLY_CHARS = 1_000_000
MAX_PROBLEMS = 12
_THINKING = re.compile(r"\A\s*(?:<think>)?.*?</think>", re.S)
_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```", re.S)
_DROPPED_KEYS = frozenset({"default", "title", "minLength", "maxLength"})


class ReplyProblem(Exception):
    """A reply that cannot be used; the text says why, in words that the model can act on."""


def parse_reply(text: str, schema: type[T]) -> T:
    """Return the object in `text`: JSON, perhaps after a `<think>` part or inside one ```json fence.

    Raises `ReplyProblem`.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyProblem(f"the reply has {len(text)} characters; at most {MAX_REPLY_CHARS} are read")
    document = _json_text(text)
    try:
        value = json.loads(document, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ReplyProblem(f"the reply is not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise ReplyProblem(f"the reply is not usable JSON: {error}") from None
    return _validated(value, schema)


def parse_whole(text: str, schema: type[T]) -> T:
    """Return the object that `text` is: one JSON object, perhaps after one `<think>` part, nothing else.

    For replies that could quote hostile text: no fence inside prose is searched for, and an object with a
    key twice is refused, because readers differ in which of the two counts. Raises `ReplyProblem`.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyProblem(f"the reply has {len(text)} characters; at most {MAX_REPLY_CHARS} are read")
    document = text.strip()
    if document.startswith("<think>"):
        document = document.rpartition("</think>")[2].strip()
    fenced = _FENCE.fullmatch(document)
    document = fenced[1].strip() if fenced else document
    try:
        value = json.loads(document, parse_constant=_no_constant, object_pairs_hook=_single_keys)
    except json.JSONDecodeError as error:
        raise ReplyProblem(
            f"the reply must be one JSON object and nothing else: {error.msg} at character {error.pos}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ReplyProblem(f"the reply is not usable JSON: {error}") from None
    return _validated(value, schema)


def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the class's JSON Schema in the form that strict endpoints take.

    Every object is closed and every property required; keys that such endpoints refuse are left
    out (the class itself still checks them). Source: OpenAI, structured outputs, supported schemas.
    """
    return cast(dict[str, Any], _strict(schema.model_json_schema()))


def _json_text(text: str) -> str:
    stripped = text.strip()
    if not stripped.startswith(("{", "[", "```")):
        stripped = _THINKING.sub("", stripped, count=1).strip()
    fences = _FENCE.findall(stripped)
    if not stripped.startswith(("{", "[")) and len(fences) == 1:
        return str(fences[0]).strip()
    return stripped


def _validated(value: Any, schema: type[T]) -> T:
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"- {'.'.join(map(str, item['loc'])) or 'the object'}: {item['msg']}" for item in found]
    raise ReplyProblem("the reply does not fit the schema:\n" + "\n".join(lines[:MAX_PROBLEMS]))


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands in an object twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _strict(node: Any, *, is_map: bool = False) -> Any:
    """`is_map` marks a mapping of names to schemas, whose keys are not schema keywords."""
    if isinstance(node, list):
        return [_strict(item) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    source = cast(dict[str, Any], node)
    if is_map:
        return {key: _strict(value) for key, value in source.items()}
    result = {
        key: _strict(value, is_map=key in ("properties", "$defs"))
        for key, value in source.items()
        if key not in _DROPPED_KEYS
    }
    if source.get("type") == "object" and "properties" in source:
        result["additionalProperties"] = False
        result["required"] = list(cast(dict[str, Any], source["properties"]))
    return result
