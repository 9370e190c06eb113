"""Step 1 of a loop: ask the planner for a hypothesis and a recipe. Loop 0 takes the default recipe."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.facts import rule_facts
from rdagent_ft.engine.measured import measured
from rdagent_ft.engine.steps.mend import mended
from rdagent_ft.errors import LlmError, PreflightError
from rdagent_ft.planning.port import PlanContext, Trial
from rdagent_ft.recipe.data_script import shown_value
from rdagent_ft.recipe.default import DefaultFacts, default_recipe
from rdagent_ft.recipe.memory import read_model_shape
from rdagent_ft.recipe.resources import neutrally_fitting
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import EvaluateOutput, FeedbackOutput, ProposeOutput, TrainOutput
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.values import write_atomic, write_json

FATAL_LLM_KINDS = frozenset({"auth", "quota"})
"""An LLM error that every later loop would meet as well: it ends the run instead of a loop."""


def propose(ctx: RunContext, loop: int) -> ProposeOutput:
    """Return the loop's proposal and write `recipe.json` and `hypothesis.md`.

    A planner that cannot answer fails the loop, not the run, unless the error is sure to come back.
    Raises `TimeIsUpError` when nothing new can end in the time that is left.
    """
    if loop == 0:
        output = _first(ctx)
    else:
        context = plan_context(ctx, loop)
        repaired = mended(ctx, loop, context)
        if repaired is not None:
            _write(ctx.loop_dir(loop), repaired)
            return repaired
        try:
            proposal = ctx.planner.ask(context)
        except LlmError as error:
            if error.kind in FATAL_LLM_KINDS:
                raise PreflightError(error.message, hint=error.hint) from None
            return _none(ctx, loop, f"llm.{error.kind}", error)
        except PreflightError as error:
            return _none(ctx, loop, "planner.exhausted", error)
        output = ProposeOutput(
            planner=proposal.planner,
            parent=ctx.parent_of(loop),
            recipe=proposal.recipe,
            recipe_hash=proposal.recipe.hash,
            hypothesis=proposal.hypothesis,
            prediction=proposal.prediction,
            diff=proposal.diff,
            cites=proposal.cites,
        )
    _write(ctx.loop_dir(loop), output)
    return output


def first_recipe(ctx: RunContext) -> Recipe:
    """Return the recipe of loop 0: the user's, else the default for this model and data."""
    if ctx.request.recipe is not None:
        return ctx.request.recipe
    prepared = ctx.prepared
    shape = read_model_shape(Path(prepared.model.path))
    recipe = default_recipe(
        DefaultFacts(
            n_params=prepared.model.n_params,
            n_train_rows=prepared.splits["train"].n_items,
            token_percentiles=prepared.token_percentiles,
            max_positions=prepared.model.max_positions,
            device=prepared.device,
            hidden_size=shape.hidden_size,
        )
    )
    # Only what stays the same for the whole run: a default that moved would be another recipe.
    fixed = rule_facts(ctx, None).model_copy(update={"memory_factors": ()})
    return neutrally_fitting(recipe, fixed)


def plan_context(ctx: RunContext, loop: int) -> PlanContext:
    """Return everything a planner may know before `loop`. Holds no val or test item."""
    prepared, baseline = ctx.prepared, ctx.baseline
    return PlanContext(
        loop=loop,
        seed=ctx.settings.seed,
        default_recipe=first_recipe(ctx),
        parent=ctx.parent_of(loop),
        trials=tuple(
            trial for done in ctx.journal.finished_loops() if (trial := _trial(ctx, done)) is not None
        ),
        data_facts=prepared.data_facts,
        sources=prepared.sources,
        token_percentiles=prepared.token_percentiles,
        model_facts=prepared.model_facts,
        machine_facts=(*prepared.machine_facts, *measured(ctx).words()),
        baseline_val=baseline.val.value,
        scorer=prepared.scorer,
        n_val=baseline.val.n,
        time_left_s=ctx.clock.left_s(),
        usd_left=(
            None
            if ctx.settings.max_cost is None
            else max(0.0, ctx.settings.max_cost - ctx.journal.spent_usd())
        ),
        device=prepared.device,
        script_limit_s=ctx.settings.debug_timeout,
        rule_facts=rule_facts(ctx, prepared.splits["train"].n_items),
    )


def _none(ctx: RunContext, loop: int, failure_class: str, error: LlmError | PreflightError) -> ProposeOutput:
    return ProposeOutput(
        planner=ctx.planner.name,
        parent=ctx.parent_of(loop),
        recipe=None,
        recipe_hash=None,
        hypothesis="none: the planner gave no valid proposal",
        prediction="",
        failure=Failure(
            failure_class=failure_class, blame="environment", message=error.message, fix=error.hint
        ),
    )


def _first(ctx: RunContext) -> ProposeOutput:
    recipe = first_recipe(ctx)
    given = ctx.request.recipe is not None
    return ProposeOutput(
        planner="user" if given else "default",
        parent=None,
        recipe=recipe,
        recipe_hash=recipe.hash,
        hypothesis=(
            "The recipe that was given on the command line improves on the base model."
            if given
            else "The default recipe for this model and data improves on the base model."
        ),
        prediction="val above the base model's score",
    )


def _trial(ctx: RunContext, loop: int) -> Trial | None:
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    feedback = ctx.journal.output(loop, "feedback", FeedbackOutput)
    if proposal is None or proposal.recipe is None or feedback is None:
        return None
    trained = ctx.journal.output(loop, "train", TrainOutput)
    evaluated = ctx.journal.output(loop, "evaluate", EvaluateOutput)
    comparison = evaluated.vs_parent if evaluated is not None else None
    return Trial(
        loop=loop,
        parent=proposal.parent,
        recipe=proposal.recipe,
        hypothesis=proposal.hypothesis,
        status=feedback.status,
        val_score=evaluated.val.value if evaluated is not None and evaluated.val is not None else None,
        delta=comparison.delta if comparison is not None else None,
        ci95=comparison.ci95 if comparison is not None else None,
        failure=feedback.failure.failure_class if feedback.failure is not None else None,
        facts=feedback.facts,
        lesson=feedback.lesson,
        train_s=trained.train_s if trained is not None else None,
    )


def _write(folder: Path, output: ProposeOutput) -> None:
    if output.recipe is None:
        return
    write_json(folder / "recipe.json", output.recipe.model_dump(mode="json"))
    changes = (
        "\n".join(f"- `{path}` -> `{shown_value(path, value)}`" for path, value in output.diff.items())
        or "- none"
    )
    cites = ", ".join(output.cites) or "none"
    write_atomic(
        folder / "hypothesis.md",
        f"# {output.hypothesis}\n\nPrediction: {output.prediction}\n\nPlanner: {output.planner}. "
        f"Parent: {'base model' if output.parent is None else f'loop {output.parent}'}. "
        f"Knowledge cited: {cites}.\n\n## Changes\n\n{changes}\n",
    )
