"""The common part of JSON Schema, for answers that must be structured (router plans, tool calls).

Knows types, required and other properties, enums, constants, items, and bounds of lengths and numbers. A
keyword outside of this list is refused when the schema is read, so that no rule is silently not checked.
Facts of the keywords: json-schema.org, draft 2020-12.
"""

from __future__ import annotations

import difflib
import json
from typing import Any, NoReturn, cast

from rdagent_ft.errors import Problem, UserError
from rdagent_ft.values import canonical_json

_TYPES = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"}
)
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
KEYWORDS = (
    "type", "required", "properties", "additionalProperties", "enum", "const", "items", *_COUNTS, *_BOUNDS,
)  # fmt: skip
_MAX_DEPTH = 64


class JsonSchema:
    """A schema that was read and checked; `problem_in` judges one text, `mismatch` one value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Take a schema. Raises `UserError` naming every keyword that is unknown or malformed."""
        problems = _problems(schema, "$", 0)
        if problems:
            raise UserError("the schema cannot be used", problems=tuple(problems))
        self._schema = schema

    def problem_in(self, text: str) -> str | None:
        """Return why `text` is not one JSON document that fits, or None where it does."""
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"
        return self.mismatch(value)

    def mismatch(self, value: Any) -> str | None:
        """Return the first rule that `value` breaks with its place, or None where it fits."""
        return _mismatch(value, self._schema, "$")


def parse_json_schema(text: str) -> JsonSchema:
    """Return the schema in a text. Raises `UserError` for what is no JSON object or uses other keywords."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise UserError("the schema is not a JSON object")
    return JsonSchema(cast("dict[str, Any]", schema))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _problems(schema: Any, place: str, depth: int) -> list[Problem]:
    """Return everything in a schema that this program cannot check."""
    if isinstance(schema, bool):
        return []
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return [_problem(place, schema, "a schema is an object, true or false", "correct it")]
    fields = cast("dict[str, Any]", schema)
    found: list[Problem] = []
    for name, value in fields.items():
        if name in _NOTES:
            continue
        if name not in KEYWORDS:
            near = difflib.get_close_matches(name, KEYWORDS, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KEYWORDS)}"
            found.append(_problem(f"{place}.{name}", None, "this keyword is not checked here", fix))
        elif (rule := _wrong_value(name, value)) is not None:
            found.append(_problem(f"{place}.{name}", value, rule, "correct the schema"))
    properties = fields.get("properties")
    if isinstance(properties, dict):
        for name, part in cast("dict[str, Any]", properties).items():
            found += _problems(part, f"{place}.properties.{name}", depth + 1)
    for name in ("items", "additionalProperties"):
        if name in fields:
            found += _problems(fields[name], f"{place}.{name}", depth + 1)
    return found


def _wrong_value(name: str, value: Any) -> str | None:
    """Return what is wrong with a keyword's value."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "type":
        names = cast("list[Any]", value) if isinstance(value, list) else [value]
        known = bool(names) and all(isinstance(each, str) and each in _TYPES for each in names)
        return None if known else f"types are {', '.join(_TYPES)}"
    if name == "required":
        items = cast("list[Any]", value) if isinstance(value, list) else [None]
        return None if all(isinstance(item, str) for item in items) else "a list of names is needed"
    if name == "enum":
        return None if isinstance(value, list) and value else "a list of values is needed"
    if name == "properties":
        return None if isinstance(value, dict) else "an object is needed"
    if name in _COUNTS:
        return None if isinstance(value, int) and is_number and value >= 0 else "a count is needed"
    if name in _BOUNDS:
        return None if is_number else "a number is needed"
    return None


def _mismatch(value: Any, schema: Any, place: str) -> str | None:
    if isinstance(schema, bool):
        return None if schema else f"{place} is not allowed"
    fields = cast("dict[str, Any]", schema)
    if "type" in fields and not _has_type(value, fields["type"]):
        return f"{place} is not of type {_shown(fields['type'])}"
    if "enum" in fields and not any(_equal(value, each) for each in fields["enum"]):
        return f"{place} is none of {_shown(fields['enum'])}"
    if "const" in fields and not _equal(value, fields["const"]):
        return f"{place} is not {_shown(fields['const'])}"
    if isinstance(value, dict):
        return _object_mismatch(cast("dict[str, Any]", value), fields, place)
    if isinstance(value, list):
        return _list_mismatch(cast("list[Any]", value), fields, place)
    if isinstance(value, str):
        return _count_mismatch(len(value), fields, "Length", place)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_mismatch(value, fields, place)
    return None


def _object_mismatch(value: dict[str, Any], schema: dict[str, Any], place: str) -> str | None:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{place} has no {name!r}"
    known: dict[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, part in value.items():
        if name not in known and others is False:
            return f"{place} has the unknown property {name!r}"
        found = _mismatch(part, known.get(name, others), f"{place}.{name}")
        if found is not None:
            return found
    return None


def _list_mismatch(value: list[Any], schema: dict[str, Any], place: str) -> str | None:
    items = schema.get("items", True)
    for at, part in enumerate(value):
        if (found := _mismatch(part, items, f"{place}[{at}]")) is not None:
            return found
    return _count_mismatch(len(value), schema, "Items", place)


def _count_mismatch(count: int, schema: dict[str, Any], what: str, place: str) -> str | None:
    if count < schema.get(f"min{what}", 0):
        return f"{place} is shorter than {schema[f'min{what}']}"
    if count > schema.get(f"max{what}", count):
        return f"{place} is longer than {schema[f'max{what}']}"
    return None


def _number_mismatch(value: float, schema: dict[str, Any], place: str) -> str | None:
    if value < schema.get("minimum", value) or (value <= schema.get("exclusiveMinimum", value - 1)):
        return f"{place} is too small"
    if value > schema.get("maximum", value) or (value >= schema.get("exclusiveMaximum", value + 1)):
        return f"{place} is too large"
    return None


def _has_type(value: Any, names: str | list[str]) -> bool:
    for name in [names] if isinstance(names, str) else names:
        if isinstance(value, bool) and name != "boolean":
            continue
        if isinstance(value, _TYPES[name]) or (
            name == "integer" and isinstance(value, float) and value.is_integer()
        ):
            return True
    return False


def _equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: 1.0 is 1, true is not."""
    return canonical_json(one) == canonical_json(other)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"


def _problem(key: str, value: Any, rule: str, fix: str) -> Problem:
    return Problem(key=key, value=value, rule=rule, problem_class="data.schema", fix=fix)
