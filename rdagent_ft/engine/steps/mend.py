"""A failed training's task-changing fix, as the next loop's recipe: shown, named and never silent.

Code goes first: a failure class that a rule knows (`training/repair.py`) needs no planner. Where no rule
helps and the candidate is to blame, the LLM may mend the recipe, by a difference to it and nothing else,
twice in a row at most. Environment faults are never mended by another recipe.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rdagent_ft.engine.context import RunContext
from rdagent_ft.errors import BudgetError, LlmError, RecipeError
from rdagent_ft.llm.prompts import delimited, render_prompt
from rdagent_ft.planning.llm import Change, plain_value
from rdagent_ft.planning.port import PlanContext
from rdagent_ft.planning.scripts import recipe_text
from rdagent_ft.recipe.diff import apply_diff, recipe_diff
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import CodeOutput, FeedbackOutput, ProposeOutput, TrainOutput
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.training.repair import ChangedTask, changed_task
from rdagent_ft.values import Frozen

BY_RULE = "repair"
BY_LLM = "llm repair"
MAX_LLM_REPAIRS = 2
"""In a row; then the planner proposes something else."""


class RepairReply(Frozen):
    """What the LLM returns: why it failed, and the smallest change that mends it."""

    diagnosis: Annotated[str, Field(min_length=1, max_length=1_000)]
    diff: tuple[Change, ...]


class _Failed(Frozen):
    """The loop before, which failed in training or its probe: its recipe, the failing stage and why."""

    loop: int
    recipe: Recipe
    stage_index: int
    failure: Failure


def mended(ctx: RunContext, loop: int, context: PlanContext) -> ProposeOutput | None:
    """Return the proposal that mends the loop before, or None when the planner is to be asked.

    Raises `BudgetError` from the LLM; any other LLM error leaves the loop to the planner.
    """
    failed = _failed_before(ctx, loop)
    if failed is None:
        return None
    before = _repairs_before(ctx, loop, failed.failure.failure_class)
    change = changed_task(
        failed.recipe, failed.stage_index, failed.failure.failure_class, n_before=len(before)
    )
    if change is not None and _is_new(change.recipe, context):
        return _proposal(ctx, loop, failed, change, BY_RULE, context)
    if failed.failure.blame != "candidate" or ctx.llm is None or before.count(BY_LLM) >= MAX_LLM_REPAIRS:
        return None
    try:
        change = _ask(ctx, loop, failed, context)
    except BudgetError:
        raise
    except LlmError as error:
        ctx.progress.notice(f"the LLM could not mend loop {failed.loop}: {error.message}")
        return None
    return None if change is None else _proposal(ctx, loop, failed, change, BY_LLM, context)


def _failed_before(ctx: RunContext, loop: int) -> _Failed | None:
    proposal = ctx.journal.output(loop - 1, "propose", ProposeOutput)
    coded = ctx.journal.output(loop - 1, "code", CodeOutput)
    trained = ctx.journal.output(loop - 1, "train", TrainOutput)
    if proposal is None or proposal.recipe is None or trained is None or trained.failure is None:
        return None
    tried = trained.stages or (coded.probes if coded is not None else ())
    if not tried or tried[-1].failure is None or tried[-1].number > len(proposal.recipe.stages):
        return None
    return _Failed(
        loop=loop - 1,
        recipe=proposal.recipe,
        stage_index=tried[-1].number - 1,
        failure=trained.failure,
    )


def _repairs_before(ctx: RunContext, loop: int, failure_class: str) -> list[str]:
    """Return who mended the loops directly before that failed with the same class, newest first."""
    found: list[str] = []
    for number in range(loop - 1, -1, -1):
        proposal = ctx.journal.output(number, "propose", ProposeOutput)
        verdict = ctx.journal.output(number, "feedback", FeedbackOutput)
        failure = None if verdict is None else verdict.failure
        if proposal is None or proposal.planner not in (BY_RULE, BY_LLM):
            break
        if failure is None or failure.failure_class != failure_class:
            break
        found.append(proposal.planner)
    return found


def _is_new(recipe: Recipe, context: PlanContext) -> bool:
    tried = {trial.recipe.hash for trial in context.trials}
    return recipe.hash not in tried and not check_recipe(recipe, context.rule_facts)


def _ask(ctx: RunContext, loop: int, failed: _Failed, context: PlanContext) -> ChangedTask | None:
    assert ctx.llm is not None
    salt = f"repair:{context.seed}:{loop}"
    failure = failed.failure
    messages = render_prompt(
        "repair",
        recipe=recipe_text(failed.recipe),
        stage=failed.stage_index,
        failure_class=failure.failure_class,
        fix=failure.fix or "none is known",
        evidence=delimited("failure", failure.message, salt=salt),
    )
    reply, _usage = ctx.llm.complete("repair", messages, RepairReply, salt=salt)
    changes: dict[str, Any] = {change.path: plain_value(change.path, change.value) for change in reply.diff}
    try:
        recipe = apply_diff(failed.recipe, changes)
    except RecipeError as error:
        ctx.progress.notice(f"the LLM's repair of loop {failed.loop} is no recipe: {error.message}")
        return None
    if not _is_new(recipe, context):
        ctx.progress.notice(f"the LLM's repair of loop {failed.loop} was tried already or breaks a rule")
        return None
    return ChangedTask(recipe=recipe, reason=" ".join(reply.diagnosis.split()))


def _proposal(
    ctx: RunContext, loop: int, failed: _Failed, change: ChangedTask, planner: str, context: PlanContext
) -> ProposeOutput:
    return ProposeOutput(
        planner=planner,
        parent=ctx.parent_of(loop),
        recipe=change.recipe,
        recipe_hash=change.recipe.hash,
        hypothesis=f"Repair of loop {failed.loop}: {change.reason}",
        prediction=f"the training ends without {failed.failure.failure_class}, and val is above its parent's",
        diff=recipe_diff(context.parent_recipe, change.recipe),
    )
