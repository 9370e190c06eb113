"""Executor `local`: a job is a process group on this machine, owned by a small supervisor process.

The supervisor (`local_supervisor`) is detached, so a job survives the controller and keeps its
deadline without it. Whatever is needed to find a job again lies in `OUT_DIR/.jobs/ATTEMPT/`. The
job gets a scrubbed environment but runs with the user's rights: this is no sandbox.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError
from rdagent_ft.execution.job_environment import check_extra
from rdagent_ft.execution.local_env import job_environment, supervisor_environment
from rdagent_ft.execution.machine import Gpu, read_gpus
from rdagent_ft.execution.outputs import read_json_file, read_text_tail
from rdagent_ft.execution.port import FailureClass, JobHandle, JobResult, JobSpec, JobState
from rdagent_ft.execution.processes import ProcessId, is_alive, kill_strays, send
from rdagent_ft.values import write_json

CONTROL_FOLDER = ".jobs"
REAPED = "reaped"
"""Marks a job that was stopped because nobody waited for it: a resume tries once more."""
LOG_TAIL_CHARS = 4000
_STARTING_S = 5.0
_ATTEMPT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class LocalExecutor:
    """Runs jobs as subprocesses. One folder holds one running attempt; a later one may follow in it.

    Args:
        python: the train environment's Python; None means this one.
        stall_timeout_s: end a job that wrote neither log nor file at the top of its folder for so
            long; None switches that off.
        grace_s: seconds between SIGTERM and SIGKILL.
        log_max_bytes: bound of `job.log`; past it only the newest 64 KiB are kept.
    """

    name = "local"
    shares_files = True

    def __init__(
        self,
        python: Path | None = None,
        *,
        stall_timeout_s: float | None = None,
        grace_s: float = 10.0,
        log_max_bytes: int = 200 << 20,
    ) -> None:
        # Not resolved: a virtual environment's python is a link that must be kept.
        self._python = str(python.absolute()) if python is not None else sys.executable
        self._stall_timeout_s = stall_timeout_s
        self._grace_s = grace_s
        self._log_max_bytes = log_max_bytes

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start the job, or adopt the attempt of this id, running or ended.

        Raises `JobError` when the id or an environment name is not usable, or when another attempt
        still runs in the same folder.
        """
        if not _ATTEMPT_ID.fullmatch(spec.attempt_id):
            raise JobError(f"attempt id {spec.attempt_id!r} cannot name a folder")
        if spec.aliases:
            raise JobError(
                f"job {spec.attempt_id!r} must run in a container, and the local executor has none",
                hint="use --executor docker",
            )
        check_extra(spec.env)
        out_dir = spec.out_dir.absolute()
        control = out_dir / CONTROL_FOLDER / spec.attempt_id
        if not (control / "claim").exists():
            control.mkdir(parents=True, exist_ok=True)
            write_json(control / "job.json", self._job(spec, out_dir, control))
            self._launch(control)
        owner = _owner(control)
        ref = {} if owner is None else owner._asdict()
        return JobHandle(executor=self.name, attempt_id=spec.attempt_id, out_dir=out_dir, ref=ref)

    def poll(self, handle: JobHandle) -> JobState:
        """Return whether the job still runs. Never blocks."""
        return JobState(state="running" if _is_running(_control(handle)) else "ended")

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job and everything it started; returns when nothing is left. Idempotent."""
        control = _control(handle)
        if not _is_running(control):
            return
        (control / "cancel").touch()
        owner = _owner(control)
        if owner is not None and is_alive(owner):
            send(owner.pid, signal.SIGTERM)
        give_up_at = time.monotonic() + self._grace_s + 15.0
        while _is_running(control) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        if not _is_running(control):
            return
        if owner is not None and is_alive(owner):
            send(owner.pid, signal.SIGKILL)
        _bury(control, reason="cancelled")

    def collect(self, handle: JobHandle) -> JobResult:
        """Return how an ended job ended. Raises `JobError` while it runs.

        A supervisor that died without a record gives `infra`/`lost`, after what is left of the job
        was killed.
        """
        control = _control(handle)
        if _is_running(control):
            raise JobError(f"job {handle.attempt_id!r} still runs")
        if not (control / "exit.json").exists():
            _bury(control, reason="lost")
        ended = read_json_file(control, "exit.json")
        exit_code = ended.get("exit_code")
        reason = str(ended["reason"])
        if reason == "cancelled" and (control / REAPED).exists():
            reason = "reaped"
        failure_class, shown = _judge(reason, exit_code)
        return JobResult(
            failure_class=failure_class,
            reason=shown,
            exit_code=exit_code,
            started_unix=float(ended["started_unix"]),
            ended_unix=float(ended["ended_unix"]),
            log_tail=read_text_tail(handle.out_dir / "job.log", LOG_TAIL_CHARS),
        )

    def log_path(self, handle: JobHandle) -> Path:
        """Return `job.log` in the job's folder."""
        return handle.out_dir / "job.log"

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs of this machine that `CUDA_VISIBLE_DEVICES` shows."""
        return read_gpus()

    def tidy(self, run_dir: Path) -> None:
        """Do nothing: an ended process leaves nothing but its files."""

    def forget(self, result: JobResult) -> None:
        """Do nothing: no result is kept for equal jobs."""

    def abandoned(self) -> list[Path]:
        """Return nothing: local jobs are known by their folders, which `gc` walks."""
        return []

    def reap(self, folder: Path) -> list[str]:
        """Stop what still runs of the jobs below `folder`; return the attempt ids that were stopped."""
        stopped: list[str] = []
        for parent, folders, _files in os.walk(folder):
            if CONTROL_FOLDER not in folders:
                continue
            folders.remove(CONTROL_FOLDER)
            if not _is_ours(Path(parent)):
                continue
            for control in sorted((Path(parent) / CONTROL_FOLDER).iterdir()):
                if not (control / "claim").is_file():
                    continue
                out_dir = Path(parent).absolute()
                handle = JobHandle(executor=self.name, attempt_id=control.name, out_dir=out_dir)
                if _is_running(control):
                    (control / REAPED).touch()
                    self.cancel(handle)
                    stopped.append(control.name)
                elif not (control / "exit.json").exists() and _bury(control, reason="lost"):
                    stopped.append(control.name)
        return stopped

    def _job(self, spec: JobSpec, out_dir: Path, control: Path) -> dict[str, Any]:
        """Return what the supervisor needs, as JSON."""
        argv = list(spec.argv)
        if argv[0] == "python":
            argv[0] = self._python
        refusal = "no GPU is visible (nvidia-smi), and the job needs one"
        return {
            "attempt_id": spec.attempt_id,
            "kind": spec.kind,
            "argv": argv,
            "out_dir": str(out_dir),
            "inputs": {name: str(path) for name, path in spec.inputs.items()},
            "env": job_environment(spec.env, marker=_marker(control), control=control, out_dir=out_dir),
            "deadline_unix": spec.deadline_unix,
            "stall_timeout_s": self._stall_timeout_s,
            "grace_s": self._grace_s,
            "log_max_bytes": self._log_max_bytes,
            "refusal": refusal if spec.needs_gpu and not read_gpus() else None,
        }

    def _launch(self, control: Path) -> None:
        """Start the supervisor; it detaches itself and returns once the attempt is claimed."""
        argv = [sys.executable, "-S", "-P", "-m", "rdagent_ft.execution.local_supervisor", str(control)]
        messages = control / "supervisor.log"
        pid = os.posix_spawn(
            sys.executable,
            argv,
            supervisor_environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(messages), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        os.waitpid(pid, 0)
        if not (control / "claim").exists():
            text = read_text_tail(messages, 2000)
            raise JobError(
                f"job {control.name!r} could not be started",
                hint=text or f"another attempt still runs in {control.parent.parent}",
            )


def _control(handle: JobHandle) -> Path:
    return handle.out_dir / CONTROL_FOLDER / handle.attempt_id


def _is_ours(out_dir: Path) -> bool:
    """Return whether `.jobs` here is our record: not a link, and not made by a job in a container.

    A contained job could write a claim that names a process of the host.
    """
    contained = out_dir.with_name("." + out_dir.name).is_dir()
    return not contained and not (out_dir / CONTROL_FOLDER).is_symlink()


def _marker(control: Path) -> str:
    return str(control)


def _process(control: Path, name: str) -> ProcessId | None:
    """Return the process that `claim` or `child.json` names; None while it is not written."""
    try:
        pid, start_ticks, boot = json.loads((control / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return ProcessId(int(pid), int(start_ticks), str(boot))


def _owner(control: Path) -> ProcessId | None:
    return _process(control, "claim")


def _is_running(control: Path) -> bool:
    if (control / "exit.json").exists():
        return False
    owner = _owner(control)
    if owner is not None:
        return is_alive(owner)
    try:  # claimed a moment ago and not yet signed
        return time.time() - (control / "claim").stat().st_mtime < _STARTING_S
    except FileNotFoundError:
        return False


def _bury(control: Path, *, reason: str) -> int:
    """Kill what a dead supervisor left and write the end it could not; return how many were killed."""
    n_killed = kill_strays(_process(control, "child.json"), _marker(control))
    if (control / "exit.json").exists():  # it ended properly between the two looks
        return n_killed
    try:
        started_unix = (control / "claim").stat().st_mtime
    except FileNotFoundError:
        started_unix = time.time()
    write_json(
        control / "exit.json",
        {"exit_code": None, "reason": reason, "started_unix": started_unix, "ended_unix": time.time()},
    )
    return n_killed


def _judge(reason: str, exit_code: int | None) -> tuple[FailureClass, str]:
    """Return failure class and reason of an end. A shell's 128+n counts as signal n."""
    if reason in {"deadline", "stalled"}:
        return "resource", reason
    if reason == "cancelled":
        return "stopped", reason
    if reason in {"lost", "reaped", "start_failed"}:
        return "infra", reason
    if exit_code == 0:
        return "ok", "exit"
    if exit_code in {-9, 137, -7, 135}:  # SIGKILL by nobody we know: memory; SIGBUS: shared memory
        return "resource", "killed, memory suspected"
    if exit_code in {-15, -2, -1}:  # someone else stopped it; says nothing about the candidate
        return "infra", "killed"
    return "candidate", "exit"
