"""From untrusted values (a person's file, an LLM's reply) to a recipe, or to all that is wrong with it.

V0 of the ladder. The schema is applied strictly: `true` is no number and `"yes"` no switch; text
that spells a number is taken as one, because YAML and LLMs write `2e-4`. Cross-field rules are in
`rules.py`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.documents import number_from_text, shown
from rdagent_ft.recipe.protected import RECIPE_PROTECTED
from rdagent_ft.recipe.renames import recipe_aliases
from rdagent_ft.recipe.schema import DataMix, FullAdapter, LoraAdapter, Recipe, SftStage
from rdagent_ft.recipe.stage_order import check_stage_order
from rdagent_ft.values import canonical_json

_NUMBER_FIELDS_AS_TEXT = frozenset({"exclude_sources", "target_modules", "kind", "script"})
Path = tuple[str | int, ...]


def parse_recipe(values: Mapping[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe and no problems, or None and every problem found at once."""
    order = check_stage_order(values.get("stages"))
    if order:
        return None, order
    prepared = _numbers(values)
    try:
        text = canonical_json(prepared)
    except (ValueError, TypeError) as error:
        rule = f"holds a value that JSON cannot carry: {error}"
        return None, [Problem("recipe", None, rule, "config.bad_value", "use finite numbers and text only")]
    try:
        return Recipe.model_validate_json(text, strict=True), []
    except ValidationError as error:
        problems: dict[tuple[str, str], Problem] = {}
        for entry in error.errors(include_url=False):
            if entry["type"] == "too_short" and values.get("stages"):
                continue  # pydantic counts an item that failed as absent
            problem = _problem(json.loads(text), cast("dict[str, Any]", entry))
            problems.setdefault((problem.key, problem.problem_class), problem)
        return None, list(problems.values())


