"""The one JSON document of a run: what `--json` prints and scripts may rely on (schema_version 1).

`status_document` adds every step with its attempts. Paths in `best` are absolute. Free text is
cleaned, so that the document can be printed on a terminal.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.rows import Score, ScorerName, Verdict
from rdagent_ft.execution.port import FailureClass
from rdagent_ft.planning.port import LoopStatus
from rdagent_ft.reporting.records import CLOSING_STEPS, LOOP_STEPS, SETUP_STEPS, StepName
from rdagent_ft.reporting.text import clean_text
from rdagent_ft.reporting.view import AttemptRecord, LoopView, RunStatus, RunView, StopReason
from rdagent_ft.values import Frozen


class ScoreDocument(Frozen):
    """A mean in 0..1 with its standard error over `n` items."""

    score: float
    stderr: float
    n: int


class BaselineDocument(Frozen):
    """The base model on the split that selects."""

    benchmark: str
    split: str
    scorer: ScorerName
    score: float
    stderr: float
    n: int
    ci95: tuple[float, float]


class LoopDocument(Frozen):
    """A finished loop; `delta` and `ci95` are paired against the parent on the same items."""

    loop: int
    status: LoopStatus
    recipe_hash: str | None
    hypothesis: str
    val: ScoreDocument | None
    delta: float | None
    ci95: tuple[float, float] | None


class BestDocument(Frozen):
    """The model that leads; all null while that is the base model."""

    loop: int | None = None
    adapter: str | None = None
    merged: str | None = None


class ClaimDocument(Frozen):
    """The sealed test. `opening` counts openings of the split, `accepted` tells whether the loop leads."""

    benchmark: str
    split: str
    n: int
    base: float
    tuned: float
    delta: float
    ci95: tuple[float, float]
    verdict: Verdict
    loop: int
    accepted: bool
    opening: int


class CostDocument(Frozen):
    """Money in dollars (open reservations included), time in seconds."""

    llm_usd: float
    llm_tokens: int
    train_s: float
    eval_s: float
    wall_s: float


class RunDocument(Frozen):
    """See the module."""

    schema_version: Literal[1] = 1
    run_id: str
    run_dir: str
    status: RunStatus
    stop_reason: StopReason | None
    baseline: BaselineDocument | None
    loops: tuple[LoopDocument, ...]
    best: BestDocument
    claim: ClaimDocument | None
    cost: CostDocument


class AttemptDocument(Frozen):
    """One try of a step's job; the last five fields are null until it ends."""

    attempt_id: str
    number: int
    kind: str
    status: Literal["intent", "running", "done"]
    created_utc: str
    ended_utc: str | None
    failure_class: FailureClass | None
    reason: str | None
    exit_code: int | None
    seconds: float | None


class StepDocument(Frozen):
    """One step, done or open. Loop -1 holds the set-up; end and duration are null while it is open."""

    loop: int
    step: StepName
    status: Literal["done", "open"]
    started_utc: str | None
    ended_utc: str | None
    wall_s: float | None
    attempts: tuple[AttemptDocument, ...]


class StatusDocument(RunDocument):
    """The run's document plus every step in the order of its end, open ones last."""

    steps: tuple[StepDocument, ...]


def run_document(view: RunView) -> RunDocument:
    """Return the run as the document that `--json` prints."""
    status, stop_reason = view.status
    return RunDocument(
        run_id=view.run_id,
        run_dir=str(view.run_dir),
        status=status,
        stop_reason=stop_reason,
        baseline=_baseline(view),
        loops=tuple(_loop(loop) for loop in view.finished_loops),
        best=best_document(view),
        claim=_claim(view),
        cost=CostDocument(
            llm_usd=sum(call.usd for call in view.llm_calls),
            llm_tokens=sum(call.input_tokens + call.output_tokens for call in view.llm_calls),
            train_s=view.train_s,
            eval_s=view.eval_s,
            wall_s=view.wall_s,
        ),
    )


