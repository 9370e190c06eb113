"""What may stand at a dotted path of a recipe: fields, kinds, ranges in words, the nearest name.

Read from the schema's own types, so that a new field or stage is known here at once. Where a union is told
apart by `kind` (stages, adapters, rewards), the values beside the path decide which class is meant.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from rdagent_ft.recipe.renames import recipe_aliases
from rdagent_ft.recipe.schema import Recipe

Path = tuple[str | int, ...]
KIND = "kind"


def dotted(path: Path) -> str:
    """Return a path as text: `stages.0.adapter.r`."""
    return ".".join(str(part) for part in path)


def value_in(values: Any, path: Path) -> Any:
    """Return the value at `path`, None where there is no such place."""
    here = values
    for part in path:
        if isinstance(here, dict):
            here = cast("dict[str, Any]", here).get(str(part))
        elif isinstance(here, list) and isinstance(part, int) and 0 <= part < len(cast("list[Any]", here)):
            here = cast("list[Any]", here)[part]
        else:
            return None
    return here


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a value may have, null left out: `int | None` gives `(int,)`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(inner for part in get_args(annotation) for inner in members(part))
    return () if annotation is type(None) else (annotation,)


def models(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the classes that a value may be, by their `kind` (their name where they have none)."""
    found: dict[str, type[BaseModel]] = {}
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(KIND)
            found[str(field.default) if field else member.__name__] = member
    return found


def kinds_at(path: Path, values: Any) -> tuple[str, ...]:
    """Return the kinds that an object at `path` may have; () where it has none to choose."""
    found = models(type_at(path, values))
    return tuple(found) if len(found) > 1 else ()


def model_of(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Return the class that `value` is read as; None where its kind is missing or unknown."""
    found = models(annotation)
    if len(found) == 1:
        return next(iter(found.values()))
    kind = cast("dict[str, Any]", value).get(KIND) if isinstance(value, dict) else None
    return found.get(kind) if isinstance(kind, str) else None


def inner_type(annotation: Any, part: str | int, value: Any) -> Any:
    """Return the type of `part` of a value of type `annotation`; None where there is no such part."""
    if isinstance(part, int):
        for member in members(annotation):
            if get_origin(member) is tuple:
                return get_args(member)[0]
        return None
    model = model_of(annotation, value)
    field = model.model_fields.get(part) if model else None
    return field.rebuild_annotation() if field else None


def type_at(path: Path, values: Any) -> Any:
    """Return the type of the value at `path` in a recipe with these values; None where none may stand."""
    annotation: Any = Recipe
    here = values
    for part in path:
        annotation = inner_type(annotation, part, here)
        if annotation is None:
            return None
        here = value_in(here, (part,))
    return annotation


def fields_at(path: Path, values: Any) -> tuple[str, ...]:
    """Return the field names that are allowed at `path`, whose value is known from `values`."""
    model = model_of(type_at(path, values), value_in(values, path))
    return tuple(model.model_fields) if model else ()


def kinds_with(field: str, path: Path, values: Any) -> tuple[str, ...]:
    """Return the kinds of an object at `path` that have a field of this name."""
    found = models(type_at(path, values))
    return tuple(kind for kind, model in found.items() if field in model.model_fields and len(found) > 1)


def nearest_field(name: str, path: Path, values: Any) -> str | None:
    """Return the field at `path` that `name` most likely means, as a path below `path`."""
    allowed = fields_at(path, values)
    alias = alias_of(name, allowed)
    if alias:
        return alias
    near = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.55)
    return near[0] if near else None


def alias_of(name: str, allowed: tuple[str, ...]) -> str | None:
    """Return the field that another tool's `name` means where `allowed` fields stand; None for no alias."""
    alias = recipe_aliases().get(name.lower())
    if not alias:
        return None
    head, _, tail = alias.partition(".")
    if tail and tail in allowed:
        return tail
    return alias if head in allowed else None


def allowed_words(path: Path, values: Any) -> str:
    """Return the range or choices of a place in words, from its type; empty when unknown."""
    annotation = type_at(path, values)
    kinds = kinds_at(path, values)
    if kinds:
        return "an object with `kind` one of " + ", ".join(kinds)
    if annotation is None or models(annotation):
        return ""
    words = _schema_words(TypeAdapter(annotation).json_schema())
    item_kinds = tuple(models(inner_type(annotation, 0, None)))
    return f"{words} with `kind` one of {', '.join(item_kinds)}" if len(item_kinds) > 1 else words


def may_be_number(annotation: Any) -> bool:
    """Whether a number may stand there and free text may not."""
    plain = members(annotation)
    return any(member in (int, float) for member in plain) and str not in plain


def is_list(annotation: Any) -> bool:
    """Whether only a list may stand there."""
    plain = members(annotation)
    return len(plain) == 1 and get_origin(plain[0]) is tuple


def has_several_forms(annotation: Any) -> bool:
    """Whether values of different types may stand there that no `kind` tells apart."""
    return len(members(annotation)) > 1 and not models(annotation)


def _schema_words(schema: Mapping[str, Any]) -> str:
    parts = list(schema.get("anyOf", ())) or [schema]
    return " or ".join(filter(None, (_part_words(part) for part in parts)))


def _part_words(part: Mapping[str, Any]) -> str:
    if "enum" in part:
        return "one of " + ", ".join(str(item) for item in part["enum"])
    if "const" in part:
        return str(part["const"])
    kind = part.get("type")
    if kind == "null":
        return "null"
    if kind in ("number", "integer"):
        return _number_words(part)
    if kind == "string" and "pattern" in part:
        return f"text that fits {part['pattern']}"
    if kind == "string":
        most = part.get("maxLength")
        return "text" if most is None else f"text of {part.get('minLength', 0)} to {most} characters"
    if kind == "array":
        return _list_words(part)
    return "true or false" if kind == "boolean" else ""


def _list_words(part: Mapping[str, Any]) -> str:
    items = part.get("items", {})
    if "oneOf" in items or "$ref" in items:
        inner = "objects"
    elif items.get("type") == "string" and "enum" not in items:
        inner = "words"
    else:
        inner = f"values, each {_schema_words(items)}"
    low, high = part.get("minItems"), part.get("maxItems")
    count = f"{low or 0} to {high} " if high is not None else ""
    return f"a list of {count}{inner}"


def _number_words(part: Mapping[str, Any]) -> str:
    kind = "a whole number" if part["type"] == "integer" else "a number"
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    if low is None or high is None:
        return kind
    low_word = "above " if "exclusiveMinimum" in part else "from "
    high_word = "below " if "exclusiveMaximum" in part else "to "
    return (
        f"{kind} {low_word}{_shown(low)} {'and ' if high_word == 'below ' else ''}{high_word}{_shown(high)}"
    )


def _shown(bound: float) -> str:
    return f"{int(bound)}" if float(bound).is_integer() and abs(bound) >= 1e5 else f"{bound:g}"
