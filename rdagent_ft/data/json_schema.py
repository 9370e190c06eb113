"""JSON Schema for answers that must be structured (router plans, tool calls), by the library `jsonschema`.

Added to it: a keyword that no validator knows is refused when the schema is read, because a misspelt rule
would silently not be checked; and a reference must stay inside the schema, because nothing is downloaded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]

from rdagent_ft.errors import Problem, UserError

_NOTES = frozenset(
    {"$schema", "$id", "$comment", "$defs", "$anchor", "title", "description", "default", "examples",
     "deprecated", "readOnly", "writeOnly", "format", "contentMediaType", "contentEncoding", "then", "else",
     "minContains", "maxContains"}
)  # fmt: skip
"""Known words of draft 2020-12 that are notes, or are read by the validator of another keyword."""
_KNOWN = frozenset(Draft202012Validator.VALIDATORS) | _NOTES
_NAMED_PARTS = ("properties", "patternProperties", "dependentSchemas", "$defs")
_LISTED_PARTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAX_MESSAGE_CHARS = 200


class JsonSchema:
    """A schema that was read and checked; `problem_in` judges one text, `mismatch` one value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Take a schema. Raises `UserError` naming all that is unknown or malformed in it."""
        problems = schema_problems(schema)
        if problems:
            raise UserError("the schema cannot be used", problems=tuple(problems))
        self._validator = Draft202012Validator(schema)

    def problem_in(self, text: str) -> str | None:
        """Return why `text` is not one JSON document that fits, or None where it does."""
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"
        return self.mismatch(value)

    def mismatch(self, value: Any) -> str | None:
        """Return the rule that `value` breaks most plainly, with its place, or None where it fits."""
        try:
            found = cast("ValidationError | None", best_match(_errors(self._validator, value)))
        except RecursionError:
            return "$: nested too deeply"
        return None if found is None else f"{found.json_path}: {found.message[:_MAX_MESSAGE_CHARS]}"


def parse_json_schema(text: str) -> JsonSchema:
    """Return the schema in a text. Raises `UserError` for what is no JSON object or no usable schema."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise UserError("the schema is not a JSON object")
    return JsonSchema(cast("dict[str, Any]", schema))


def schema_problems(schema: dict[str, Any]) -> list[Problem]:
    """Return everything in a schema that could not be checked by it."""
    try:
        found = [
            _problem(
                error.json_path, error.instance, error.message[:_MAX_MESSAGE_CHARS], "correct the schema"
            )
            for error in _errors(Draft202012Validator(Draft202012Validator.META_SCHEMA), schema)
        ]
        return found + list(_unknown(schema, "$"))
    except RecursionError:
        return [_problem("$", None, "is nested too deeply", "flatten the schema")]


def _errors(validator: Draft202012Validator, value: Any) -> Iterator[ValidationError]:
    return cast("Iterator[ValidationError]", validator.iter_errors(value))  # pyright: ignore[reportUnknownMemberType]


def _unknown(schema: Any, place: str) -> Iterator[Problem]:
    """Yield the keywords that nothing would check, in a schema and all schemas inside it."""
    if not isinstance(schema, dict):
        return
    for name, value in cast("dict[str, Any]", schema).items():
        here = f"{place}.{name}"
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "drop it, or correct its name"
            yield _problem(here, None, "is no keyword of JSON Schema (draft 2020-12)", fix)
        elif name in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
            yield _problem(here, value, "refers to something outside of the schema", "write it into `$defs`")
        elif name in _NAMED_PARTS and isinstance(value, dict):
            for key, part in cast("dict[str, Any]", value).items():
                yield from _unknown(part, f"{here}.{key}")
        elif name in _LISTED_PARTS and isinstance(value, list):
            for at, part in enumerate(cast("list[Any]", value)):
                yield from _unknown(part, f"{here}[{at}]")
        elif name not in ("const", "default", "enum", "examples"):
            yield from _unknown(value, here)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _problem(key: str, value: Any, rule: str, fix: str) -> Problem:
    return Problem(key=key, value=value, rule=rule, problem_class="data.schema", fix=fix)
