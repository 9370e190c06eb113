"""What else is wrong with a recipe that breaks the schema: the rules, asked without the wrong values.

All problems of a file are told together, so that nobody mends one to meet the next. A wrong or unknown value
is left out and its default stands in; what a rule says about such a value, or by comparing with it, is not
told, because it may be mended into something else. Nothing is salvaged where a value is missing or a `kind`
is unknown: there is no default to stand in.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe

_LEFT_OUT = ("config.bad_value", "config.unknown_key", "config.renamed_key", "config.protected_key")


def further_problems(plain: Any, problems: Sequence[Problem]) -> list[Problem]:
    """Return what the rules say about the rest of a recipe.

    Args:
        plain: the recipe's JSON-like values, numbers already numbers.
        problems: what the schema and the order of stages found in them.
    """
    kept = copy.deepcopy(plain)
    wrong = [problem.key for problem in problems if problem.problem_class in _LEFT_OUT]
    if not wrong or not all(_leave_out(kept, key.split(".")) for key in wrong):
        return []
    try:
        recipe = Recipe.model_validate(kept)
    except ValidationError:
        return []
    return [each for each in check_recipe(recipe, RuleFacts()) if not _concerns(each, wrong)]


def _leave_out(values: Any, path: list[str]) -> bool:
    """Delete the entry of a mapping at `path`; False where it is an item of a list, or not there."""
    for part in path[:-1]:
        if isinstance(values, dict):
            values = cast("dict[str, Any]", values).get(part)
        elif isinstance(values, list) and part.isdecimal() and int(part) < len(cast("list[Any]", values)):
            values = cast("list[Any]", values)[int(part)]
        else:
            return False
    if not isinstance(values, dict) or path[-1] not in values:
        return False
    del values[path[-1]]
    return True


def _concerns(problem: Problem, wrong: Sequence[str]) -> bool:
    """Return whether a rule's finding rests on a value that was left out."""
    for key in wrong:
        if problem.key == key or problem.key.startswith(f"{key}.") or key.startswith(f"{problem.key}."):
            return True
        name = key.rsplit(".", 1)[-1]
        if re.search(rf"\b{re.escape(name)}\b", f"{problem.rule} {problem.fix}"):
            return True
    return False
