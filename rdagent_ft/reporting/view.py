"""A run as reports see it: frozen values read from the journal, and the few questions asked of them.

Not here: reading (`read.py`) and wording (`text.py`, `facts.py`). Paths inside are relative to
`run_dir` unless said otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from rdagent_ft.execution.port import JobKind, JobResult
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import (
    SETUP_LOOP,
    BaselineOutput,
    ClaimOutput,
    CodeOutput,
    EvaluateOutput,
    ExportOutput,
    FeedbackOutput,
    PrepareOutput,
    ProposeOutput,
    StepName,
    TrainOutput,
)
from rdagent_ft.reporting.seal import Seal
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.values import Frozen

StepOutput = (
    PrepareOutput
    | BaselineOutput
    | ProposeOutput
    | CodeOutput
    | TrainOutput
    | EvaluateOutput
    | FeedbackOutput
    | ClaimOutput
    | ExportOutput
)
RunStatus = Literal["running", "finished", "stopped", "failed", "interrupted"]
StopReason = Literal["loop_n", "step_n", "timeout", "budget", "interrupted", "failures", "error"]
T = TypeVar("T", bound=StepOutput)


class StepRecord(Frozen):
    """A finished step. Times are ISO 8601 in UTC."""

    loop: int
    step: StepName
    output: StepOutput
    started_utc: str
    ended_utc: str
    wall_s: float


class AttemptRecord(Frozen):
    """One try of a step's job; its command line stays in the journal."""

    attempt_id: str
    loop: int
    step: StepName
    number: int
    kind: JobKind
    status: Literal["intent", "running", "done"]
    result: JobResult | None
    created_utc: str
    ended_utc: str | None


class LlmCall(Frozen):
    """One line of the ledger; `usd` is the settled cost, or the reservation while it is open."""

    role: str
    model: str
    input_tokens: int
    output_tokens: int
    usd: float
    created_utc: str


class LlmTotal(Frozen):
    """What one role spent with one model."""

    role: str
    model: str
    n_calls: int
    n_tokens: int
    usd: float


class Invocation(Frozen):
    """One process that worked on the run. `ended_utc` is None while it works or after it died."""

    number: int
    started_utc: str
    ended_utc: str | None
    owner: str
    bounds: dict[str, Any]
    stop_reason: StopReason | None
    status: RunStatus | None
    active_s: float | None


class LookRecord(Frozen):
    """One look at a split whose items must not steer."""

    utc: str
    benchmark: str
    split: str
    loop: int
    recipe_hash: str
    purpose: str


class LoopView(Frozen):
    """All that is recorded of one loop; `wall_s` and `usd` cover the steps recorded so far."""

    number: int
    propose: ProposeOutput
    code: CodeOutput | None = None
    train: TrainOutput | None = None
    evaluate: EvaluateOutput | None = None
    feedback: FeedbackOutput | None = None
    wall_s: float = 0.0
    usd: float = 0.0

    @property
    def failure(self) -> Failure | None:
        """The first recorded failure in the order of the steps."""
        steps = (self.propose, self.code, self.train, self.evaluate, self.feedback)
        return next((step.failure for step in steps if step is not None and step.failure is not None), None)


