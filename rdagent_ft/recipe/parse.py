"""From untrusted values (a person's file, an LLM's reply) to a recipe, or to all that is wrong with it.

V0 of the ladder. The schema is applied strictly: `true` is no number and `"yes"` no switch. Three ways of
writing are taken as what they mean: text that spells a number where a number stands (YAML and LLMs write
`2e-4`), one loss in place of a list of losses, and a JSON schema as a mapping in place of its text.
The order of stages is judged in `stage_order.py`, cross-field rules in `rules.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.documents import MAX_DEPTH, number_from_text, shown
from rdagent_ft.recipe.fields import (
    KIND,
    Path,
    alias_of,
    allowed_words,
    dotted,
    fields_at,
    has_several_forms,
    inner_type,
    is_list,
    kinds_at,
    kinds_with,
    may_be_number,
    models,
    nearest_field,
    type_at,
    value_in,
)
from rdagent_ft.recipe.protected import RECIPE_PROTECTED
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stage_order import check_stage_order
from rdagent_ft.values import canonical_json

_ONE_AS_LIST = frozenset({"loss_type", "loss_weights"})
_TAG_ERRORS = frozenset({"union_tag_not_found", "union_tag_invalid"})


def parse_recipe(values: Mapping[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe and no problems, or None and every problem found at once."""
    try:
        text = canonical_json(as_meant(values))
    except (ValueError, TypeError, RecursionError) as error:
        path = _not_json(values) or ()
        rule = f"is a value that JSON cannot carry: {error}"
        fix = "use finite numbers and text only"
        return None, [
            Problem(
                dotted(path) or "recipe",
                shown(value_in(values, path) if path else None),
                rule,
                "config.bad_value",
                fix,
            )
        ]
    plain = json.loads(text)
    problems = {(p.key, p.problem_class): p for p in check_stage_order(plain.get("stages"))}
    try:
        recipe = Recipe.model_validate_json(text, strict=True)
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            problem = _problem(plain, cast("dict[str, Any]", entry))
            if problem is not None:
                problems.setdefault((problem.key, problem.problem_class), problem)
        return None, list(problems.values())
    return (None, list(problems.values())) if problems else (recipe, [])


def load_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe. Raises `RecipeError` that carries every problem."""
    recipe, problems = parse_recipe(values)
    if recipe is None:
        raise RecipeError(f"the recipe has {len(problems)} problem(s)", problems=tuple(problems))
    return recipe


def as_meant(values: Mapping[str, Any]) -> Any:
    """Return a recipe's values with the ways of writing replaced that this module takes as meant."""
    return _as_meant(Recipe, dict(values))


def _as_meant(annotation: Any, value: Any, key: str = "") -> Any:
    """Return `value` with the ways of writing that the schema does not know replaced by those it does."""
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        if key == "json_schema":
            return canonical_json(entries)
        named = {str(name): item for name, item in entries.items()}
        return {
            name: _as_meant(inner_type(annotation, name, named), item, name) for name, item in named.items()
        }
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", list(value))  # pyright: ignore[reportUnknownArgumentType]
        inner = inner_type(annotation, 0, items)
        return [_as_meant(inner, item) for item in items]
    if key in _ONE_AS_LIST and is_list(annotation) and value is not None:
        return [_as_meant(inner_type(annotation, 0, []), value)]
    return number_from_text(value) if may_be_number(annotation) else value


def _not_json(value: Any, path: Path = ()) -> Path | None:
    """Return the place of the first value that JSON cannot carry; None where nesting alone is the problem."""
    if len(path) > MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        parts = list(cast("Mapping[str, Any]", value).items())
    elif isinstance(value, (list, tuple)):
        parts = list(enumerate(cast("list[Any]", value)))
    else:
        plain = value is None or isinstance(value, (bool, int, str))
        return None if plain or (isinstance(value, float) and math.isfinite(value)) else path
    found = (_not_json(item, (*path, part)) for part, item in parts)
    return next((place for place in found if place is not None), None)


