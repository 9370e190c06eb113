"""The shape of one case of the hostile corpus (`hostile_jobs`, `hostile_outputs`) and what cases share."""

from __future__ import annotations

from dataclasses import dataclass, field

CANARY = "canary-5d1c0b"
"""In the controller's environment, in host files beside the job's folder, in no place a job can read."""

PRELUDE = """
import ctypes, errno, json, os, signal, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
def attempt(action, *args):
    try:
        action(*args)
    except OSError:
        return "refused"
    return "done"
def write(path, text="x"):
    with open(path, "a") as stream:
        stream.write(text)
def tell(**seen):
    with open("seen.json", "w") as stream:
        json.dump(seen, stream)
"""

ENDED_WELL = (("ok", "exit"),)
OUT_OF_TIME = (("resource", "deadline"),)
OUT_OF_MEMORY = (("resource", "out_of_memory"),)
TOO_MUCH_OUTPUT = (("resource", "output_limit"),)
OWN_FAULT = (("candidate", "exit"),)


@dataclass(frozen=True)
class HostileJob:
    """One case.

    Attributes:
        name: of the case, and of the test.
        code: the job's Python; `INPUT`, `OUT`, `RUN`, `CONTROL`, `SECRET`, `PORT` are set.
        ends: class and reason; several where the kernel decides which limit comes first.
        seen: what the job must have reported with `tell`; `all_refused`: each value is "refused".
        readings: reader -> part of what it must answer.
        log_has / log_lacks: parts of the cleaned end of the log.
        deadline_s: of the job. limits: changes to the test's small `Limits`.
        max_disk_mib: bound of what the job's folder holds on disk afterwards.
        max_host_mib: bound of the controller's memory beyond what it had.
    """

    name: str
    code: str
    ends: tuple[tuple[str, str], ...] = ENDED_WELL
    seen: dict[str, object] = field(default_factory=dict[str, object])
    all_refused: bool = False
    readings: dict[str, str] = field(default_factory=dict[str, str])
    log_has: tuple[str, ...] = ()
    log_lacks: tuple[str, ...] = ()
    deadline_s: float = 60.0
    limits: dict[str, int] = field(default_factory=dict[str, int])
    stall_timeout_s: float | None = None
    max_disk_mib: int = 80
    max_host_mib: int = 64