class RunView(Frozen):
    """Everything that a report may say about a run.

    Attributes:
        run_dir: absolute path of the run directory.
        request: what the user asked for: dataset, model, columns, benchmarks.
        settings: stored settings without secrets.
        seal: whether the looks are those that were written.
        environment: package -> version, from the newest event of kind `environment`.
        last_utc: newest time stamp in the journal.
        is_live: whether a process holds the run's lock (only looked at while an invocation is open).
    """

    run_dir: Path
    run_id: str
    created_utc: str
    code_version: str
    request: dict[str, Any]
    settings: dict[str, Any]
    steps: tuple[StepRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    llm_calls: tuple[LlmCall, ...]
    invocations: tuple[Invocation, ...]
    looks: tuple[LookRecord, ...]
    seal: Seal = Seal()
    environment: dict[str, str]
    last_utc: str
    is_live: bool

    def output(self, loop: int, step: StepName, kind: type[T]) -> T | None:
        """Return the output of a finished step, or None."""
        for record in self.steps:
            if record.loop == loop and record.step == step and isinstance(record.output, kind):
                return record.output
        return None

    @property
    def prepare(self) -> PrepareOutput | None:
        """Data and model, once the set-up is done."""
        return self.output(SETUP_LOOP, "prepare", PrepareOutput)

    @property
    def baseline(self) -> BaselineOutput | None:
        """The base model's scores, once measured."""
        return self.output(SETUP_LOOP, "baseline", BaselineOutput)

    @cached_property
    def loops(self) -> tuple[LoopView, ...]:
        """Loops with at least a proposal, in order; a finished one has `feedback`."""
        usd = _usd_by_loop(self)
        return tuple(
            _loop_view(self, record.loop, record.output, usd.get(record.loop, 0.0))
            for record in sorted(self.steps, key=lambda record: record.loop)
            if record.step == "propose" and isinstance(record.output, ProposeOutput)
        )

    @property
    def finished_loops(self) -> tuple[LoopView, ...]:
        """Loops whose feedback is recorded."""
        return tuple(loop for loop in self.loops if loop.feedback is not None)

    @property
    def best_loop(self) -> int | None:
        """The last loop that became the parent; None while the base model leads."""
        leaders = [loop.number for loop in self.finished_loops if loop.feedback and loop.feedback.new_parent]
        return leaders[-1] if leaders else None

    @property
    def claim(self) -> ClaimOutput | None:
        """The claim about the best loop if there is one, else the newest claim, else None."""
        claims = [record for record in self.steps if isinstance(record.output, ClaimOutput)]
        claims.sort(key=lambda record: (record.loop == self.best_loop, record.ended_utc))
        newest = claims[-1].output if claims else None
        return newest if isinstance(newest, ClaimOutput) else None

    def export(self, loop: int | None) -> ExportOutput | None:
        """What was handed over of a loop."""
        return None if loop is None else self.output(loop, "export", ExportOutput)

    def loop(self, number: int | None) -> LoopView | None:
        """The loop of this number, or None."""
        return next((loop for loop in self.loops if loop.number == number), None)

    def parent_recipe(self, loop: LoopView) -> Recipe | None:
        """The recipe that a loop changed: its parent's, else loop 0's; None for loop 0 itself."""
        if loop.number == 0:
            return None
        parent = self.loop(loop.propose.parent if loop.propose.parent is not None else 0)
        return None if parent is None else parent.propose.recipe

    @property
    def llm_totals(self) -> tuple[LlmTotal, ...]:
        """Ledger totals by role and model, in order of first use."""
        groups: dict[tuple[str, str], list[LlmCall]] = {}
        for call in self.llm_calls:
            groups.setdefault((call.role, call.model), []).append(call)
        return tuple(
            LlmTotal(
                role=role,
                model=model,
                n_calls=len(calls),
                n_tokens=sum(call.input_tokens + call.output_tokens for call in calls),
                usd=sum(call.usd for call in calls),
            )
            for (role, model), calls in groups.items()
        )

    @property
    def train_s(self) -> float:
        """Seconds of training over all loops."""
        return sum(loop.train.train_s for loop in self.loops if loop.train is not None)

    @property
    def eval_s(self) -> float:
        """Seconds of evaluation: baseline, loops and claims."""
        outputs = [record.output for record in self.steps]
        return sum(
            output.eval_s
            for output in outputs
            if isinstance(output, (BaselineOutput, EvaluateOutput, ClaimOutput))
        )

    @property
    def wall_s(self) -> float:
        """Seconds that processes worked on the run.

        An invocation without a recorded end counts up to the newest record of the journal (or up
        to the start of the next one), so that the figure depends on the journal alone.
        """
        total = 0.0
        for index, invocation in enumerate(self.invocations):
            if invocation.active_s is not None:
                total += invocation.active_s
                continue
            following = self.invocations[index + 1 : index + 2]
            end = following[0].started_utc if following else self.last_utc
            total += max(0.0, seconds_between(invocation.started_utc, end))
        return total

    @property
    def status(self) -> tuple[RunStatus, StopReason | None]:
        """What the run is doing, and why it stopped."""
        last = self.invocations[-1] if self.invocations else None
        if last is not None and last.ended_utc is not None:
            return last.status or "stopped", last.stop_reason
        return ("running", None) if self.is_live else ("interrupted", "interrupted")

    def n_looks(self, split: str) -> int:
        """How many distinct looks at candidates the target benchmark's split had."""
        target = self.prepare.target_benchmark if self.prepare else None
        return sum(
            look.split == split and look.benchmark == target and look.loop != SETUP_LOOP
            for look in self.looks
        )

    def openings(self, benchmark: str) -> int:
        """How often a claim opened the test items of a benchmark; 0 in runs that did not write it down."""
        return sum(look.split == "test" and look.benchmark == benchmark for look in self.looks)


def parse_utc(text: str) -> datetime:
    """Return an ISO 8601 time stamp of the journal as a datetime."""
    return datetime.fromisoformat(text)


def seconds_between(start_utc: str, end_utc: str) -> float:
    """Return end - start in seconds."""
    return (parse_utc(end_utc) - parse_utc(start_utc)).total_seconds()


def _loop_view(view: RunView, number: int, propose: ProposeOutput, usd: float) -> LoopView:
    closing = ("claim", "export")
    return LoopView(
        number=number,
        propose=propose,
        code=view.output(number, "code", CodeOutput),
        train=view.output(number, "train", TrainOutput),
        evaluate=view.output(number, "evaluate", EvaluateOutput),
        feedback=view.output(number, "feedback", FeedbackOutput),
        wall_s=sum(r.wall_s for r in view.steps if r.loop == number and r.step not in closing),
        usd=usd,
    )


def _usd_by_loop(view: RunView) -> dict[int, float]:
    """Return loop -> what its LLM calls cost.

    The ledger knows no loops. A call belongs to the step that was running when it was made; steps
    never overlap. A call outside of all of them was made by a step that died and began again: it
    belongs to the next step that ended.
    """
    steps = sorted((parse_utc(r.started_utc), parse_utc(r.ended_utc), r.loop) for r in view.steps)
    starts = [started for started, _, _ in steps]
    totals: dict[int, float] = {}
    for call in view.llm_calls:
        made = parse_utc(call.created_utc)
        index = bisect_right(starts, made) - 1
        if index < 0 or steps[index][1] < made:
            index += 1
        if index < len(steps):
            loop = steps[index][2]
            totals[loop] = totals.get(loop, 0.0) + call.usd
    return totals