def load_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe. Raises `RecipeError` that carries every problem."""
    recipe, problems = parse_recipe(values)
    if recipe is None:
        raise RecipeError(f"the recipe has {len(problems)} problem(s)", problems=tuple(problems))
    return recipe


def dotted(path: Path) -> str:
    """Return a path as text: `stages.0.adapter.r`."""
    return ".".join(str(part) for part in path)


def fields_at(path: Path, values: Any) -> tuple[str, ...]:
    """Return the field names that are allowed at `path`, whose value is known from `values`."""
    shape = ["stages" if part == "stages" else "#" if isinstance(part, int) else str(part) for part in path]
    if not shape:
        return tuple(Recipe.model_fields)
    if shape == ["data"]:
        return tuple(DataMix.model_fields)
    if shape == ["stages", "#"]:
        return tuple(SftStage.model_fields)
    if shape == ["stages", "#", "adapter"]:
        here = _at(values, path)
        full = isinstance(here, dict) and cast("dict[str, Any]", here).get("kind") == "full"
        return tuple((FullAdapter if full else LoraAdapter).model_fields)
    return ()


def nearest_field(name: str, path: Path, values: Any) -> str | None:
    """Return the field at `path` that `name` most likely means, as a path below `path`."""
    allowed = fields_at(path, values)
    alias = recipe_aliases().get(name.lower())
    if alias and alias.split(".")[-1] in allowed:
        return alias.split(".")[-1]
    if alias and alias.split(".")[0] in allowed:
        return alias
    near = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.55)
    return near[0] if near else None


def allowed_words(path: Path) -> str:
    """Return the range or choices of a field in words, from the JSON schema; empty when unknown."""
    names = [part for part in path if not isinstance(part, int)]
    models: dict[str, type[BaseModel]] = {"data": DataMix, "stages": SftStage, "adapter": LoraAdapter}
    model = models.get(names[-2]) if len(names) > 1 else None
    if model is None or not names:
        return ""
    properties = cast("dict[str, Any]", model.model_json_schema().get("properties", {}))
    return _schema_words(cast("dict[str, Any]", properties.get(names[-1], {})))


def _schema_words(schema: Mapping[str, Any]) -> str:
    parts = [cast("dict[str, Any]", part) for part in schema.get("anyOf", [])] or [schema]
    words: list[str] = []
    for part in parts:
        if "enum" in part:
            words.append("one of " + ", ".join(str(item) for item in part["enum"]))
        elif "const" in part:
            words.append(str(part["const"]))
        elif part.get("type") == "null":
            words.append("null")
        elif part.get("type") in ("number", "integer"):
            words.append(_number_words(part))
        elif part.get("type") == "string" and "maxLength" in part:
            words.append(f"text of {part.get('minLength', 0)} to {part['maxLength']} characters")
        elif part.get("type") == "array":
            words.append("a list of words")
        elif part.get("type") == "boolean":
            words.append("true or false")
    return " or ".join(words)


def _number_words(part: Mapping[str, Any]) -> str:
    kind = "a whole number" if part["type"] == "integer" else "a number"
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    if low is None or high is None:
        return kind
    low_word = "above " if "exclusiveMinimum" in part else "from "
    high_word = "below " if "exclusiveMaximum" in part else "to "
    return f"{kind} {low_word}{low:g} {'and ' if high_word == 'below ' else ''}{high_word}{high:g}"


def _numbers(value: Any, key: str = "") -> Any:
    """Return `value` with text that spells a number as the number, where a number can stand."""
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        return {str(name): _numbers(item, str(name)) for name, item in entries.items()}
    if key in _NUMBER_FIELDS_AS_TEXT:
        return value
    if isinstance(value, list):
        return [_numbers(item, key) for item in cast("list[Any]", value)]
    return number_from_text(value)


def _problem(values: Any, entry: Mapping[str, Any]) -> Problem:
    path = _real_path(values, cast("Path", tuple(entry["loc"])))
    key, kind = dotted(path) or "recipe", str(entry["type"])
    value = shown(_at(values, path))
    if kind == "extra_forbidden":
        return _extra(values, path, value)
    if kind == "missing":
        return Problem(key, None, "is missing", "config.missing_key", "add it")
    words = allowed_words(path)
    if kind.startswith("union_tag") or path[-1:] == ("kind",):
        words = "one of lora, full" if "adapter" in path else words or "sft"
    rule = f"must be {words}" if words else str(entry["msg"])
    return Problem(key, value, rule, "config.bad_value", f"write {words}" if words else "correct the value")


def _extra(values: Any, path: Path, value: Any) -> Problem:
    name = str(path[-1])
    if name in RECIPE_PROTECTED:
        rule = "belongs to the program, not to a recipe"
        return Problem(
            dotted(path), value, rule, "config.protected_key", "drop it; pass it to `rdagent-ft run`"
        )
    near = nearest_field(name, path[:-1], values)
    renamed = name.lower() in recipe_aliases() and near is not None
    rule = "is not a field of a recipe here"
    fix = (
        f"write `{dotted((*path[:-1], near))}`"
        if near
        else f"drop it; known here: {', '.join(fields_at(path[:-1], values))}"
    )
    return Problem(dotted(path), value, rule, "config.renamed_key" if renamed else "config.unknown_key", fix)


def _real_path(values: Any, location: Path) -> Path:
    """Return pydantic's location without the union tags that are no keys of the file."""
    path: list[str | int] = []
    here: Any = values
    for place, part in enumerate(location):
        last = place == len(location) - 1
        if isinstance(here, dict):
            entries = cast("dict[str, Any]", here)
            if part not in entries and not last:
                continue
            if part not in entries and part in ("lora", "full", "sft"):
                continue
            path.append(part)
            here = entries.get(str(part))
        elif isinstance(here, list) and isinstance(part, int):
            items = cast("list[Any]", here)
            path.append(part)
            here = items[part] if part < len(items) else None
    return tuple(path)


def _at(values: Any, path: Path) -> Any:
    here = values
    for part in path:
        if isinstance(here, dict):
            here = cast("dict[str, Any]", here).get(str(part))
        elif isinstance(here, list) and isinstance(part, int) and part < len(cast("list[Any]", here)):
            here = cast("list[Any]", here)[part]
        else:
            return None
    return here
