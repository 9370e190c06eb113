"""Runs in a child of a reward only: a pattern or a schema on one text a line, within its CPU time.

A pattern can need exponential time on the right text, and a schema may hold such a pattern. `re` looks
for signals while it searches, so a timer of CPU time ends it here; a busy machine takes no time from
it. Requests are {"do": "regex", "pattern", "whole", "text"}, {"do": "schema", "schema", "text"} and
{"do": "check", "schema"}; the reply is {"ok": bool}, for a bad schema with `value` (where) and `rule`.
Standard library, and jsonschema for schemas.
"""
# pyright: basic

from __future__ import annotations

import json
import re
import signal
import warnings
from functools import lru_cache
from typing import Any

from rdagent_ft.answers.json_values import NotStrictJson, parse_strict
from rdagent_ft.execution.line_server import serve

ITEM_CPU_S = 1.0
MAX_MEMORY_BYTES = 2 << 30


class _OutOfTimeError(Exception):
    """The item used up its CPU time."""


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGVTALRM, _end_item)
    serve(answer, max_memory_bytes=MAX_MEMORY_BYTES, cpu_s=10 * ITEM_CPU_S)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return {"ok": whether it fits}; what takes too long or nests too deeply does not."""
    judge = {"regex": _fits_pattern, "schema": _fits_schema, "check": _schema_verdict}[request["do"]]
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, ITEM_CPU_S)
        try:
            return judge(request)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except (_OutOfTimeError, RecursionError):
        return {"ok": False}


def _end_item(_number: int, _frame: object) -> None:
    raise _OutOfTimeError


def _fits_pattern(request: dict[str, Any]) -> dict[str, Any]:
    pattern = _compiled(request["pattern"])
    find = pattern.fullmatch if request["whole"] else pattern.search
    return {"ok": find(request["text"]) is not None}


def _fits_schema(request: dict[str, Any]) -> dict[str, Any]:
    try:
        parse_strict(request["text"])
    except NotStrictJson:
        return {"ok": False}
    return {"ok": _validator(request["schema"]).is_valid(json.loads(request["text"]))}


def _schema_verdict(request: dict[str, Any]) -> dict[str, Any]:
    from jsonschema.exceptions import SchemaError

    try:
        schema = json.loads(request["schema"])
        _validator(request["schema"]).check_schema(schema)
    except ValueError as error:
        return {"ok": False, "value": None, "rule": f"is no JSON: {str(error)[:200]}"}
    except SchemaError as error:
        return {"ok": False, "value": error.json_path, "rule": f"is no JSON schema: {error.message[:200]}"}
    unmet = _unmet_reference(schema, schema)
    if unmet is not None:
        rule = "a reference must lead to a place inside the schema, like `#/$defs/NAME`"
        return {"ok": False, "value": unmet, "rule": rule}
    return {"ok": True}


@lru_cache(maxsize=8)
def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of sets that a later Python may read otherwise
        return re.compile(pattern)


@lru_cache(maxsize=8)
def _validator(schema_text: str) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    schema = json.loads(schema_text)
    kind = validator_for(schema, default=Draft202012Validator)
    # The empty registry: a reference to another document must not be looked up in the network.
    return kind(schema, registry=Registry())


def _unmet_reference(part: Any, schema: Any) -> str | None:
    """Return the first `$ref` that is not a pointer to something inside the schema."""
    if isinstance(part, dict):
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            target = part.get(key)
            if isinstance(target, str) and not _leads_somewhere(target, schema):
                return target
        members = [value for key, value in part.items() if key not in {"enum", "const", "examples"}]
    else:
        members = part if isinstance(part, list) else []
    return next(filter(None, (_unmet_reference(member, schema) for member in members)), None)


def _leads_somewhere(reference: str, schema: Any) -> bool:
    if not (reference == "#" or reference.startswith("#/")):
        return False
    place = schema
    for step in reference.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and key in place:
            place = place[key]
        elif isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        else:
            return False
    return True


if __name__ == "__main__":
    main()
