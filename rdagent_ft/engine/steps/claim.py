"""Closing step 1: open the sealed test split for the best model, once, and claim what it shows.

The look is written down before the job starts: a crash cannot hide an opening. Base and tuned are
scored in the same job on the same items; reported benchmarks ride along and decide nothing.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.journal import Look
from rdagent_ft.engine.scoring import (
    Samples,
    base_model,
    benchmark_task,
    keep_samples,
    score_models,
    score_of,
    split_task,
    tuned_model,
)
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.benchmarks import find_benchmark, load_items
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.reporting.records import (
    ClaimOutput,
    EvaluateOutput,
    FeedbackOutput,
    ProposeOutput,
    ReportedBenchmark,
    TrainOutput,
)


def claim(ctx: RunContext, loop: int) -> ClaimOutput:
    """Return the claim for `loop`. Raises `JobError` when the test split could not be scored."""
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    trained = ctx.journal.output(loop, "train", TrainOutput)
    evaluated = ctx.journal.output(loop, "evaluate", EvaluateOutput)
    verdict = ctx.journal.output(loop, "feedback", FeedbackOutput)
    assert proposal is not None
    assert trained is not None
    assert verdict is not None
    assert evaluated is not None
    assert evaluated.vs_base is not None
    recipe_hash = proposal.recipe_hash or ""
    test_task = split_task(ctx, "test")
    opening = ctx.journal.look(
        Look(benchmark=test_task.benchmark, split="test", loop=loop, recipe_hash=recipe_hash, purpose="claim")
    )
    tasks = (test_task, *_reported_tasks(ctx))
    folder = ctx.loop_dir(loop) / "eval"
    scored = score_models(
        ctx,
        loop,
        "claim",
        (base_model(ctx), tuned_model(ctx, trained)),
        tasks,
        folder / "claim-job",
        must_succeed=True,
    )
    if scored.failure is not None:
        raise JobError(
            f"the test split could not be scored: {scored.failure.message} [{scored.failure.failure_class}]",
            hint="`rdagent-ft resume` tries the claim again",
        )
    for (role, _, _), rows in scored.samples.items():
        keep_samples(folder if role == "tuned" else ctx.run_dir / "baseline" / "eval", rows)
    margin = ctx.settings.equivalence_margin
    target = _pair(scored.samples, test_task, margin)
    return ClaimOutput(
        loop=loop,
        recipe_hash=recipe_hash,
        accepted=verdict.new_parent,
        base=target.base,
        tuned=target.tuned,
        comparison=target.comparison,
        val_delta=evaluated.vs_base.delta,
        optimism=evaluated.vs_base.delta - target.comparison.delta,
        opening=opening,
        reported={task.benchmark: _pair(scored.samples, task, margin) for task in tasks[1:]},
        eval_s=scored.seconds,
    )


def _reported_tasks(ctx: RunContext) -> tuple[EvalTask, ...]:
    tasks: list[EvalTask] = []
    for name in ctx.prepared.reported_benchmarks:
        found = find_benchmark(name, ctx.settings.file_path)
        if found is None:
            raise JobError(f"benchmark {name!r} was there when the run began and is gone now")
        rows = load_items(found, ctx.settings.benchmark_limit, ctx.settings.seed)
        tasks.append(benchmark_task(ctx, found, rows))
    return tuple(tasks)


def _pair(samples: Samples, task: EvalTask, margin: float) -> ReportedBenchmark:
    base = samples["base", task.benchmark, task.split]
    tuned = samples["tuned", task.benchmark, task.split]
    return ReportedBenchmark(
        base=score_of(samples, "base", task),
        tuned=score_of(samples, "tuned", task),
        comparison=compare(base, tuned, margin=margin),
    )
