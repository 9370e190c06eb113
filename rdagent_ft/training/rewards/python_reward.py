"""The reward `python`: a person's own function, imported in the training job by its dotted path.

What it returns is checked; what it does is its author's affair. An error in it ends the training with
its name, because a guessed score would train on noise. Standard library only.
"""

from __future__ import annotations

import importlib
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, cast

from rdagent_ft.training.rewards.reward import Batch, RewardError, Score


def python_score(dotted: str) -> Callable[[Batch], list[Score]]:
    """Return the `score` of a `python` reward. Raises `RewardError` when it cannot be imported."""
    function = _imported(dotted)
    accepted = _accepted_names(function, dotted)

    def score(batch: Batch) -> list[Score]:
        values = {**batch.columns, "prompts": list(batch.prompts), "completions": list(batch.completions)}
        given = values if accepted is None else {key: values[key] for key in accepted if key in values}
        try:
            found = function(**given)
        except Exception as error:
            raise RewardError(f"the reward `{dotted}` raised {type(error).__name__}: {error}") from error
        return _checked(found, len(batch.completions), dotted)

    return score


def _imported(dotted: str) -> Callable[..., Any]:
    module_name, _, name = dotted.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise RewardError(f"the reward `{dotted}` cannot be imported: {reason}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise RewardError(f"the reward `{dotted}`: the module `{module_name}` has no function `{name}`")
    if inspect.iscoroutinefunction(function):
        raise RewardError(f"the reward `{dotted}` is async; write it as a plain function")
    return cast("Callable[..., Any]", function)


def _accepted_names(function: Callable[..., Any], dotted: str) -> list[str] | None:
    """Return the arguments that the function takes; None when it takes any (`**columns`)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    names = [parameter.name for parameter in parameters]
    if "completions" not in names:
        raise RewardError(f"the reward `{dotted}` takes no argument `completions`")
    return names


def _checked(found: object, n_expected: int, dotted: str) -> list[Score]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise RewardError(f"the reward `{dotted}` returned {type(found).__name__}, not a list of numbers")
    values = cast("Sequence[object]", found)
    if len(values) != n_expected:
        raise RewardError(f"the reward `{dotted}` returned {len(values)} scores for {n_expected} completions")
    return [_number(value, place, dotted) for place, value in enumerate(values)]


def _number(value: object, place: int, dotted: str) -> Score:
    if value is None:
        return None
    if not isinstance(value, numbers.Real):
        raise RewardError(f"the reward `{dotted}` returned {type(value).__name__} for completion {place}")
    number = float(value)
    if not math.isfinite(number):
        raise RewardError(f"the reward `{dotted}` returned {number} for completion {place}; None means skip")
    return number
