"""The loop over steps: the only place that knows their order and when a run ends.

A finished step never runs again, so the same function starts a run, resumes it and closes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from rdagent_ft.engine.bounds import Bounds, StopReason, StopRun
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.journal import Look, utc_now
from rdagent_ft.engine.retention import free_disk
from rdagent_ft.engine.selection import best_candidate
from rdagent_ft.engine.steps.baseline import baseline
from rdagent_ft.engine.steps.claim import claim
from rdagent_ft.engine.steps.code import code
from rdagent_ft.engine.steps.evaluate import evaluate
from rdagent_ft.engine.steps.export import export, link_best
from rdagent_ft.engine.steps.feedback import feedback
from rdagent_ft.engine.steps.prepare import Gathered, prepare
from rdagent_ft.engine.steps.propose import propose
from rdagent_ft.engine.steps.train import train
from rdagent_ft.engine.summaries import summarise_step
from rdagent_ft.engine.warm_server import WarmServer, choose_serving
from rdagent_ft.errors import BudgetError, PreflightError, TimeIsUpError
from rdagent_ft.reporting.records import (
    HF,
    SETUP_LOOP,
    BaselineOutput,
    ClaimOutput,
    EvaluateOutput,
    FeedbackOutput,
    LoopStep,
    ProposeOutput,
    StepName,
    TrainOutput,
)
from rdagent_ft.reporting.write import write_reports
from rdagent_ft.values import Frozen

LOOP: dict[LoopStep, Callable[[RunContext, int], Frozen]] = {
    "propose": propose,
    "code": code,
    "train": train,
    "evaluate": evaluate,
    "feedback": feedback,
}
"""The five steps of a loop, in order."""

Status = Literal["finished", "stopped", "failed"]
MERGE_RESERVE_S = 30.0


class Ending(Frozen):
    """How an invocation ended: `finished` means closed with everything handed over."""

    status: Status
    stop_reason: StopReason


def run(ctx: RunContext, bounds: Bounds, gathered: Gathered | None = None) -> Ending:
    """Work until a bound, then close if there is time. Raises only errors that end the run for good."""
    number = ctx.journal.begin_invocation(_owner(), bounds.model_dump(mode="json"))
    status: Status = "failed"
    reason: StopReason | Literal["error"] = "error"
    try:
        try:
            _set_up(ctx, gathered)
            ending = _loops_and_closing(ctx, bounds)
        except StopRun as stop:
            ending = Ending(status="stopped", stop_reason=stop.reason)
        status, reason = ending.status, ending.stop_reason
        ctx.executor.tidy(ctx.run_dir)
    finally:
        if ctx.warm is not None:
            ctx.warm.close()
        ctx.journal.end_invocation(number, status=status, stop_reason=reason, active_s=ctx.clock.active_s())
        write_reports(ctx.run_dir)
    return ending


def _loops_and_closing(ctx: RunContext, bounds: Bounds) -> Ending:
    reason = _loops(ctx, bounds)
    return Ending(status=_close(ctx, reason), stop_reason=reason)


def _set_up(ctx: RunContext, gathered: Gathered | None) -> None:
    _step(ctx, SETUP_LOOP, "prepare", lambda: prepare(ctx, gathered))
    _open_serving(ctx)

    def looks(_: Frozen) -> Sequence[Look]:
        target = ctx.prepared.target_benchmark
        return (Look(benchmark=target, split="val", loop=SETUP_LOOP, recipe_hash="base", purpose="select"),)

    _step(ctx, SETUP_LOOP, "baseline", lambda: baseline(ctx), looks)
    _show_scores(ctx)


def _open_serving(ctx: RunContext) -> None:
    """Decide what generates answers; a run keeps the engine that its base was scored with."""
    known = ctx.journal.output(SETUP_LOOP, "baseline", BaselineOutput)
    if known is not None and known.engine == HF:
        return
    serving = choose_serving(ctx.settings, ctx.executor, ctx.prepared.device)
    if known is not None and not serving.is_warm:
        raise PreflightError(
            f"this run's base was scored by {known.engine}, and here {serving.reason}",
            hint="resume with the FT_SERVING and the executor that the run began with",
        )
    if known is None:
        ctx.progress.notice(serving.reason)
    if serving.is_warm:
        ctx.warm = WarmServer(ctx.executor, ctx.settings, ctx.run_dir, ctx.run_id, ctx.progress.notice)


def _loops(ctx: RunContext, bounds: Bounds) -> StopReason:
    n_steps = 0
    loop = len(ctx.journal.finished_loops())
    if loop:
        _after_loop(ctx, loop - 1)  # a crash may have come between its record and its links
    while bounds.loop_n is None or loop < bounds.loop_n:
        for name, function in LOOP.items():
            if ctx.journal.is_done(loop, name):
                continue
            if bounds.step_n is not None and n_steps >= bounds.step_n:
                return "step_n"
            ctx.reserve_s = ctx.clock.reserve_s(_closing_s(ctx))
            if ctx.clock.expired(ctx.reserve_s):
                return "timeout"
            try:
                _step(ctx, loop, name, lambda f=function, n=loop: f(ctx, n), lambda _, n=loop: _looks(ctx, n))
            except BudgetError as error:
                ctx.progress.notice(error.message)
                return "budget"
            except TimeIsUpError as error:
                ctx.progress.notice(error.message)
                return "timeout"
            n_steps += 1
        _after_loop(ctx, loop)
        if _failed_in_a_row(ctx) >= ctx.settings.max_failures:
            return "failures"
        loop += 1
    return "loop_n"


def _close(ctx: RunContext, reason: StopReason) -> Status:
    """Claim and export the best model; `stopped` when this end leaves that to a resume."""
    if reason == "step_n":
        return "stopped"
    if reason == "timeout" and ctx.reserve_s == 0.0:
        return "stopped"
    ctx.reserve_s = 0.0
    best = best_candidate(ctx)
    if best is not None:
        _step(ctx, best, "claim", lambda: claim(ctx, best))
        claimed = ctx.journal.output(best, "claim", ClaimOutput)
        if claimed is not None and claimed.accepted:
            _step(ctx, best, "export", lambda: export(ctx, best))
    return "failed" if reason == "failures" else "finished"


def _step(
    ctx: RunContext,
    loop: int,
    name: StepName,
    function: Callable[[], Frozen],
    looks: Callable[[Frozen], Sequence[Look]] = lambda _: (),
) -> None:
    """Run one step unless it is done, and record it with its looks in one transaction."""
    if ctx.journal.is_done(loop, name):
        return
    if ctx.stop.number is not None:
        raise StopRun("interrupted")
    ctx.faults.hit(f"before:{name}")
    started_utc, started = utc_now(), time.monotonic()
    ctx.progress.step_started(loop, name)
    output = function()
    wall_s = time.monotonic() - started
    ctx.faults.hit(f"before-commit:{name}")
    ctx.journal.finish_step(
        loop,
        name,
        output,
        started_utc=started_utc,
        wall_s=wall_s,
        looks=looks(output) if name in {"baseline", "evaluate"} else (),
    )
    ctx.faults.hit(f"after-commit:{name}")
    ctx.progress.step_ended(loop, name, summarise_step(output), wall_s)


def _looks(ctx: RunContext, loop: int) -> Sequence[Look]:
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    recipe_hash = (proposal.recipe_hash if proposal is not None else None) or "none"
    target = ctx.prepared.target_benchmark
    return (Look(benchmark=target, split="val", loop=loop, recipe_hash=recipe_hash, purpose="select"),)


def _after_loop(ctx: RunContext, loop: int) -> None:
    """Refresh what people read; derived from the journal, so it is safe to repeat."""
    leader = ctx.parent_of(loop + 1)
    if leader is not None:
        link_best(ctx, leader)
    free_disk(ctx)
    ctx.executor.tidy(ctx.run_dir)
    _show_scores(ctx)
    write_reports(ctx.run_dir)


def _show_scores(ctx: RunContext) -> None:
    loops = ctx.journal.finished_loops()
    leader = ctx.parent_of(max(loops) + 1) if loops else None
    best = None if leader is None else ctx.journal.output(leader, "evaluate", EvaluateOutput)
    ctx.progress.scores(
        ctx.baseline.val.value, best.val.value if best is not None and best.val is not None else None
    )


def _failed_in_a_row(ctx: RunContext) -> int:
    count = 0
    for loop in reversed(ctx.journal.finished_loops()):
        verdict = ctx.journal.output(loop, "feedback", FeedbackOutput)
        if verdict is None or verdict.status != "failed":
            break
        count += 1
    return count


def _closing_s(ctx: RunContext) -> float:
    """Return the seconds that test and merge will need, from the measured speed of this run.

    Further seeds of the claim each need as long as the longest training so far.
    """
    base = ctx.journal.output(SETUP_LOOP, "baseline", BaselineOutput)
    if base is None:
        return 0.0
    n_test = ctx.prepared.splits["test"].n_items
    per_item_s = max(base.eval_s, 10.0) / max(1, base.val.n_expected + base.dev.n_expected)
    trainings = [
        output.train_s
        for loop in ctx.journal.finished_loops()
        if (output := ctx.journal.output(loop, "train", TrainOutput)) is not None
    ]
    n_seeds = ctx.settings.claim_seeds - 1
    return (2 + n_seeds) * per_item_s * n_test + MERGE_RESERVE_S + n_seeds * max(trainings, default=0.0)


def _owner() -> str:
    import os
    import socket

    return f"pid {os.getpid()} on {socket.gethostname()}"
