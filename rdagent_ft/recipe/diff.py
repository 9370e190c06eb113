"""Dotted differences between recipes: what a planner returns and what a report shows.

`{"stages.0.learning_rate": 1e-3, "stages.0.adapter.r": 32}` reads well and cannot change more than
it says. A whole object may stand at a path (`stages.0.adapter`, `stages.1`, `stages.2.rewards.0`). A list
of objects keeps its length under such paths: stages are added, removed or reordered by giving `stages`
whole, and rewards by giving `stages.N.rewards` whole, so that no path changes its meaning on the way.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping
from typing import Any, cast

from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.fields import KIND, Path, dotted, fields_at, nearest_field, value_in
from rdagent_ft.recipe.parse import parse_recipe
from rdagent_ft.recipe.protected import RECIPE_PROTECTED
from rdagent_ft.recipe.schema import Recipe

_PLACE = re.compile(r"[0-9]{1,4}")


def apply_diff(parent: Recipe, diff: Mapping[str, Any]) -> Recipe:
    """Return `parent` with every path of `diff` set to its value.

    Raises `RecipeError` with all problems together: an unknown path with the nearest known one, a
    program-owned name, a value outside its range, an order of stages that makes no sense.
    """
    values: dict[str, Any] = parent.model_dump(mode="json")
    problems: list[Problem] = []
    # Whole objects before their fields, a new kind before the fields of that kind.
    for key in sorted(diff, key=lambda name: (name.count("."), not name.endswith(f".{KIND}"))):
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

    An object of another kind is one entry, and so is a list of another length; otherwise each changed
    field is one.
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
    """Return a recipe's JSON with absent data fields as null: they are paths all the same."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    for name in type(recipe.data).model_fields:
        values["data"].setdefault(name, None)
    return values


def _objects(value: Any) -> list[Any] | None:
    """Return a list whose items are objects; None for every other value."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return items if items and all(isinstance(item, dict) for item in items) else None


def _walk(path: Path, value: Any, found: list[str]) -> None:
    if path:
        found.append(dotted(path))
    if isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            _walk((*path, name), item, found)
    for place, item in enumerate(_objects(value) or ()):
        _walk((*path, place), item, found)


def _compare(path: Path, old: Any, new: Any, changes: dict[str, Any]) -> None:
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        olds, news = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        if set(olds) == set(news) and olds.get(KIND) == news.get(KIND):
            for name in news:
                _compare((*path, name), olds[name], news[name], changes)
            return
    before, after = _objects(old), _objects(new)
    if before and after and len(before) == len(after):
        for place, item in enumerate(after):
            _compare((*path, place), before[place], item, changes)
        return
    changes[dotted(path)] = new


def _place(values: dict[str, Any], key: str, value: Any) -> Problem | None:
    """Set `value` at the dotted `key`; return a problem when there is no such place."""
    path: Path = tuple(int(part) if _PLACE.fullmatch(part) else part for part in key.split("."))
    here: Any = values
    for place, part in enumerate(path[:-1]):
        here = value_in(here, (part,))
        if here is None:
            return _unknown(values, path, place, value)
    last = path[-1]
    if isinstance(here, dict) and last in fields_at(path[:-1], values):
        fields = cast("dict[str, Any]", here)
        if last == KIND and value != fields.get(KIND):
            fields.clear()  # another kind has other fields; its defaults apply
        fields[str(last)] = copy.deepcopy(value)
        return None
    if isinstance(here, list) and isinstance(last, int) and last < len(cast("list[Any]", here)):
        here[last] = copy.deepcopy(value)
        return None
    return _unknown(values, path, len(path) - 1, value)


def _unknown(values: dict[str, Any], path: Path, place: int, value: Any) -> Problem:
    """Return the problem of a path whose part at `place` does not exist."""
    key, parent = dotted(path), path[:place]
    if path[place] in RECIPE_PROTECTED or path[-1] in RECIPE_PROTECTED - set(fields_at(parent, values)):
        rule = "belongs to the program, not to a recipe"
        return Problem(key, shown(value), rule, "config.protected_key", "drop it")
    rule = "is not a path of the recipe"
    items = value_in(values, parent)
    if isinstance(items, list) and isinstance(path[place], int) and _objects(cast("Any", items)):
        n_items = len(cast("list[Any]", items))
        rule += f": `{dotted(parent)}` has {n_items} item(s); give `{dotted(parent)}` whole to add one"
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
    return Problem(key, shown(value), rule, "config.unknown_key", fix)
