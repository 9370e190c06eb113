"""Rules of the rewards that a `grpo` stage names: could each be computed, and would they tell samples apart.

Only declarations are judged here; the reward functions are run on known answers before training.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rewards import (
    CodeReward,
    JsonFieldReward,
    JsonSchemaReward,
    MathReward,
    PythonReward,
    RegexReward,
    Reward,
)
from rdagent_ft.recipe.rule_facts import Rule, RuleFacts, StageCheck
from rdagent_ft.recipe.stages import GrpoStage

_PART_CHARS = re.compile(r"[^.\s]+")


def _together(check: StageCheck) -> Iterator[Problem]:
    if not isinstance(check.stage, GrpoStage):
        return
    rewards = check.stage.rewards
    if all(reward.weight == 0 for reward in rewards):
        rule = "weighs every reward 0: no sample would be better than another"
        shown = [{"kind": reward.kind, "weight": reward.weight} for reward in rewards]
        yield check.problem("rewards", shown, rule, "give at least one reward a weight")
    seen: dict[str, int] = {}
    for place, reward in enumerate(rewards):
        same = reward.model_copy(update={"weight": 1.0}).model_dump_json()
        if same in seen:
            rule = f"is the same reward as rewards.{seen[same]}"
            yield check.problem(f"rewards.{place}", reward.kind, rule, "keep one and add up the weights")
        seen.setdefault(same, place)


def _each(check: StageCheck) -> Iterator[Problem]:
    if not isinstance(check.stage, GrpoStage):
        return
    for place, reward in enumerate(check.stage.rewards):
        key = f"rewards.{place}"
        yield from _text(check, key, reward)
        yield from _needs(check, key, reward, check.facts)


def _text(check: StageCheck, key: str, reward: Reward) -> Iterator[Problem]:
    """Judge the pattern, schema or path that a reward holds as text."""
    if isinstance(reward, RegexReward):
        wrong = _pattern_error(reward.pattern)
        if wrong:
            rule = f"is no regular expression: {wrong}"
            yield check.problem(f"{key}.pattern", reward.pattern, rule, "correct it", "config.bad_value")
    elif isinstance(reward, JsonSchemaReward):
        wrong = _schema_error(reward.json_schema)
        if wrong:
            shown = reward.json_schema[:200]
            yield check.problem(f"{key}.json_schema", shown, wrong, "correct it", "config.bad_value")
    elif isinstance(reward, JsonFieldReward) and not all(
        _PART_CHARS.fullmatch(part) for part in reward.path.split(".")
    ):
        rule = "must be names between dots, without blanks"
        yield check.problem(f"{key}.path", reward.path, rule, "write a.b.0.c", "config.bad_value")


def _needs(check: StageCheck, key: str, reward: Reward, facts: RuleFacts) -> Iterator[Problem]:
    """Judge what a reward needs of data and environment."""
    if isinstance(reward, (CodeReward, PythonReward)) and facts.can_contain is False:
        rule = "runs code that must be in a container, and the local executor has none"
        fix = "use --executor docker, or another reward"
        yield check.problem(f"{key}.kind", reward.kind, rule, fix, "config.needs_container")
    if isinstance(reward, CodeReward) and facts.has_tests is False:
        rule = "runs the tests of a row, and the training rows have no `tests` column"
        yield check.problem(
            f"{key}.kind", reward.kind, rule, "add a `tests` column, or use another reward", "data.columns"
        )
    if isinstance(reward, MathReward) and facts.math_verify is False:
        rule = "needs the package math-verify, which the training environment lacks"
        fix = "install it there, or use the reward `numeric`"
        yield check.problem(f"{key}.kind", reward.kind, rule, fix, "env.missing_dep")


def _pattern_error(pattern: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hint at future syntax is no error of the recipe
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


def _schema_error(text: str) -> str | None:
    """Return why a text is no JSON schema, or None."""
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is no JSON: {error}"
    if not isinstance(schema, dict):
        return "must be a JSON object"
    from jsonschema import exceptions, validators

    try:
        checker: Any = validators.validator_for(schema, default=validators.Draft202012Validator)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        checker.check_schema(schema)
    except exceptions.SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        return f"is no JSON schema: {error.message}" + (f" (at {place})" if place else "")
    return None


REWARD_RULES: tuple[Rule, ...] = (_together, _each)
