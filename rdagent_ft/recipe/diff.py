"""Dotted differences between recipes: what a planner returns and what a report shows.

`{"stages.0.learning_rate": 1e-3, "stages.0.adapter.r": 32}` reads well and cannot change more than
it says. A whole object may stand at a path (`stages.0.adapter`). Stages are not added or removed.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping
from typing import Any, cast

from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.parse import Path, dotted, fields_at, nearest_field, parse_recipe
from rdagent_ft.recipe.protected import RECIPE_PROTECTED
from rdagent_ft.recipe.schema import Recipe

_PLACE = re.compile(r"[0-9]{1,4}")


def apply_diff(parent: Recipe, diff: Mapping[str, Any]) -> Recipe:
    """Return `parent` with every path of `diff` set to its value.

    Raises `RecipeError` with all problems together: an unknown path with the nearest known one, a
    program-owned name, a value outside its range.
    """
    values: dict[str, Any] = parent.model_dump(mode="json")
    problems: list[Problem] = []
    # Whole objects before their fields, a new kind before the fields of that kind.
    for key in sorted(diff, key=lambda name: (name.count("."), not name.endswith(".kind"))):
        problem = _place(values, key, diff[key])
        if problem is not None:
            problems.append(problem)
    child, wrong = parse_recipe(values)
    problems += wrong
    if problems or child is None:
        raise RecipeError(f"the recipe diff has {len(problems)} problem(s)", problems=tuple(problems))
    return child


def recipe_diff(parent: Recipe, child: Recipe) -> dict[str, Any]:
    """Return the smallest dotted difference with `apply_diff(parent, recipe_diff(parent, child)) == child`.

    An adapter of another kind is one entry; otherwise each changed field is one.
    """
    changes: dict[str, Any] = {}
    _compare((), _all_values(parent), _all_values(child), changes)
    return changes


def known_paths(recipe: Recipe) -> tuple[str, ...]:
    """Return every dotted path that a diff against `recipe` may set, objects included."""
    found: list[str] = []
    _walk((), _all_values(recipe), found)
    return tuple(found)


def _all_values(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's JSON with the absent data script as null: it is a path all the same."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    values["data"].setdefault("script", None)
    return values


def _walk(path: Path, value: Any, found: list[str]) -> None:
    if path:
        found.append(dotted(path))
    if isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            _walk((*path, name), item, found)
    elif path == ("stages",) and isinstance(value, list):
        for place, item in enumerate(cast("list[Any]", value)):
            _walk((*path, place), item, found)


def _compare(path: Path, old: Any, new: Any, changes: dict[str, Any]) -> None:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        olds, news = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        if set(olds) == set(news) and olds.get("kind") == news.get("kind"):
            for name in news:
                _compare((*path, name), olds[name], news[name], changes)
            return
    if path == ("stages",):
        before, after = cast("list[Any]", old), cast("list[Any]", new)
        if len(before) == len(after):
            for place, item in enumerate(after):
                _compare((*path, place), before[place], item, changes)
            return
    changes[dotted(path)] = new


def _place(values: dict[str, Any], key: str, value: Any) -> Problem | None:
    """Set `value` at the dotted `key`; return a problem when there is no such place."""
    path: Path = tuple(int(part) if _PLACE.fullmatch(part) else part for part in key.split("."))
    if any(part in RECIPE_PROTECTED for part in path):
        return Problem(
            key, shown(value), "belongs to the program, not to a recipe", "config.protected_key", "drop it"
        )
    here: Any = values
    for place, part in enumerate(path[:-1]):
        inner = _child(here, part)
        if inner is None:
            return _unknown(values, path, place, value)
        here = inner
    last = path[-1]
    if isinstance(here, dict) and last in fields_at(path[:-1], values):
        fields = cast("dict[str, Any]", here)
        if path[-2:] == ("adapter", "kind") and value != fields.get("kind"):
            fields.clear()  # another kind has other fields; its defaults apply
        fields[str(last)] = copy.deepcopy(value)
        return None
    if isinstance(here, list) and isinstance(last, int) and 0 <= last < len(cast("list[Any]", here)):
        here[last] = copy.deepcopy(value)
        return None
    return _unknown(values, path, len(path) - 1, value)


def _child(here: Any, part: str | int) -> Any:
    if isinstance(here, dict):
        return cast("dict[str, Any]", here).get(str(part))
    if isinstance(here, list) and isinstance(part, int):
        items = cast("list[Any]", here)
        return items[part] if 0 <= part < len(items) else None
    return None


def _unknown(values: dict[str, Any], path: Path, place: int, value: Any) -> Problem:
    key, parent = dotted(path), path[:place]
    known: list[str] = []
    _walk((), values, known)
    near = nearest_field(str(path[place]), parent, values)
    suggestion = dotted((*parent, near)) if near else None
    if suggestion is None:
        leaves = [name for name in known if name.split(".")[-1] == path[-1]]
        suggestion = (leaves or difflib.get_close_matches(key, known, n=1, cutoff=0.5) or [None])[0]
    fix = (
        f"did you mean `{suggestion}`?"
        if suggestion
        else f"known here: {', '.join(fields_at(parent, values))}"
    )
    return Problem(key, shown(value), "is not a path of the recipe", "config.unknown_key", fix)