def status_document(view: RunView) -> StatusDocument:
    """Return the run's document with every step and its attempts."""
    known = run_document(view)
    fields = {name: getattr(known, name) for name in RunDocument.model_fields}
    return StatusDocument(**fields, steps=_steps(view))


def best_document(view: RunView) -> BestDocument:
    """Return the leading loop with absolute paths of its weights.

    Before the export, `adapter` is the trained one and `merged` is null.
    """
    loop = view.loop(view.best_loop)
    if loop is None:
        return BestDocument()
    export = view.export(loop.number)
    if export is not None:
        adapter = None if export.adapter is None else str(view.run_dir / export.adapter)
        return BestDocument(loop=loop.number, adapter=adapter, merged=str(view.run_dir / export.merged))
    trained = loop.train
    if trained is None or trained.kind != "lora" or trained.weights is None:
        return BestDocument(loop=loop.number)
    return BestDocument(loop=loop.number, adapter=str(view.run_dir / trained.weights))


def _baseline(view: RunView) -> BaselineDocument | None:
    if view.baseline is None:
        return None
    val = view.baseline.val
    return BaselineDocument(
        benchmark=val.benchmark,
        split=val.split,
        scorer=val.scorer,
        score=val.value,
        stderr=val.stderr,
        n=val.n,
        ci95=val.ci95,
    )


def _loop(loop: LoopView) -> LoopDocument:
    assert loop.feedback is not None
    val = loop.evaluate.val if loop.evaluate else None
    paired = loop.evaluate.vs_parent if loop.evaluate else None
    return LoopDocument(
        loop=loop.number,
        status=loop.feedback.status,
        recipe_hash=loop.propose.recipe_hash,
        hypothesis=clean_text(loop.propose.hypothesis),
        val=_score(val),
        delta=paired.delta if paired else None,
        ci95=paired.ci95 if paired else None,
    )


def _score(score: Score | None) -> ScoreDocument | None:
    return None if score is None else ScoreDocument(score=score.value, stderr=score.stderr, n=score.n)


def _claim(view: RunView) -> ClaimDocument | None:
    claim = view.claim
    if claim is None:
        return None
    paired = claim.comparison
    return ClaimDocument(
        benchmark=paired.benchmark,
        split=paired.split,
        n=paired.n,
        base=paired.base,
        tuned=paired.tuned,
        delta=paired.delta,
        ci95=paired.ci95,
        verdict=paired.verdict,
        loop=claim.loop,
        accepted=claim.accepted,
        opening=claim.opening,
    )


def _steps(view: RunView) -> tuple[StepDocument, ...]:
    attempts: dict[tuple[int, StepName], list[AttemptDocument]] = {}
    for attempt in view.attempts:
        attempts.setdefault((attempt.loop, attempt.step), []).append(_attempt(attempt))
    done = [
        StepDocument(
            loop=record.loop,
            step=record.step,
            status="done",
            started_utc=record.started_utc,
            ended_utc=record.ended_utc,
            wall_s=record.wall_s,
            attempts=tuple(attempts.pop((record.loop, record.step), ())),
        )
        for record in view.steps
    ]
    order: tuple[StepName, ...] = (*SETUP_STEPS, *LOOP_STEPS, *CLOSING_STEPS)
    still_open = [
        StepDocument(
            loop=loop,
            step=step,
            status="open",
            started_utc=tries[0].created_utc,
            ended_utc=None,
            wall_s=None,
            attempts=tuple(tries),
        )
        for (loop, step), tries in sorted(
            attempts.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    ]
    return (*done, *still_open)


def _attempt(attempt: AttemptRecord) -> AttemptDocument:
    result = attempt.result
    return AttemptDocument(
        attempt_id=attempt.attempt_id,
        number=attempt.number,
        kind=attempt.kind,
        status=attempt.status,
        created_utc=attempt.created_utc,
        ended_utc=attempt.ended_utc,
        failure_class=result.failure_class if result else None,
        reason=result.reason if result else None,
        exit_code=result.exit_code if result else None,
        seconds=result.ended_unix - result.started_unix if result else None,
    )
