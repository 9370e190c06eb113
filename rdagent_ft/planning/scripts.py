"""Data scripts in what the LLM planner reads: the contract's numbers, and the scripts of earlier loops.

Only the LLM planner writes scripts; the samplers keep a parent's script as it is. A script was written by
an LLM, so its text is delimited like any other foreign text and stands nowhere else in the prompt.
"""

from __future__ import annotations

from typing import Any

from rdagent_ft.data.script_rows import MIN_ROWS, max_script_rows
from rdagent_ft.llm.prompts import delimited
from rdagent_ft.planning.port import PlanContext, Trial
from rdagent_ft.recipe.data_mix import MAX_SCRIPT_CHARS
from rdagent_ft.recipe.data_script import script_words
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.values import canonical_json

MAX_FAILED_CHARS = 8_000


def script_limits(context: PlanContext) -> str:
    """Return the limits of a data script in words; empty where recipes cannot carry one."""
    if context.script_limit_s is None or not context.rule_facts.can_contain:
        return ""
    n_max = max_script_rows(context.rule_facts.n_train_rows or 0)
    return (
        f"at most {MAX_SCRIPT_CHARS:,} characters of source, {context.script_limit_s:.0f} s, "
        f"{MIN_ROWS:,} to {n_max:,} rows"
    )


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as JSON, with the name of its script in place of the source."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    if recipe.data.script is not None:
        values["data"]["script"] = script_words(recipe.data.script)
    return canonical_json(values)


def earlier_scripts(context: PlanContext, *, salt: str) -> str:
    """Return the parent's script whole and that of the last loop if it failed, delimited; else `none`."""
    blocks: list[str] = []
    parent = context.parent_recipe.data.script
    if parent is not None:
        blocks.append(_block("the parent's script", parent, salt, MAX_SCRIPT_CHARS))
    failed = _last_failed(context)
    if failed is not None and failed.recipe.data.script not in (None, parent):
        assert failed.recipe.data.script is not None
        label = f"the script of loop {failed.loop}, which failed"
        blocks.append(_block(label, failed.recipe.data.script, salt, MAX_FAILED_CHARS))
    return "\n\n".join(blocks) or "none"


def _last_failed(context: PlanContext) -> Trial | None:
    last = context.trials[-1] if context.trials else None
    return last if last is not None and last.status == "failed" else None


def _block(label: str, script: str, salt: str, max_chars: int) -> str:
    return f"{script_words(script)}:\n{delimited(label, script, salt=salt, max_chars=max_chars)}"
