"""The executor port: how the engine asks for a sandboxed execution and learns its end.

A job is submitted by attempt id; submitting the same id again adopts what is there, so that a
controller that died between its intent and its record never starts a job twice. Executors know
nothing of recipes or scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from rdagent_ft.execution.machine import Gpu
from rdagent_ft.values import Frozen

JobKind = Literal["pretrain", "train", "train_llamafactory", "evaluate", "merge", "data", "serve"]
FailureClass = Literal["ok", "candidate", "resource", "infra", "stopped"]


class JobSpec(Frozen):
    """One execution that is asked for.

    Attributes:
        attempt_id: unique name of this try, e.g. `r-20261120-a1b2-003-train-1`.
        kind: what it does; only for people and labels.
        argv: command as a list; never a shell string. argv[0] == "python" means the executor's
            Python of the train environment.
        out_dir: the one writable folder; also the working directory. Created by the executor.
        inputs: name -> read-only path the job reads (recorded; container executors mount it at the
            same path, so that a config is right wherever it runs).
        aliases: second absolute path inside the container -> an input's name, or `out`; only container
            executors can give them, others refuse the job.
        scratch: names at the top of `out_dir` that matter only to a retry (checkpoints); never stored
            with a cached result.
        labels: `run`, `loop`, `stage`, `run_dir`: whom the job belongs to, for people and the reaper.
        env: extra variables; never a secret.
        deadline_unix: absolute end in Unix seconds; after it the job is stopped.
        needs_gpu: a request that cannot be met fails the attempt as `infra`.
    """

    attempt_id: str
    kind: JobKind
    argv: tuple[str, ...]
    out_dir: Path
    inputs: dict[str, Path] = {}
    aliases: dict[str, str] = {}
    scratch: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    env: dict[str, str] = {}
    deadline_unix: float
    needs_gpu: bool = False


class JobHandle(Frozen):
    """What finds the job again after a crash of the controller. JSON-serialisable."""

    executor: str
    attempt_id: str
    out_dir: Path
    ref: dict[str, Any] = {}


class JobState(Frozen):
    """A look at a job. `ended` means `collect` will not wait."""

    state: Literal["running", "ended"]


class JobResult(Frozen):
    """How a job ended.

    Attributes:
        failure_class: `ok` only when the exit code is 0 and the deadline was kept.
        reason: short word, e.g. `exit`, `deadline`, `cancelled`, `killed`, `lost`, `start_failed`.
        exit_code: the process's own code; negative is a signal; None when it is unknown.
        started_unix / ended_unix: wall clock, Unix seconds.
        log_tail: the last 4,000 characters of the merged output, control characters removed.
        evidence: what else the executor knows of the end: OOM flag, deadline, image, engine.
    """

    failure_class: FailureClass
    reason: str
    exit_code: int | None
    started_unix: float
    ended_unix: float
    log_tail: str = ""
    evidence: dict[str, Any] = {}


class Executor(Protocol):
    """Where jobs run. All methods may be called again after a crash with the same arguments."""

    name: str

    @property
    def shares_files(self) -> bool:
        """Whether jobs write straight into our folders, so that a socket there can be connected to."""
        ...

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start the job, or adopt the one that already has this attempt id."""
        ...

    def poll(self, handle: JobHandle) -> JobState:
        """Return whether the job still runs. Never blocks."""
        ...

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job and everything it started; idempotent; returns when nothing is left."""
        ...

    def collect(self, handle: JobHandle) -> JobResult:
        """Return how an ended job ended. Raises `JobError` when it still runs."""
        ...

    def log_path(self, handle: JobHandle) -> Path:
        """Return the file that holds the job's merged output, bounded. It may not exist yet."""
        ...

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs that jobs of this executor can be given; () where there is none."""
        ...

    def tidy(self, run_dir: Path) -> None:
        """Remove what ended jobs of a run left with the executor; called at start and after each loop."""
        ...

    def forget(self, result: JobResult) -> None:
        """Never return this result for an equal job: it ended well and yet left nothing of use."""
        ...

    def abandoned(self) -> list[Path]:
        """Return the run folders of jobs still held here whose controller is gone; for `reap`.

        A folder may be locked by a new controller that adopts its jobs: the caller looks.
        """
        ...

    def reap(self, folder: Path) -> list[str]:
        """Stop jobs under `folder` (an output folder of jobs) whose end nobody waits for any more.

        Returns the attempt ids that were stopped. Only for runs that no live process owns.
        """
        ...
