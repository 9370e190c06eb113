"""Step 4 of a loop: score the candidate on val and dev, paired with its parent and with the base."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.scoring import keep_samples, score_models, score_of, split_task, tuned_model
from rdagent_ft.evaluation.error_classes import count_errors
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.sample_files import read_samples
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.reporting.records import EvaluateOutput, TrainOutput


def evaluate(ctx: RunContext, loop: int) -> EvaluateOutput:
    """Return the candidate's scores and comparisons; skipped (failure passed on) without weights."""
    trained = ctx.journal.output(loop, "train", TrainOutput)
    assert trained is not None
    if trained.failure is not None:
        return EvaluateOutput(failure=trained.failure)
    val_task, dev_task = split_task(ctx, "val"), split_task(ctx, "dev")
    folder = ctx.loop_dir(loop) / "eval"
    scored = score_models(
        ctx, loop, "evaluate", (tuned_model(ctx, trained),), (val_task, dev_task), folder / "job"
    )
    if scored.failure is not None:
        return EvaluateOutput(failure=scored.failure, eval_s=scored.seconds)
    for rows in scored.samples.values():
        keep_samples(folder, rows)
    tuned = scored.samples["tuned", val_task.benchmark, "val"]
    margin = ctx.settings.equivalence_margin
    base = val_samples(ctx, None)
    parent = ctx.parent_of(loop)
    return EvaluateOutput(
        val=score_of(scored.samples, "tuned", val_task),
        dev=score_of(scored.samples, "tuned", dev_task),
        dev_errors=count_errors(ctx.prepared.scorer, scored.samples["tuned", dev_task.benchmark, "dev"]),
        vs_parent=compare(base if parent is None else val_samples(ctx, parent), tuned, margin=margin),
        vs_base=compare(base, tuned, margin=margin),
        eval_s=scored.seconds,
    )


def val_samples(ctx: RunContext, loop: int | None) -> list[SampleRow]:
    """Return the kept val rows of a loop, or of the base model for None."""
    folder: Path = ctx.run_dir / "baseline" / "eval" if loop is None else ctx.loop_dir(loop) / "eval"
    return read_samples(folder / f"{ctx.prepared.target_benchmark}-val" / "samples.jsonl")
