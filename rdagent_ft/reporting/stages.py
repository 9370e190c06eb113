"""The stages of a loop's training, for the report: what started from what, what was learnt, kept, mended."""

from __future__ import annotations

from typing import Any

from rdagent_ft.reporting.records import TrainOutput
from rdagent_ft.reporting.stage_records import StageOutput
from rdagent_ft.reporting.text import counted, duration, one_line
from rdagent_ft.reporting.view import LoopView, RunView

FIRST_STAGE = "stages/1-sft"
"""Where the only stage of a loop lies that was journaled before stages had records of their own."""
MAX_METRICS = 4
_TELLING = (
    "rewards/accuracies", "rewards/margins", "reward", "reward_std", "accuracy", "kl", "entropy",
    "completions/clipped_ratio", "max_logit_diff",
)  # fmt: skip


def curve_folder(loop: LoopView) -> str:
    """Return the folder, inside the run directory, whose metrics the loop's curve is drawn from."""
    train = loop.train
    trained = [stage for stage in train.stages if stage.kind != "merge"] if train is not None else []
    if trained:
        return f"{trained[-1].folder}/attempt-{max(trained[-1].attempts, 1)}"
    attempts = train.attempts if train is not None else 1
    return f"loops/{loop.number:03d}/{FIRST_STAGE}/attempt-{max(attempts, 1)}"


def stage_tables(view: RunView) -> list[dict[str, Any]]:
    """Return one table for each loop with several stages, a mended one or held-out rows, newest first."""
    tables: list[dict[str, Any]] = []
    for loop in reversed(view.loops):
        if loop.train is not None and _is_telling(loop.train):
            rows = [_row(stage) for stage in loop.train.stages]
            tables.append({"number": loop.number, "rows": rows})
    return tables


def _is_telling(train: TrainOutput) -> bool:
    return len(train.stages) > 1 or any(stage.repairs or kept_words(stage) for stage in train.stages)


def kept_lines(loop: LoopView) -> tuple[str, ...]:
    """Return which weights each stage with held-out rows left, one sentence a stage."""
    stages = () if loop.train is None else loop.train.stages
    said = ((f"stage {stage.number} ({stage.kind})", kept_words(stage)) for stage in stages)
    return tuple(f"{name} {words}" for name, words in said if words)


def forecast_lines(loop: LoopView) -> tuple[str, ...]:
    """Return what was forecast beside what it took, and what probes found; nothing without a code step."""
    code = loop.code
    if code is None or code.estimate_gib is None:
        return ()
    said = f"about {code.estimate_gib:.2f} GiB"
    if code.forecast_s is not None:
        said += f" and {code.forecast_s:,.0f} s of training"
        if loop.train is not None and loop.train.failure is None:
            said += f" (its jobs took {loop.train.train_s:,.0f} s, start and saving included)"
    return (said, *(one_line(probe.words(), 400) for probe in code.probes))


def kept_words(stage: StageOutput) -> str:
    """Return which step's weights a stage left and how it was chosen; "" when no row was held out."""
    kept = stage.kept
    if kept is None:
        return ""
    metric, rows = one_line(kept.metric, 60), f"on {counted(kept.n_held_out, 'held-out row')}"
    if kept.best_step is None or kept.best_value is None:
        why = f"{metric} {rows} was never a number"
    elif kept.best_step == kept.step:
        why = f"best {metric} {kept.best_value:.3g} {rows}"
    else:
        why = f"the last one; best {metric} {kept.best_value:.3g} {rows} at step {kept.best_step:,}"
    return f"kept step {kept.step:,} of {kept.n_steps:,} ({why})"


def _row(stage: StageOutput) -> dict[str, Any]:
    start = "base model" if stage.parent is None else f"stage {stage.parent}"
    return {
        "name": f"{stage.number}. {stage.kind}",
        "start": start,
        "reference": (stage.reference or "none").replace("base", "base model"),
        "rows": f"{stage.n_rows:,}" if stage.n_rows else "",
        "time": duration(stage.train_s),
        "learnt": _learnt(stage),
        "kept": kept_words(stage) or ("the last ones" if stage.weights and stage.kind != "merge" else ""),
        "mended": "; ".join(one_line(words, 160) for words in stage.repairs),
    }


def _learnt(stage: StageOutput) -> str:
    """Return what the stage's own measures say, first to last logged value."""
    if stage.failure is not None:
        return f"failed: {one_line(stage.failure.failure_class, 60)}"
    found: list[str] = []
    health = stage.health
    if health is not None and health.first_loss is not None and health.last_loss is not None:
        found.append(f"loss {health.first_loss:.3g} to {health.last_loss:.3g}")
    for name in _TELLING:
        if name in stage.metrics and len(found) < MAX_METRICS:
            first, last = stage.metrics[name]
            found.append(f"{name} {first:.3g} to {last:.3g}" if first != last else f"{name} {last:.2g}")
    return ", ".join(found)
