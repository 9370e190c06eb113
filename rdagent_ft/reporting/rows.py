"""Loops, benchmarks, failures and costs as rows of cleaned text, for the HTML and Markdown reports."""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.rows import Comparison, Score
from rdagent_ft.reporting.facts import STATUS_WORDS, Change, arrow, decision, recipe_changes, score_words
from rdagent_ft.reporting.plots import Part
from rdagent_ft.reporting.records import CodeOutput
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.reporting.stages import forecast_lines, kept_lines
from rdagent_ft.reporting.text import (
    clean_text,
    counted,
    duration,
    interval_points,
    money,
    one_line,
    percent,
    points,
    tail_lines,
    without_folders,
)
from rdagent_ft.reporting.view import LoopView, RunView
from rdagent_ft.values import Frozen


class LoopRow(Frozen):
    """One loop as text. Empty strings where nothing is recorded."""

    number: int
    status: Literal["accepted", "rejected", "failed", "open"]
    status_word: str
    leads: bool
    parent: str
    recipe_hash: str
    planner: str
    short: str
    hypothesis: str
    prediction: str
    cites: str
    val: str
    delta: str
    delta_ci: str
    arrow: str
    decision: str
    changes: tuple[Change, ...]
    facts: tuple[str, ...]
    lesson: str
    training: str
    kept: tuple[str, ...]
    forecast: tuple[str, ...]
    data: str
    notes: tuple[str, ...]
    minutes: str
    usd: str


class BenchmarkRow(Frozen):
    """One line of the verdict table."""

    benchmark: str
    split: str
    metric: str
    n: str
    base: str
    tuned: str
    delta: str
    ci95: str
    arrow: str
    mde: str
    verdict: str


class FailureRow(Frozen):
    """One failure: where, what class, whose fault, what it said, what to do, the end of the log."""

    place: str
    failure_class: str
    blame: str
    message: str
    fix: str
    log: str


def loop_rows(view: RunView) -> tuple[LoopRow, ...]:
    """Return all loops with a proposal, in order; an unfinished one has the status `open`."""
    best = view.best_loop
    return tuple(_loop_row(view, loop, leads=loop.number == best) for loop in view.loops)


def benchmark_rows(view: RunView) -> tuple[BenchmarkRow, ...]:
    """Return the claim and the reported benchmarks as a verdict table, the target first."""
    claim = view.claim
    if claim is None:
        return ()
    rows = [_benchmark_row(claim.base, claim.comparison, target=True)]
    rows += [
        _benchmark_row(beside.base, beside.comparison, openings=view.openings(name))
        for name, beside in claim.reported.items()
    ]
    return tuple(rows)


def failure_rows(view: RunView) -> tuple[FailureRow, ...]:
    """Return failures of loops, then attempts that failed and were tried again."""
    rows = [
        _failure_row(f"loop {loop.number}", loop.failure, _log(view, loop.number))
        for loop in view.loops
        if loop.failure is not None
    ]
    failed = {loop.number for loop in view.loops if loop.failure is not None}
    for attempt in view.attempts:
        result = attempt.result
        if result is None or result.failure_class == "ok" or attempt.loop in failed:
            continue
        place = f"loop {attempt.loop}" if attempt.loop >= 0 else "set-up"
        exit_code = "" if result.exit_code is None else f", exit code {result.exit_code}"
        rows.append(
            FailureRow(
                place=f"{place}, {attempt.step}, attempt {attempt.number}",
                failure_class=result.failure_class,
                blame="environment" if result.failure_class != "candidate" else "candidate",
                message=f"the job ended with: {one_line(result.reason)}{exit_code}",
                fix="tried again by the program" if result.failure_class == "infra" else "",
                log=without_folders(tail_lines(result.log_tail)),
            )
        )
    return tuple(rows)


def time_parts(view: RunView) -> tuple[Part, ...]:
    """Return where the run's seconds went, largest tasks by name, what no step covers as `between steps`."""
    groups = {
        "training": ("train",),
        "scoring": ("baseline", "evaluate", "claim"),
        "planning": ("propose", "feedback"),
        "data and checks": ("prepare", "code"),
        "hand-over": ("export",),
    }
    parts = [
        Part(label=label, tone=tone, amount=sum(r.wall_s for r in view.steps if r.step in steps))
        for tone, (label, steps) in enumerate(groups.items(), start=1)
    ]
    rest = view.wall_s - sum(part.amount for part in parts)
    return (*parts, Part(label="between steps", tone=6, amount=max(0.0, rest)))


