"""The small process that owns one local job: starts it, bounds its log and time, records its end.

It outlives the controller on purpose: a job keeps its deadline when nobody is left to watch, and a
resumed controller finds either a live supervisor or `exit.json`. Standard library only, so that it
starts in milliseconds. It is no sandbox: the job runs with the user's rights.

Run as `python -S -m rdagent_ft.execution.local_supervisor CONTROL_FOLDER`; reads `job.json` there
and writes `claim`, `child.json` and `exit.json` beside it, and `job.log` in the job's folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdagent_ft.execution.bounded_log import BoundedLog
from rdagent_ft.execution.processes import descendants, handles, identify, send

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.2
STACK_DUMP_S = 1.0
STRAYS_GRACE_S = 2.0


@dataclass
class Supervision:
    """State of one supervised job. `stop_reason` is set once, by the first cause that ends it."""

    control: Path
    job: dict[str, Any]
    log: BoundedLog
    started_unix: float
    deadline: float
    stop_requested: bool = False
    stop_reason: str | None = None
    phase: int = 0
    phase_until: float = 0.0


def main(control: Path) -> int:
    """Detach, claim the attempt and see the job through. Returns 0 also when it was claimed before."""
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        ready = os.read(read_end, 1)
        return 0 if ready == b"1" else 1
    os.close(read_end)
    requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: requests.append(number))
    lock = os.open(control.parent / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        claimed = _claim(control)
    except BlockingIOError:
        claimed = False  # this attempt, or another one in the same folder, has a live supervisor
    os.write(write_end, b"1")
    os.close(write_end)
    if claimed:
        _supervise(control, requests)
    os._exit(0)


def _claim(control: Path) -> bool:
    """Create `claim` exclusively; False when the attempt was started before, whatever became of it."""
    own = identify(os.getpid())
    try:
        descriptor = os.open(control / "claim", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    os.write(descriptor, json.dumps(own).encode())
    os.fsync(descriptor)
    os.close(descriptor)
    return True


def _supervise(control: Path, requests: list[int]) -> None:
    job: dict[str, Any] = json.loads((control / "job.json").read_text(encoding="utf-8"))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    out_dir = Path(job["out_dir"])
    _set_aside(out_dir / "job.log")
    now = time.time()
    log = BoundedLog((out_dir / "job.log").open("ab", buffering=0), int(job["log_max_bytes"]))
    state = Supervision(
        control=control,
        job=job,
        log=log,
        started_unix=now,
        deadline=time.monotonic() + float(job["deadline_unix"]) - now,
    )
    if job.get("refusal"):
        _end_unstarted(state, str(job["refusal"]))
        return
    try:
        child = _start(job)
    except OSError as error:
        _end_unstarted(state, f"cannot start {job['argv'][0]!r}: {error.strerror}")
        return
    write_record(control / "child.json", identify(child.pid))
    _watch(state, child, requests)
    _sweep(state, child)
    log.close()
    _record(state, exit_code=child.returncode, reason=state.stop_reason or "exit")


def _set_aside(path: Path) -> None:
    """Keep an earlier attempt's log as `job.log.1`, `.2`, …"""
    number = 1
    while path.exists():
        older = path.with_name(f"{path.name}.{number}")
        if not older.exists():
            path.rename(older)
        number += 1


