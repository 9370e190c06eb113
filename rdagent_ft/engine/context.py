"""What every step is given: the run's folder, journal, ports and clock, and nothing global."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from rdagent_ft.data.tokens import TextEncoder
from rdagent_ft.engine.bounds import Clock
from rdagent_ft.engine.faults import Faults
from rdagent_ft.engine.journal import Journal
from rdagent_ft.engine.judging import Judging
from rdagent_ft.engine.progress import Progress
from rdagent_ft.engine.warm_server import WarmServer
from rdagent_ft.errors import StateError
from rdagent_ft.evaluation.port import Harness
from rdagent_ft.execution.port import Executor
from rdagent_ft.llm.port import LlmClient
from rdagent_ft.planning.port import Planner
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import SETUP_LOOP, BaselineOutput, FeedbackOutput, PrepareOutput
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen


class RunRequest(Frozen):
    """What the user asked to be done; stored with the run and never changed by a resume.

    Attributes:
        dataset, model: as typed; `model` None lets the program choose.
        columns: canonical field -> column, from `--columns`.
        benchmarks: from `--benchmark`; None means the settings decide.
        recipe: loop 0's recipe instead of the default one (`--recipe`).
        preferences: dataset of preference rows for stages that train on given pairs.
    """

    dataset: str
    model: str | None = None
    columns: dict[str, str] | None = None
    benchmarks: tuple[str, ...] | None = None
    recipe: Recipe | None = None
    preferences: str | None = None


@dataclass
class StopSignal:
    """Set by the signal handlers; looked at between steps and while a job runs."""

    number: signal.Signals | None = None


@dataclass
class RunContext:
    """One invocation's view of one run.

    `encoder` is loaded on first use (`text_encoder`); `reserve_s` is the time kept for the closing;
    `warm` is the model server, None when each model is scored in a job; `judging` is the LLM judge.
    """

    run_id: str
    run_dir: Path
    request: RunRequest
    settings: Settings
    journal: Journal
    executor: Executor
    harness: Harness
    planner: Planner
    llm: LlmClient | None
    clock: Clock
    faults: Faults
    progress: Progress
    stop: StopSignal = field(default_factory=StopSignal)
    reserve_s: float = 0.0
    warm: WarmServer | None = None
    judging: Judging | None = None
    _encoder: TextEncoder | None = None

    @property
    def prepared(self) -> PrepareOutput:
        """The output of the `prepare` step. Raises `StateError` before it ran."""
        output = self.journal.output(SETUP_LOOP, "prepare", PrepareOutput)
        if output is None:
            raise StateError("the run has no prepared data yet")
        return output

    @property
    def baseline(self) -> BaselineOutput:
        """The output of the `baseline` step. Raises `StateError` before it ran."""
        output = self.journal.output(SETUP_LOOP, "baseline", BaselineOutput)
        if output is None:
            raise StateError("the run has no baseline yet")
        return output

    @property
    def text_encoder(self) -> TextEncoder:
        """The base model's tokenizer and template."""
        if self._encoder is None:
            from rdagent_ft.data.tokens import load_encoder

            self._encoder = load_encoder(Path(self.prepared.model.path))
        return self._encoder

    def loop_dir(self, loop: int) -> Path:
        """The folder of a loop: `loops/003`."""
        return self.run_dir / "loops" / f"{loop:03d}"

    def parent_of(self, loop: int) -> int | None:
        """The loop that leads before `loop` starts; None while the base model leads."""
        leader: int | None = None
        for done in self.journal.finished_loops():
            if done >= loop:
                break
            feedback = self.journal.output(done, "feedback", FeedbackOutput)
            if feedback is not None and feedback.new_parent:
                leader = done
        return leader

    def relative(self, path: Path) -> str:
        """A path inside the run directory as the journal stores it."""
        return str(path.relative_to(self.run_dir))
