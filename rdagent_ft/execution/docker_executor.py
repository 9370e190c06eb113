"""Executor `docker`: a job is one container, contained by `docker_profile`, watched from outside.

The engine is the memory: a container carries its attempt's name and labels, so a controller that
comes back finds it and nobody can start it twice. What the controller itself keeps of an attempt lies
beside the job's folder (`.attempt-1/` beside `attempt-1/`), where the job cannot write. What the
sandbox promises, and what it does not, is in docs/execution.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rdagent_ft.errors import EngineAwayError, EngineRefusedError, JobError, RdagentFtError
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_archives import OutputTooLargeError
from rdagent_ft.execution.docker_control import RESULT_NAME, control_folder, read_result
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_files import JobFiles, NearFiles
from rdagent_ft.execution.docker_gpus import probe_gpus
from rdagent_ft.execution.docker_judge import ended_unix, judge, started_unix
from rdagent_ft.execution.docker_log import LOG_NAME, LogFollower
from rdagent_ft.execution.docker_profile import Limits, container_options
from rdagent_ft.execution.docker_reaper import Held, abandoned_runs, held_containers, remove_below
from rdagent_ft.execution.docker_start import create_and_start
from rdagent_ft.execution.docker_watch import Watch, keep_stop, read_stop, stop_and_wait
from rdagent_ft.execution.job_environment import check_extra
from rdagent_ft.execution.machine import Gpu, read_gpus
from rdagent_ft.execution.outputs import read_text_tail
from rdagent_ft.execution.port import FailureClass, JobHandle, JobKind, JobResult, JobSpec, JobState
from rdagent_ft.values import write_json

AWAY_NAME = "engine-away.json"
LOG_TAIL_CHARS = 4000
T = TypeVar("T")
_ATTEMPT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class DockerExecutor:
    """Runs jobs in containers of one engine.

    Args:
        engine: where containers run.
        files: how files reach the engine; default: it sees ours.
        image_of: the image (id or tag) of a kind of job; asked at each submit.
        limits: what one job may use.
        stall_timeout_s: end a job that wrote neither log nor file for so long; None: never.
        engine_wait_s: how long an engine that stopped answering is waited for.
        user: uid and gid of jobs, the owner of what they write; default: this process's.
        runtime: container runtime; None is the engine's default.
        grace_s: seconds between SIGTERM and SIGKILL.
        log_max_bytes: bound of the copied log.
    """

    name = "docker"

    def __init__(
        self, engine: Engine, image_of: Callable[[JobKind], str], *, limits: Limits,
        files: JobFiles | None = None, stall_timeout_s: float | None = None, engine_wait_s: float = 120.0,
        user: tuple[int, int] | None = None, runtime: str | None = None, grace_s: float = 10.0,
        log_max_bytes: int = 50 << 20,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._image_of = image_of
        self._limits = limits
        self._files: JobFiles = files or NearFiles(engine, limits)
        self._stall_timeout_s = stall_timeout_s
        self._engine_wait_s = engine_wait_s
        self._user = user or (os.getuid(), os.getgid())
        self._runtime = runtime
        self._grace_s = grace_s
        self._log_max_bytes = log_max_bytes
        self._followers: dict[str, LogFollower] = {}
        self._watches: dict[str, Watch] = {}
        self._away_since: float | None = None
        self._far_gpus: tuple[Gpu, ...] | None = None

    @property
    def shares_files(self) -> bool:
        """Whether the engine mounts our folders; a remote one has copies."""
        return not self._engine.is_remote

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start the job's container, or adopt the one that has this attempt's name, running or ended.

        A start that the engine refuses (no GPU, no such image) is an ended attempt of class `infra`.
        Raises `JobError` for a spec that must not be run and `EngineAwayError` when no engine answers.
        """
        if not _ATTEMPT_ID.fullmatch(spec.attempt_id):
            raise JobError(f"attempt id {spec.attempt_id!r} cannot name a container")
        check_extra(spec.env)
        spec.out_dir.mkdir(parents=True, exist_ok=True)
        control = control_folder(spec.out_dir, spec.attempt_id)
        control.mkdir(parents=True, exist_ok=True)
        image = self._image_of(spec.kind)
        ref = {"deadline_unix": spec.deadline_unix, "needs_gpu": spec.needs_gpu, "image": image}
        handle = JobHandle(
            executor=self.name, attempt_id=spec.attempt_id, out_dir=spec.out_dir.absolute(), ref=ref
        )
        if not (control / RESULT_NAME).exists():
            try:
                self._patiently(
                    lambda: create_and_start(self._engine, self._files, spec, image, self._options)
                )
            except EngineRefusedError as error:
                self._end_unstarted(handle, error)
        return handle

    def poll(self, handle: JobHandle) -> JobState:
        """Return whether the job still runs; ends it where it must end. Waits for nothing."""
        if (_control(handle) / RESULT_NAME).exists():
            return JobState(state="ended")
        try:
            found = self._engine.inspect(_name(handle))
        except EngineAwayError as error:
            return JobState(state="ended" if self._engine_is_lost(handle, error) else "running")
        self._away_since = None
        if found is None or not _is_running(found["State"]):
            return JobState(state="ended")
        follower = self._follow(handle)
        try:
            self._files.fetch_progress(handle)
            self._watch(handle).look(follower.last_write)
        except EngineAwayError as error:
            self._engine_is_lost(handle, error)
        return JobState(state="running")

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job and everything in its container; returns when it has ended. Idempotent."""
        control = _control(handle)
        if (control / RESULT_NAME).exists():
            return
        found = self._engine.inspect(_name(handle))
        if found is None or not _is_running(found["State"]):
            return
        self._follow(handle)
        keep_stop(control, "cancelled")
        stop_and_wait(self._engine, _name(handle), self._watch(handle), self._grace_s + 30.0)

    def collect(self, handle: JobHandle) -> JobResult:
        """Return how an ended job ended, and remove its container. Raises `JobError` while it runs.

        A container that is gone without a record gives `infra`/`lost`.
        """
        control = _control(handle)
        kept = read_result(control)
        if kept is None:
            unfetched: JobError | None = None
            found = self._inspect_ended(handle)
            if found is not None and _is_running(found["State"]):
                raise JobError(f"job {handle.attempt_id!r} still runs")
            if found is not None:
                self._follow(handle).finish()
                unfetched = self._fetch(handle)
            kept = self._judge(handle, found, unfetched)
            write_json(control / RESULT_NAME, kept.model_dump(mode="json"))
        self._forget(handle)
        with contextlib.suppress(EngineAwayError):  # `tidy` and `reap` come back for it
            self._engine.remove(_name(handle))
            self._files.discard(handle.attempt_id)
        return kept

    def log_path(self, handle: JobHandle) -> Path:
        """Return the copy of the container's log, beside the job's folder."""
        return _control(handle) / LOG_NAME

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs of the engine's machine; a remote one is asked once, which may build an image."""
        if not self._engine.is_remote:
            return read_gpus()
        if self._far_gpus is None:
            has_runtime = "nvidia" in self._engine.info.runtimes
            self._far_gpus = probe_gpus(self._engine, self._image_of("train")) if has_runtime else ()
        return self._far_gpus

    def forget(self, result: JobResult) -> None:
        """Do nothing: no result is kept for equal jobs."""

    def abandoned(self) -> list[Path]:
        """Return the run folders of containers whose controller is gone."""
        return abandoned_runs(self._engine)

    def reap(self, folder: Path) -> list[str]:
        """Stop and remove containers below `folder` whose controller is gone; return attempt ids.

        Their end is recorded as `infra`/`reaped`: a resume of their run tries once more.
        """
        removed = remove_below(self._engine, folder.absolute(), self._record_reaped)
        for attempt_id in removed:
            self._files.discard(attempt_id)
        return removed

    def tidy(self, run_dir: Path) -> None:
        """Remove containers of the run whose end is recorded: a crash came before their removal.

        An engine that is away is no error: the next call comes back for it.
        """
        with contextlib.suppress(EngineAwayError):
            self._tidy(run_dir)

    def _tidy(self, run_dir: Path) -> None:
        for held in held_containers(self._engine):
            if (
                held.run_dir == run_dir
                and (control_folder(held.out_dir, held.attempt_id) / RESULT_NAME).exists()
            ):
                self._engine.remove(held.name)
                self._files.discard(held.attempt_id)
        self._files.tidy()

    def _options(self, spec: JobSpec) -> dict[str, Any]:
        gpus = self.gpus() if spec.needs_gpu else ()
        return container_options(
            spec,
            labels=docker_labels.job_labels(spec, spec.out_dir.absolute()),
            mounts=self._files.mounts(spec),
            limits=self._limits,
            user=self._user,
            gpu_uuid=gpus[0].uuid if gpus else None,
            runtime=self._runtime,
            is_rootless=self._engine.info.is_rootless,
        )

    def _end_unstarted(self, handle: JobHandle, error: RdagentFtError) -> None:
        """Record a start that the engine refused, and leave no created container behind.

        A container that runs or ran was started by another controller: it is adopted instead.
        """
        found = self._engine.inspect(_name(handle))
        if found is not None and started_unix(found["State"]):
            return
        now = time.time()
        (_control(handle) / LOG_NAME).write_text(error.message + "\n", encoding="utf-8")
        result = JobResult(
            failure_class="infra", reason="start_failed", exit_code=None, started_unix=now, ended_unix=now,
            log_tail=error.message, evidence=self._evidence(handle, None),
        )  # fmt: skip
        self._engine.remove(_name(handle))
        write_json(_control(handle) / RESULT_NAME, result.model_dump(mode="json"))

    def _record_reaped(self, held: Held) -> None:
        """Record the end of a running job, and save its files: the next attempt may go on from them."""
        control, now = control_folder(held.out_dir, held.attempt_id), time.time()
        if not control.is_dir() or (control / RESULT_NAME).exists():
            return
        with contextlib.suppress(RdagentFtError):
            self._engine.signal(held.name, "SIGKILL")
            self._files.fetch(JobHandle(executor="docker", attempt_id=held.attempt_id, out_dir=held.out_dir))
        if held.is_running:
            result = JobResult(
                failure_class="infra", reason="reaped", exit_code=None, started_unix=now, ended_unix=now
            )
            write_json(control / RESULT_NAME, result.model_dump(mode="json"))

    def _fetch(self, handle: JobHandle) -> JobError | None:
        """Bring the job's folder back; return why there is none. A local disk that is full is raised."""
        try:
            self._patiently(lambda: self._files.fetch(handle))
        except OutputTooLargeError as error:
            keep_stop(_control(handle), "output_limit")
            return error
        except EngineRefusedError as error:
            return error
        return None

    def _judge(
        self, handle: JobHandle, found: dict[str, Any] | None, unfetched: JobError | None
    ) -> JobResult:
        control = _control(handle)
        tail = read_text_tail(control / LOG_NAME, LOG_TAIL_CHARS)
        now = time.time()
        if found is None:
            failure: tuple[FailureClass, str] = ("infra", "lost")
            if (control / AWAY_NAME).exists():
                failure = ("infra", "engine_lost")
            state: dict[str, Any] = {}
        else:
            state = found["State"]
            failure = judge(
                state,
                stop_reason=read_stop(control),
                deadline_unix=float(handle.ref["deadline_unix"]),
                engine_was_away=(control / AWAY_NAME).exists(),
                needs_gpu=bool(handle.ref["needs_gpu"]),
                log_tail=tail,
            )
            if isinstance(unfetched, EngineRefusedError):
                failure = ("infra", "fetch_failed")
        evidence = self._evidence(handle, found)
        evidence |= {} if unfetched is None else {"fetch_error": unfetched.message}
        return JobResult(
            failure_class=failure[0],
            reason=failure[1],
            exit_code=None if found is None else int(state.get("ExitCode") or 0),
            started_unix=started_unix(state) or now,
            ended_unix=max(ended_unix(state) or now, started_unix(state)),  # the engine's clocks differ
            log_tail=tail,
            evidence=evidence,
        )

    def _inspect_ended(self, handle: JobHandle) -> dict[str, Any] | None:
        """Look at a container; None also when the engine was given up: it may never come back."""
        if self._away_since is None:
            return self._patiently(lambda: self._engine.inspect(_name(handle)))
        try:
            return self._engine.inspect(_name(handle))
        except EngineAwayError:
            return None

    def _evidence(self, handle: JobHandle, found: dict[str, Any] | None) -> dict[str, Any]:
        state: dict[str, Any] = {} if found is None else found["State"]
        return {
            "image": handle.ref["image"],
            "image_id": None if found is None else found.get("Image"),
            "engine_version": self._engine.info.version,
            "oom_killed": bool(state.get("OOMKilled")),
            "engine_error": state.get("Error") or None,
            "deadline_unix": handle.ref["deadline_unix"],
            "memory_limit_bytes": self._limits.memory_bytes,
        }

    def _follow(self, handle: JobHandle) -> LogFollower:
        follower = self._followers.get(handle.attempt_id)
        if follower is None:
            control = _control(handle)
            follower = LogFollower(self._engine, _name(handle), control, self._log_max_bytes)
            self._followers[handle.attempt_id] = follower
        return follower

    def _watch(self, handle: JobHandle) -> Watch:
        watch = self._watches.get(handle.attempt_id)
        if watch is None:
            watch = Watch(
                self._engine, _name(handle), handle.out_dir, _control(handle),
                deadline_unix=float(handle.ref["deadline_unix"]), stall_timeout_s=self._stall_timeout_s,
                holds_too_much=lambda: self._files.holds_too_much(handle), grace_s=self._grace_s,
            )  # fmt: skip
            self._watches[handle.attempt_id] = watch
        return watch

    def _forget(self, handle: JobHandle) -> None:
        follower = self._followers.pop(handle.attempt_id, None)
        if follower is not None:
            follower.abandon()  # of an engine that stayed away: nobody would end its thread
        self._watches.pop(handle.attempt_id, None)

    def _engine_is_lost(self, handle: JobHandle, error: EngineAwayError) -> bool:
        """Remember that the engine was away; return whether it has been for too long."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            marker = {"since_unix": time.time(), "message": error.message}
            write_json(_control(handle) / AWAY_NAME, marker)
        return now - self._away_since >= self._engine_wait_s

    def _patiently(self, call: Callable[[], T]) -> T:
        """Make a call of the engine, waiting for one that is away. Raises `EngineAwayError`."""
        give_up_at = time.monotonic() + self._engine_wait_s
        while True:
            try:
                return call()
            except EngineAwayError:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(0.5)


def _control(handle: JobHandle) -> Path:
    return control_folder(handle.out_dir, handle.attempt_id)


def _name(handle: JobHandle) -> str:
    return docker_labels.container_name(handle.attempt_id)


def _is_running(state: dict[str, Any]) -> bool:
    return bool(state.get("Running")) or state.get("Status") in {"paused", "restarting", "removing"}
