"""What planners read out of the finished loops: changes, tried recipes, a table, typical gains."""

from __future__ import annotations

import re
import statistics
from typing import Any, cast

from rdagent_ft.planning.port import PlanContext, Trial
from rdagent_ft.recipe.data_script import shown_value
from rdagent_ft.recipe.diff import recipe_diff
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import STAGE_CLASSES
from rdagent_ft.values import canonical_json

MAX_CELL_CHARS = 300
DEFAULT_GAIN_PP = (0.5, 3.0)
"""Predicted gain in percentage points before the run has results of its own: the size of an
accepted step between tuned recipes, not of the first step from the base model."""


def value_at(recipe: Recipe, path: str) -> Any:
    """Return the JSON value at a dotted path; None where the recipe has no such place."""
    here: Any = recipe.model_dump(mode="json")
    for part in path.split("."):
        if isinstance(here, dict):
            here = cast(dict[str, Any], here).get(part)
        elif isinstance(here, list) and part.isdigit() and int(part) < len(cast(list[Any], here)):
            here = cast(list[Any], here)[int(part)]
        else:
            return None
    return here


def tried_hashes(context: PlanContext) -> frozenset[str]:
    """Return the hashes of every recipe that was trained, the default and the parent included."""
    known = {trial.recipe.hash for trial in context.trials}
    return frozenset(known | {context.default_recipe.hash, context.parent_recipe.hash})


def changes_of(trial: Trial, context: PlanContext) -> dict[str, Any]:
    """Return what a trial changed in its parent's recipe; {} for the default recipe."""
    by_loop = {other.loop: other.recipe for other in context.trials}
    parent = by_loop.get(trial.parent) if trial.parent is not None else None
    return recipe_diff(parent or context.default_recipe, trial.recipe)


def history_table(context: PlanContext) -> str:
    """Return one line a loop: loop, parent, change, val, delta [CI] in pp, status, failure, lesson."""
    lines = ["loop | parent | change | val % | delta pp [95 %] | status | failure | lesson"]
    lines += [_line(trial, context) for trial in context.trials]
    return "\n".join(lines)


def typical_gain_pp(context: PlanContext) -> tuple[float, float, str]:
    """Return (low, high, reason): the gain in percentage points that a good change makes here.

    From the accepted gains over a trained parent: half the median to twice the median; without any,
    `DEFAULT_GAIN_PP`.
    """
    gains = [
        100 * trial.delta
        for trial in context.trials
        if trial.parent is not None
        and trial.status == "accepted"
        and trial.delta is not None
        and trial.delta > 0
    ]
    if not gains:
        low, high = DEFAULT_GAIN_PP
        return low, high, "no accepted change of a trained recipe yet"
    median = statistics.median(gains)
    low, high = max(0.1, round(median / 2, 1)), max(0.2, round(2 * median, 1))
    return low, high, f"median of {len(gains)} accepted gain(s): {median:.1f} pp"


def _line(trial: Trial, context: PlanContext) -> str:
    changes = changes_of(trial, context)
    shown = ", ".join(f"{path}={_shown(path, value)}" for path, value in changes.items())
    interval = f" [{100 * trial.ci95[0]:+.1f}, {100 * trial.ci95[1]:+.1f}]" if trial.ci95 else ""
    cells = (
        str(trial.loop),
        "base" if trial.parent is None else str(trial.parent),
        shown or "the default recipe",
        "-" if trial.val_score is None else f"{100 * trial.val_score:.1f}",
        "-" if trial.delta is None else f"{100 * trial.delta:+.1f}{interval}",
        trial.status,
        trial.failure or "-",
        trial.lesson or "-",
    )
    return " | ".join(_cell(text) for text in cells)


def _shown(path: str, value: Any) -> str:
    """Return a change's value as JSON; stages without the fields that are at their defaults."""
    if re.fullmatch(r"stages(\.\d+)?", path):
        listed = cast("list[Any]", value) if isinstance(value, list) else [value]
        return canonical_json([_without_defaults(stage) for stage in listed])
    return canonical_json(shown_value(path, value))


def _without_defaults(stage: dict[str, Any]) -> dict[str, Any]:
    """Return a stage's values without those that its class has as defaults; the kind stays."""
    model = STAGE_CLASSES[stage["kind"]].model_validate_json(canonical_json(stage))
    return {"kind": stage["kind"], **model.model_dump(mode="json", exclude_defaults=True)}


def _cell(text: str) -> str:
    """Return text on one line without the column mark."""
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= MAX_CELL_CHARS else flat[: MAX_CELL_CHARS - 1] + "…"
