"""Finding and ending processes through /proc: identity that survives pid reuse, and whole families.

Standard library only: the supervisor imports this without site-packages. Linux only. A process is
named by (pid, start time, boot id), because a pid alone may belong to someone else by the time it
is looked at again.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

MARKER = "RDAGENT_FT_JOB"
"""Environment variable that every process of a job inherits, so that strays can be found."""


class ProcessId(NamedTuple):
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    start_ticks: int
    boot_id: str


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int
    start_ticks: int


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> ProcessId | None:
    """Return the identity of a live process; None when there is none."""
    stat = _stat(pid)
    return None if stat is None else ProcessId(pid, stat.start_ticks, boot_id())


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs. A zombie does not count as alive."""
    stat = _stat(process.pid)
    return (
        stat is not None
        and stat.state not in "ZX"
        and stat.start_ticks == process.start_ticks
        and process.boot_id == boot_id()
    )


def descendants(pid: int) -> set[int]:
    """Return the live processes below `pid` in the process tree, `pid` itself excluded."""
    children: dict[int, list[int]] = {}
    for other, stat in _all_stats().items():
        if stat.state not in "ZX":
            children.setdefault(stat.parent, []).append(other)
    found: set[int] = set()
    frontier = [pid]
    while frontier:
        for child in children.get(frontier.pop(), []):
            if child not in found:
                found.add(child)
                frontier.append(child)
    return found


def session_members(session: int) -> set[int]:
    """Return the live processes of a session."""
    return {pid for pid, stat in _all_stats().items() if stat.session == session and stat.state not in "ZX"}


def marked(value: str) -> set[int]:
    """Return the live processes whose environment carries `MARKER=value` (own user's only)."""
    needle = f"{MARKER}={value}".encode()
    found: set[int] = set()
    for pid, stat in _all_stats().items():
        if stat.state in "ZX":
            continue
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if needle in environ.split(b"\0"):
            found.add(pid)
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone or not ours is no error."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether the process has installed its own handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def kill_strays(leader: ProcessId | None, marker: str, *, wait_s: float = 10.0) -> int:
    """SIGKILL what is left of a job whose supervisor is gone; return how many were found.

    `leader` is the job's first process, whose pid names its session. A sweep is repeated until
    nothing is found, because a process may fork while it is killed.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        alive = marked(marker)
        if leader is not None:
            alive |= _own_session(leader)
        alive.discard(os.getpid())
        if not alive:
            break
        for pid in alive:
            send(pid, signal.SIGKILL)
        killed |= alive
        time.sleep(0.02)
    return len(killed)


def _own_session(leader: ProcessId) -> set[int]:
    """Members of the job's session, unless the number now belongs to a younger session."""
    if leader.boot_id != boot_id():
        return set()
    stat = _stat(leader.pid)
    if stat is not None and stat.start_ticks != leader.start_ticks:
        return set()
    return session_members(leader.pid)


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command name is in parentheses and may itself hold blanks and parentheses.
    fields = text[text.rfind(")") + 2 :].split()
    return _Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def _all_stats() -> dict[int, _Stat]:
    stats: dict[int, _Stat] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only, thousands of times
        if name.isdigit():
            stat = _stat(int(name))
            if stat is not None:
                stats[int(name)] = stat
    return stats
