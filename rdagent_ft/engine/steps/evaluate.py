"""Step 4 of a loop: score the candidate on val and dev, paired with its parent and with the base."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.scoring import keep_samples, score_models, score_of, split_task, tuned_model
from rdagent_ft.engine.steps.race import race_val
from rdagent_ft.evaluation.error_classes import count_errors
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.sample_files import read_samples
from rdagent_ft.evaluation.statistics import compare, summarise
from rdagent_ft.reporting.records import EvaluateOutput, TrainOutput


def evaluate(ctx: RunContext, loop: int) -> EvaluateOutput:
    """Return the candidate's scores and comparisons; skipped (failure passed on) without weights."""
    trained = ctx.journal.output(loop, "train", TrainOutput)
    assert trained is not None
    if trained.failure is not None:
        return EvaluateOutput(failure=trained.failure)
    val_task, dev_task = split_task(ctx, "val"), split_task(ctx, "dev")
    folder = ctx.loop_dir(loop) / "eval"
    parent = ctx.parent_of(loop)
    base = val_samples(ctx, None)
    leader = base if parent is None else val_samples(ctx, parent)
    model = tuned_model(ctx, trained)
    # A job answers both splits at once; with a warm server val is a race.
    tasks = (val_task, dev_task) if ctx.warm is None else (dev_task,)
    scored = score_models(ctx, loop, "evaluate", (model,), tasks, folder / "job")
    if scored.failure is not None:
        return EvaluateOutput(failure=scored.failure, eval_s=scored.seconds)
    samples, seconds, share = dict(scored.samples), scored.seconds, 1.0
    val_key = "tuned", val_task.benchmark, "val"
    if ctx.warm is not None:
        raced = race_val(ctx, loop, model, leader, val_task)
        seconds, share = seconds + raced.seconds, raced.share
        if raced.failure is not None:
            return EvaluateOutput(failure=raced.failure, eval_s=seconds)
        samples[val_key] = raced.rows
    for rows in samples.values():
        keep_samples(folder, rows)
    tuned = samples[val_key]
    margin = ctx.settings.equivalence_margin
    return EvaluateOutput(
        val=summarise(tuned, scorer=val_task.scorer, n_expected=len(tuned)),
        dev=score_of(samples, "tuned", dev_task),
        dev_errors=count_errors(ctx.prepared.scorer, samples["tuned", dev_task.benchmark, "dev"]),
        vs_parent=compare(_same_items(leader, tuned), tuned, margin=margin),
        vs_base=compare(_same_items(base, tuned), tuned, margin=margin),
        share_scored=share,
        eval_s=seconds,
    )


def _same_items(rows: list[SampleRow], tuned: list[SampleRow]) -> list[SampleRow]:
    """Return the rows of the items that the candidate was asked: all of them, unless a race ended early."""
    asked = {row.item_id for row in tuned}
    return [row for row in rows if row.item_id in asked]


def val_samples(ctx: RunContext, loop: int | None) -> list[SampleRow]:
    """Return the kept val rows of a loop, or of the base model for None."""
    folder: Path = ctx.run_dir / "baseline" / "eval" if loop is None else ctx.loop_dir(loop) / "eval"
    return read_samples(folder / f"{ctx.prepared.target_benchmark}-val" / "samples.jsonl")
