"""Rewards that a text can make slow, asked in a child with a limit: `regex`, `json_schema`.

What is wrong with a pattern or a schema is found when the reward is made, before any training.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from rdagent_ft.errors import PreflightError, Problem, RecipeError
from rdagent_ft.execution.line_worker import LineChildren
from rdagent_ft.training.rewards.reward import Batch, Score

MODULE = "rdagent_ft.training.rewards.limited_job"
ITEM_WALL_S = 60.0
"""Far above the child's limit of CPU time, which decides; a starved machine makes no answer wrong."""

MAX_TEXT_CHARS = 50_000
"""A longer completion does not fit: no search is linear for every pattern."""


def regex_score(pattern: str, *, whole: bool) -> Callable[[Batch], list[Score]]:
    """Return the `score` of a `regex` reward, which looks at all that was written.

    Raises `RecipeError` for a pattern that does not compile.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise RecipeError(
            "a reward's pattern does not compile",
            problems=(_problem("pattern", pattern, str(error), "correct the regular expression"),),
        ) from None
    children = LineChildren(MODULE, limit_s=ITEM_WALL_S, n_workers=1)
    return _scores(children, {"do": "regex", "pattern": pattern, "whole": whole}, Batch.texts)


def schema_score(schema_text: str) -> Callable[[Batch], list[Score]]:
    """Return the `score` of a `json_schema` reward.

    Raises `PreflightError` without jsonschema, `RecipeError` for a schema that is none, or that refers
    to anything outside of itself.
    """
    require_package("jsonschema", "json_schema", "pip install 'jsonschema>=4.18'")
    children = LineChildren(MODULE, limit_s=ITEM_WALL_S, n_workers=1)
    (reply,) = children.ask([{"do": "check", "schema": schema_text}])
    if reply.value.get("ok") is not True:
        value, rule = reply.value.get("value"), reply.value.get("rule", "cannot be read in the time given")
        problem = _problem("json_schema", value, rule, "correct the schema; it is JSON text")
        raise RecipeError("a reward's JSON schema cannot be used", problems=(problem,))
    return _scores(children, {"do": "schema", "schema": schema_text}, Batch.answers)


def require_package(module: str, kind: str, command: str) -> None:
    """Raise `PreflightError` with class env.missing_dep when a package is not installed here."""
    if find_spec(module) is None:
        rule = f"needs the package {module}, which is not installed where the reward runs"
        problem = Problem("kind", kind, rule, "env.missing_dep", command)
        raise PreflightError(f"the reward `{kind}` cannot be computed here", problems=(problem,))


def _scores(
    children: LineChildren, request: dict[str, Any], read: Callable[[Batch], list[str]]
) -> Callable[[Batch], list[Score]]:
    def score(batch: Batch) -> list[Score]:
        texts = read(batch)
        asked = [text for text in dict.fromkeys(texts) if len(text) <= MAX_TEXT_CHARS]
        replies = children.ask([{**request, "text": text} for text in asked])
        fits = {text: reply.value.get("ok") is True for text, reply in zip(asked, replies, strict=True)}
        return [float(fits.get(text, False)) for text in texts]

    return score


def _problem(key: str, value: object, rule: str, fix: str) -> Problem:
    return Problem(key, value, rule, "config.bad_value", fix)
