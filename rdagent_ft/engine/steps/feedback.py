"""Step 5 of a loop: decide by the selection rule, state the facts, and learn one lesson.

Facts come from code: scores, training health, and classes of errors on dev items. The LLM only words
a lesson from them; it decides nothing, and no val or test item is shown to it.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.selection import decide_move, past_trials
from rdagent_ft.errors import BudgetError, LlmError
from rdagent_ft.evaluation.error_classes import error_facts
from rdagent_ft.planning.lesson import write_lesson
from rdagent_ft.reporting.records import (
    CodeOutput,
    EvaluateOutput,
    FeedbackOutput,
    ProposeOutput,
    TrainOutput,
)
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.values import write_atomic


def feedback(ctx: RunContext, loop: int) -> FeedbackOutput:
    """Return the loop's verdict with its reason, facts and lesson; write `feedback.md`."""
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    evaluated = ctx.journal.output(loop, "evaluate", EvaluateOutput)
    assert proposal is not None
    assert evaluated is not None
    output = _failed(evaluated.failure) if evaluated.failure is not None else _decided(ctx, loop, evaluated)
    facts = _facts(ctx, loop, evaluated, output)
    output = output.model_copy(update={"facts": facts})
    if ctx.llm is not None and proposal.recipe is not None:
        try:
            lesson = write_lesson(
                ctx.llm,
                facts,
                hypothesis=proposal.hypothesis,
                prediction=proposal.prediction,
                status=output.status,
                loop=loop,
            )
            output = output.model_copy(update={"lesson": lesson})
        except (LlmError, BudgetError) as error:
            ctx.progress.notice(f"no lesson for loop {loop}: {error.message}")
    write_atomic(ctx.loop_dir(loop) / "feedback.md", _markdown(proposal, output))
    return output


def _failed(failure: Failure) -> FeedbackOutput:
    return FeedbackOutput(
        status="failed", reason=f"[{failure.failure_class}] {failure.message}", failure=failure
    )


def _decided(ctx: RunContext, loop: int, evaluated: EvaluateOutput) -> FeedbackOutput:
    assert evaluated.vs_parent is not None
    posterior, move, reason = decide_move(
        evaluated.vs_parent,
        past_trials(ctx, loop),
        over_base=ctx.parent_of(loop) is None,
        share_scored=evaluated.share_scored,
    )
    return FeedbackOutput(
        status="accepted" if move else "rejected",
        reason=reason,
        posterior_gain=posterior.mean,
        p_gain=posterior.p_positive,
        new_parent=move,
    )


def _facts(ctx: RunContext, loop: int, evaluated: EvaluateOutput, output: FeedbackOutput) -> tuple[str, ...]:
    facts = [output.reason]
    coded = ctx.journal.output(loop, "code", CodeOutput)
    trained = ctx.journal.output(loop, "train", TrainOutput)
    if coded is not None and coded.script is not None:
        facts.append(coded.script.words)
    if coded is not None and coded.n_train_rows:
        dropped = ", ".join(f"{n} {reason}" for reason, n in coded.dropped.items()) or "none"
        facts.append(f"trained on {coded.n_train_rows} rows; left out: {dropped}")
    if trained is not None and trained.health is not None:
        health = trained.health
        losses = "no loss"
        if health.first_loss is not None and health.last_loss is not None:
            losses = f"loss {health.first_loss:.3g} -> {health.last_loss:.3g}"
        facts.append(f"training: {health.verdict}, {health.n_steps} steps, {losses}, {trained.train_s:.0f} s")
    if evaluated.val is not None:
        facts.append(
            f"val {evaluated.val.value:.1%} +- {evaluated.val.stderr:.1%} on {evaluated.val.n} items "
            f"(base {ctx.baseline.val.value:.1%})"
        )
    if evaluated.dev is not None:
        facts += error_facts(evaluated.dev_errors, evaluated.dev.n, ctx.prepared.scorer)
    return tuple(facts)


def _markdown(proposal: ProposeOutput, output: FeedbackOutput) -> str:
    facts = "\n".join(f"- {fact}" for fact in output.facts)
    lesson = f"\n## Lesson\n\n{output.lesson}\n" if output.lesson else ""
    return f"# {output.status}\n\n{proposal.hypothesis}\n\n{output.reason}\n\n## Facts\n\n{facts}\n{lesson}"