def _start(job: dict[str, Any]) -> subprocess.Popen[bytes]:
    def prepare() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return subprocess.Popen(
        job["argv"],
        cwd=job["out_dir"],
        env=job["env"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=prepare,  # safe: single-threaded here
    )


def _watch(state: Supervision, child: subprocess.Popen[bytes], requests: list[int]) -> None:
    """Pump the log until the job's first process has ended, stopping it where it must end."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    os.set_blocking(descriptor, False)
    readable = True
    while child.poll() is None:
        if readable:
            readable = _pump(state.log, descriptor, TICK_S)
        else:
            time.sleep(TICK_S)
        _reap(child.pid)
        _advance(state, child, bool(requests) or (state.control / "cancel").exists())


def _pump(log: BoundedLog, descriptor: int, wait_s: float) -> bool:
    """Move what the job has written to the log; False once the pipe is closed."""
    ready, _, _ = select.select([descriptor], [], [], wait_s)
    if not ready:
        return True
    try:
        piece = os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return True
    if piece:
        log.write(piece)
    return bool(piece)


def _advance(state: Supervision, child: subprocess.Popen[bytes], cancelled: bool) -> None:
    """Decide whether the job must stop, and take the next step of stopping it when its time has come.

    Steps: SIGUSR1 (stack dump, where the job handles it), SIGTERM, SIGKILL.
    """
    now = time.monotonic()
    if state.stop_reason is None:
        state.stop_reason = _cause(state, now, cancelled)
        if state.stop_reason is None:
            return
        dump = state.stop_reason != "cancelled" and handles(child.pid, signal.SIGUSR1)
        if dump:
            send(child.pid, signal.SIGUSR1)
        state.phase, state.phase_until = 1, now + (STACK_DUMP_S if dump else 0.0)
    if state.phase == 1 and now >= state.phase_until:
        _signal_family(signal.SIGTERM)
        state.phase, state.phase_until = 2, now + float(state.job["grace_s"])
    elif state.phase == 2 and now >= state.phase_until:
        _signal_family(signal.SIGKILL)  # every tick from now on, until nothing is left


def _cause(state: Supervision, now: float, cancelled: bool) -> str | None:
    if cancelled:
        return "cancelled"
    if now >= state.deadline:
        return "deadline"
    stall_s = state.job.get("stall_timeout_s")
    if stall_s is None or now - state.log.last_write < stall_s:
        return None
    return "stalled" if now - _last_output(state.job, now) >= stall_s else None


def _last_output(job: dict[str, Any], now: float) -> float:
    """Monotonic time of the newest change of a file at the top of the job's folder."""
    newest = 0.0
    with os.scandir(job["out_dir"]) as entries:
        for entry in entries:
            try:
                newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
            except OSError:
                continue
    return now - max(0.0, time.time() - newest)


def _sweep(state: Supervision, child: subprocess.Popen[bytes]) -> None:
    """End what the job left behind: TERM, a short grace, then KILL until nothing is found."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    readable = True
    _signal_family(signal.SIGTERM)
    kill_at = time.monotonic() + (0.0 if state.phase == 2 else STRAYS_GRACE_S)
    give_up_at = kill_at + 30.0
    while True:
        while readable and select.select([descriptor], [], [], 0)[0] and time.monotonic() < give_up_at:
            readable = _pump(state.log, descriptor, 0)
        _reap(child.pid)
        if not descendants(os.getpid()) or time.monotonic() >= give_up_at:
            break
        if time.monotonic() >= kill_at:
            _signal_family(signal.SIGKILL)
        time.sleep(0.02)


def _signal_family(number: signal.Signals) -> None:
    """Signal all descendants. As sub-reaper this process is the ancestor of double-forked ones too."""
    for pid in descendants(os.getpid()):
        send(pid, number)


def _reap(job_pid: int) -> None:
    """Collect ended orphans; the job's first process is left to `Popen.poll`."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == job_pid:
            return
        os.waitpid(ended.si_pid, 0)


def _end_unstarted(state: Supervision, message: str) -> None:
    state.log.write((message + "\n").encode())
    state.log.close()
    _record(state, exit_code=None, reason="start_failed")


def _record(state: Supervision, *, exit_code: int | None, reason: str) -> None:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    write_record(
        state.control / "exit.json",
        {
            "exit_code": exit_code,
            "reason": reason,
            "started_unix": state.started_unix,
            "ended_unix": time.time(),
            "max_rss_mib": round(usage.ru_maxrss / 1024, 1),
            "log_bytes_dropped": state.log.n_dropped,
        },
    )


def write_record(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
