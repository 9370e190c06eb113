"""From `rewards.json` to the functions that TRL calls: the declarations of `recipe.rewards` in the job.

Checked by hand and not by pydantic, because a training environment need not have it; a test holds the
table against the recipe's classes. `reward_model` is no function: the trainer loads the model that
the recipe's `reward` stage trained, and `reward_model_weight` says how much it counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.training.rewards.code_reward import code_score
from rdagent_ft.training.rewards.json_field import json_field_score
from rdagent_ft.training.rewards.limited import regex_score, schema_score
from rdagent_ft.training.rewards.math_reward import math_score
from rdagent_ft.training.rewards.python_reward import python_score
from rdagent_ft.training.rewards.reward import Batch, RewardFunction, Score, each
from rdagent_ft.training.rewards.text_rewards import exact, numeric, think_format

CHEAP_KINDS = frozenset({"exact", "numeric", "regex", "json_schema", "json_field", "think_format"})
"""Kinds that run nobody's code and need no container: a controller may score with them."""

MAX_WEIGHT = 100.0
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

Values = Mapping[str, Any]


class Field(NamedTuple):
    """A field of a declaration. `default` None means that it must be given."""

    default: Any
    is_good: Callable[[Any], bool]
    rule: str


def _text(longest: int) -> Field:
    def is_good(value: Any) -> bool:
        return isinstance(value, str) and 0 < len(value) <= longest

    return Field(None, is_good, f"must be a text of 1 to {longest} characters")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _number(default: float, least: float, most: float) -> Field:
    def is_good(value: Any) -> bool:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and least <= value <= most

    return Field(default, is_good, f"must be a number from {least:g} to {most:g}")


def _is_dotted(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and _DOTTED.fullmatch(value) is not None


def _numeric_score(values: Values) -> Callable[[Batch], list[Score]]:
    tolerance = Fraction(str(values["tolerance"]))
    return each(lambda answer, gold: numeric(answer, gold, tolerance))


FIELDS: dict[str, dict[str, Field]] = {
    "exact": {},
    "numeric": {"tolerance": _number(1e-6, 0.0, 1.0)},
    "math": {},
    "regex": {
        "pattern": _text(2_000),
        "whole": Field(False, _is_bool, "must be true or false"),
    },
    "json_schema": {"json_schema": _text(32_000)},
    "json_field": {"path": _text(500)},
    "code": {"timeout_s": _number(5.0, 0.001, 60.0)},
    "think_format": {},
    "python": {"function": Field(None, _is_dotted, "must be a dotted path like `rewards.brief`")},
    "reward_model": {},
}
"""Kind -> its fields beside `kind` and `weight`."""

_MAKERS: dict[str, Callable[[Values], Callable[[Batch], list[Score]]]] = {
    "exact": lambda _: each(exact),
    "numeric": _numeric_score,
    "math": lambda _: math_score(),
    "regex": lambda values: regex_score(values["pattern"], whole=values["whole"]),
    "json_schema": lambda values: schema_score(values["json_schema"]),
    "json_field": lambda values: json_field_score(values["path"]),
    "code": lambda values: code_score(values["timeout_s"]),
    "think_format": lambda _: think_format,
    "python": lambda values: python_score(values["function"]),
}


def load_rewards(path: Path, *, kinds: Collection[str] | None = None) -> list[RewardFunction]:
    """Return the functions of `rewards.json` in its order; `reward_model` is left out.

    Args:
        path: a JSON list of declarations.
        kinds: leave other kinds out as well; names stay those of the whole list.

    Raises `RecipeError` for a bad declaration, `PreflightError` (class env.missing_dep) for a missing
    package, `RewardError` for a function that cannot be imported.
    """
    return make_rewards(_read(path), kinds=kinds)


def make_rewards(
    declared: Sequence[Mapping[str, Any]], *, kinds: Collection[str] | None = None
) -> list[RewardFunction]:
    """Return the functions of the declarations. As `load_rewards`."""
    checked = checked_declarations(declared)
    wanted = [
        (name, values)
        for name, values in zip(_names(checked), checked, strict=True)
        if values["kind"] in _MAKERS and (kinds is None or values["kind"] in kinds)
    ]
    return [
        RewardFunction(name, values["kind"], float(values["weight"]), _MAKERS[values["kind"]](values))
        for name, values in wanted
    ]


def reward_model_weight(path: Path) -> float | None:
    """Return the weight of the `reward_model` declaration; None when there is none.

    Raises `RecipeError` as `load_rewards`.
    """
    weights = [v["weight"] for v in checked_declarations(_read(path)) if v["kind"] == "reward_model"]
    return float(weights[0]) if weights else None


def checked_declarations(declared: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the declarations with their defaults. Raises `RecipeError` with every problem."""
    problems: list[Problem] = []
    checked = [_checked(number, values, problems) for number, values in enumerate(declared)]
    if not declared:
        problems.append(_problem("rewards", [], "needs at least one reward", "name one"))
    if sum(values.get("kind") == "reward_model" for values in checked) > 1:
        rule = "may name the reward model once"
        problems.append(_problem("rewards", "reward_model", rule, "keep one and give it the weight"))
    if problems:
        raise RecipeError("the rewards cannot be used", problems=tuple(problems))
    return checked


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = _problem("rewards", path.name, f"cannot be read: {error}", "write a JSON list of rewards")
        raise RecipeError("the rewards cannot be read", problems=(problem,)) from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast("list[Any]", value)):
        problem = _problem("rewards", path.name, "is no list of objects", "write a JSON list of rewards")
        raise RecipeError("the rewards cannot be read", problems=(problem,))
    return cast("list[dict[str, Any]]", value)


def _checked(number: int, values: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    place, kind = f"rewards.{number}", values.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        rule = "must be one of " + ", ".join(FIELDS)
        problems.append(_problem(f"{place}.kind", kind, rule, "name a kind of reward"))
        return {}
    fields = {"weight": _number(1.0, -MAX_WEIGHT, MAX_WEIGHT), **FIELDS[kind]}
    for key in values.keys() - fields.keys() - {"kind"}:
        rule = f"is no field of `{kind}`; it has {', '.join(fields)}"
        problems.append(_problem(f"{place}.{key}", values[key], rule, "leave it out"))
    found: dict[str, Any] = {"kind": kind}
    for key, field in fields.items():
        found[key] = values.get(key, field.default)
        if not field.is_good(found[key]):
            problems.append(_problem(f"{place}.{key}", found[key], field.rule, "correct the value"))
    return found


def _names(declared: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a unique name each: the kind, or the function's own name; the second of a name gets `_2`."""
    names: list[str] = []
    for values in declared:
        base = values["function"].rpartition(".")[2] if values["kind"] == "python" else values["kind"]
        number, name = 1, base
        while name in names:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return names


def _problem(key: str, value: object, rule: str, fix: str) -> Problem:
    return Problem(key, value, rule, "config.bad_value", fix)
