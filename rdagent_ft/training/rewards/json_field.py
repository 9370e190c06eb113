"""The reward `json_field`: one value of the completion's JSON against that of the gold answer's.

Strict JSON (`answers.json_values`): the whole answer must be one value. A path is keys and list positions
between dots; a key that holds a dot cannot be named. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from rdagent_ft.answers.json_values import NotStrictJson, canonical, parse_strict
from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.training.rewards.reward import Batch, Score, each

MAX_STEPS = 32
_MISSING = object()


def json_field_score(path: str) -> Callable[[Batch], list[Score]]:
    """Return the `score` of a `json_field` reward. Raises `RecipeError` for a path with empty parts."""
    steps = path.split(".")
    if not all(steps) or len(steps) > MAX_STEPS:
        rule = f"must be 1 to {MAX_STEPS} keys or list positions with a dot between each two"
        problem = Problem("path", path, rule, "config.bad_value", "write it like `answer.steps.0.tool`")
        raise RecipeError("a reward's path cannot be used", problems=(problem,))

    def same(answer: str, gold: str) -> Score:
        expected = _value_at(gold, steps)
        if expected is _MISSING:
            return None
        found = _value_at(answer, steps)
        return float(found is not _MISSING and canonical(found) == canonical(expected))

    return each(same)


def _value_at(text: str, steps: list[str]) -> object:
    """Return the value at the path; `_MISSING` when the text is no JSON or has no such place."""
    try:
        value: object = parse_strict(text)
    except NotStrictJson:
        return _MISSING
    for step in steps:
        if isinstance(value, dict):
            value = cast("dict[str, object]", value).get(step, _MISSING)
        elif isinstance(value, list):
            members = cast("list[object]", value)
            inside = step.isascii() and step.isdecimal() and len(step) < 10 and int(step) < len(members)
            value = members[int(step)] if inside else _MISSING
        else:
            return _MISSING
    return value