def _problem(values: Any, entry: Mapping[str, Any]) -> Problem | None:
    """Return one schema error as a problem; None for an error that only follows from another one."""
    path = _real_path(values, cast("Path", tuple(entry["loc"])))
    kind = str(entry["type"])
    here = value_in(values, path)
    if kind in _TAG_ERRORS:
        return _kind_problem(values, path, here)
    if kind == "too_short" and here:
        return None  # pydantic counts an item that failed as absent
    key, value = dotted(path) or "recipe", shown(here)
    if kind == "extra_forbidden":
        return _extra(values, path, value)
    words = allowed_words(path, values)
    if kind == "missing":
        fix = f"add it: {words}" if words else "add it"
        return Problem(key, None, f"is missing from the {_owner(values, path)}", "config.missing_key", fix)
    rule = f"must be {words}" if words else str(entry["msg"])
    return Problem(key, value, rule, "config.bad_value", f"write {words}" if words else "correct the value")


def _kind_problem(values: Any, path: Path, here: Any) -> Problem:
    """Return the problem of an object whose kind is missing or unknown."""
    kinds, key = kinds_at(path, values), dotted((*path, KIND))
    words = "one of " + ", ".join(kinds)
    entries = cast("dict[str, Any]", here) if isinstance(here, dict) else {}
    if KIND not in entries:
        return Problem(key, None, f"is missing: it must be {words}", "config.missing_key", f"write {words}")
    kind = entries[KIND]
    near = _near_kind(kind, kinds)
    fix = f"write {near}" if near else f"write {words}"
    return Problem(key, shown(kind), f"must be {words}", "config.bad_value", fix)


_KIND_WORDS = {
    "rm": "reward", "reward_model": "reward", "distillation": "distill", "rlvr": "grpo", "rl": "grpo",
    "finetune": "sft", "supervised": "sft", "dora": "lora with `use_dora: true`",
    "qlora": "lora with `quantization: nf4`", "accuracy": "math", "accuracy_reward": "math",
    "exact_match": "exact", "think_format_reward": "think_format", "schema": "json_schema",
}  # fmt: skip


def _near_kind(kind: Any, kinds: tuple[str, ...]) -> str | None:
    """Return the kind that another tool's word means; None where nobody can tell."""
    word = _KIND_WORDS.get(str(kind).lower())
    if word is None:
        return str(kind).lower() if str(kind).lower() in kinds else None
    return word if word.split(" ")[0] in kinds else None


def _owner(values: Any, path: Path) -> str:
    kind = value_in(values, (*path[:-1], KIND))
    return f"{kind} {_noun(path[:-1])}" if kind else _noun(path[:-1])


def _noun(path: Path) -> str:
    names = [part for part in path if not isinstance(part, int)]
    nouns = {"stages": "stage", "rewards": "reward"}
    return nouns.get(str(names[-1]), str(names[-1])) if names else "recipe"


def _extra(values: Any, path: Path, value: Any) -> Problem:
    """Return the problem of a key that no field has: program-owned, of another tool, or unknown."""
    name, parent = str(path[-1]), path[:-1]
    allowed = fields_at(parent, values)
    renamed = alias_of(name, allowed)
    if renamed is None and name in RECIPE_PROTECTED:
        rule = "belongs to the program, not to a recipe"
        return Problem(
            dotted(path), value, rule, "config.protected_key", "drop it; pass it to `rdagent-ft run`"
        )
    near = renamed or nearest_field(name, parent, values)
    words = allowed_words((*parent, *renamed.split(".")), values) if renamed else ""
    others = kinds_with(name, parent, values)
    rule = f"is no field of the {_owner(values, path)}"
    if others:
        rule += f"; {', '.join(others)} {'have' if len(others) > 1 else 'has'} it"
    if near and not (others and near != renamed):
        fix = f"write `{dotted((*parent, near))}`" + (f": {words}" if words else "")
    else:
        fix = f"drop it; known here: {', '.join(allowed)}"
    return Problem(dotted(path), value, rule, "config.renamed_key" if renamed else "config.unknown_key", fix)


def _real_path(values: Any, location: Path) -> Path:
    """Return pydantic's location as a path of the file.

    Pydantic names the kind after an object that a kind tells apart, and the type after a value that may
    have several; neither is a key of the file.
    """
    path: list[str | int] = []
    annotation, tagged = cast("Any", Recipe), False
    for part in location:
        here = value_in(values, tuple(path))
        if tagged:
            tagged = False
            if isinstance(here, dict) and part == cast("dict[str, Any]", here).get(KIND):
                continue
        if has_several_forms(annotation):
            break
        path.append(part)
        annotation = type_at(tuple(path), values)
        tagged = len(models(annotation)) > 1
    return tuple(path)