def dropped_text(code: CodeOutput) -> str:
    """Return what a data mix left: `2,511 rows; left out: near duplicate 189`, and who made the rows."""
    text = counted(code.n_train_rows, "training row")
    left_out = ", ".join(f"{one_line(reason, 80)} {n:,}" for reason, n in code.dropped.items())
    parts = [text, f"left out: {left_out}" if left_out else "", code.script.words if code.script else ""]
    return "; ".join(part for part in parts if part)


def _loop_row(view: RunView, loop: LoopView, *, leads: bool) -> LoopRow:
    propose, evaluate = loop.propose, loop.evaluate
    paired = evaluate.vs_parent if evaluate else None
    status = loop.feedback.status if loop.feedback else "open"
    lesson = loop.feedback.lesson if loop.feedback else None
    return LoopRow(
        number=loop.number,
        status=status,
        status_word=STATUS_WORDS.get(status, "unfinished"),
        leads=leads,
        parent="the base model" if propose.parent is None else f"loop {propose.parent}",
        recipe_hash=propose.recipe_hash or "",
        planner=one_line(propose.planner, 40),
        short=one_line(propose.hypothesis, 140),
        hypothesis=clean_text(propose.hypothesis, 1_500),
        prediction=clean_text(propose.prediction, 800),
        cites=", ".join(one_line(cite, 60) for cite in propose.cites[:20]),
        val=score_words(evaluate.val) if evaluate and evaluate.val else "",
        delta=points(paired.delta) if paired else "",
        delta_ci=interval_points(paired.ci95) if paired else "",
        arrow=arrow(paired),
        decision=without_folders(decision(loop)),
        changes=recipe_changes(view.parent_recipe(loop), propose.recipe)[:60],
        facts=tuple(without_folders(one_line(fact)) for fact in _facts(loop)),
        lesson=clean_text(lesson or "", 1_500),
        training=_training(loop),
        kept=kept_lines(loop),
        forecast=forecast_lines(loop),
        data=dropped_text(loop.code) if loop.code and loop.code.n_train_rows else "",
        notes=tuple(without_folders(one_line(note)) for note in (loop.code.notes if loop.code else ())[:20]),
        minutes=duration(loop.wall_s),
        usd=money(loop.usd),
    )


def _facts(loop: LoopView) -> tuple[str, ...]:
    return loop.feedback.facts[:20] if loop.feedback else ()


def _training(loop: LoopView) -> str:
    if loop.train is None or loop.train.health is None:
        return ""
    health = loop.train.health
    text = f"{counted(health.n_steps, 'optimizer step')} in {duration(loop.train.train_s)}"
    if health.first_loss is not None and health.last_loss is not None:
        text += f", loss {health.first_loss:.3g} → {health.last_loss:.3g}"
    if health.verdict != "ok":
        text += f"; health: {health.verdict.replace('_', ' ')}"
        text += f" ({one_line(health.message, 200)})" if health.message else ""
    return text


def _benchmark_row(
    base: Score, paired: Comparison, *, target: bool = False, openings: int = 1
) -> BenchmarkRow:
    mark = " (target)" if target else (f" (opened {openings} times)" if openings > 1 else "")
    return BenchmarkRow(
        benchmark=one_line(paired.benchmark, 80) + mark,
        split=one_line(paired.split, 20),
        metric=base.scorer.replace("_", " "),
        n=f"{paired.n:,}",
        base=percent(paired.base),
        tuned=percent(paired.tuned),
        delta=points(paired.delta),
        ci95=interval_points(paired.ci95),
        arrow=arrow(paired),
        mde=f"{100 * paired.mde:.1f}",
        verdict=paired.verdict,
    )


def _failure_row(place: str, failure: Failure | None, log: str) -> FailureRow:
    assert failure is not None
    return FailureRow(
        place=place,
        failure_class=one_line(failure.failure_class, 80),
        blame=failure.blame,
        message=without_folders(clean_text(failure.message, 1_000)),
        fix=without_folders(one_line(failure.fix or "", 300)),
        log=log,
    )


def _log(view: RunView, loop: int) -> str:
    """Return the end of the last log of a loop's jobs."""
    results = [attempt.result for attempt in view.attempts if attempt.loop == loop and attempt.result]
    return without_folders(tail_lines(results[-1].log_tail)) if results else ""
