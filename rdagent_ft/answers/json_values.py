"""Strict JSON for answers, and equality of JSON values.

Stricter than `json.loads`: the whole text must be one value; doubled keys, NaN, infinities and absurd
exponents are refused. A small relaxation of "is it JSON" would score sloppy models as correct ones.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

MAX_JSON_CHARS = 200_000
MAX_DEPTH = 100
MAX_EXPONENT = 400

Canonical = tuple[Any, ...]
"""A JSON value as nested tuples: equal tuples are equal values (key order no matter, 1 == 1.0)."""


class NotStrictJson(ValueError):
    """The text is not one strict JSON value."""


def parse_strict(text: str) -> Any:
    """Return the JSON value that the text is. Floats come as `Decimal`.

    Raises `NotStrictJson` on anything around it, doubled keys, NaN, infinity, a number beyond
    10^+-400, more than 200,000 characters or nesting deeper than 100.
    """
    if len(text) > MAX_JSON_CHARS:
        raise NotStrictJson(f"longer than {MAX_JSON_CHARS} characters")
    try:
        value = json.loads(
            text.strip(" \t\r\n"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number,
            parse_int=_number,
        )
        canonical(value)
    except NotStrictJson:
        raise
    except (ValueError, RecursionError) as error:
        raise NotStrictJson(str(error)[:200]) from None
    return value


def canonical(value: Any, depth: int = 0) -> Canonical:
    """Return the value as comparable nested tuples. Raises `NotStrictJson` when nested too deep."""
    if depth > MAX_DEPTH:
        raise NotStrictJson(f"nested deeper than {MAX_DEPTH}")
    match value:
        case None:
            return ("null",)
        case bool():
            return ("bool", value)
        case str():
            return ("text", value)
        case dict():
            pairs: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
            return ("object", *((key, canonical(pairs[key], depth + 1)) for key in sorted(pairs)))
        case list():
            members: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
            return ("array", *(canonical(member, depth + 1) for member in members))
        case _:
            return ("number", *_digits(Decimal(value)))


def compact(value: Any) -> str:
    """Return the parsed value as compact JSON text with sorted keys, for people to read."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=True)


def json_in_other_text(text: str) -> bool:
    """Return whether the text holds one JSON object or array with other text around it."""
    if len(text) > MAX_JSON_CHARS:
        return False
    starts = [position for position in (text.find("{"), text.find("[")) if position >= 0]
    if not starts:
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text, min(starts))
    except (ValueError, RecursionError):
        return False
    return bool(text[: min(starts)].strip() or text[end:].strip())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotStrictJson("a key appears twice in one object")
    return value


def _constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not JSON")


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise NotStrictJson("a number is out of range") from None
    if not number.is_finite() or abs(number.adjusted()) > MAX_EXPONENT or len(text) > 2 * MAX_EXPONENT:
        raise NotStrictJson("a number is out of range")
    return number


def _digits(number: Decimal) -> tuple[int, str, int]:
    """Return (sign, digits without trailing zeros, exponent): one form for 1, 1.0 and 10e-1."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    if not stripped:
        return 0, "", 0
    return sign, stripped, int(exponent) + len(text) - len(stripped)
