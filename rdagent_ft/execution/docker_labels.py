"""Labels of our containers and volumes: whose they are, and whether that owner still lives.

Nothing of ours is ever found by image or name prefix, and nothing without these labels is touched:
other people's containers are none of our business.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from rdagent_ft.execution.port import JobSpec
from rdagent_ft.execution.processes import ProcessId, identify, is_alive

PREFIX = "io.rdagent-ft."
ATTEMPT = PREFIX + "attempt"
CONTENT = PREFIX + "content"
"""On volumes of inputs: the hash of what they hold."""
DEADLINE = PREFIX + "deadline"
HELPER = PREFIX + "helper"
"""On containers that run no job: what they are for."""
HOST = PREFIX + "host"
OUT_DIR = PREFIX + "out-dir"
OWNER = PREFIX + "owner"
RUN_DIR = PREFIX + "run-dir"
UID = PREFIX + "uid"
SPEC_LABELS = {"run": "run", "loop": "loop", "stage": "stage", "run_dir": "run-dir"}
"""JobSpec.labels -> our label, without the prefix."""


def container_name(attempt_id: str) -> str:
    """Return the name that makes a second container of the same attempt impossible."""
    return f"ft-{attempt_id}"


def own_labels() -> dict[str, str]:
    """Return the labels that select what this user started from this machine."""
    return {HOST: host_id(), UID: str(os.getuid())}


def owner_id() -> str:
    """Return this process as an owner that `owner_lives` finds again."""
    own = identify(os.getpid())
    return "" if own is None else f"{own.boot_id}/{own.pid}/{own.start_ticks}"


def job_labels(spec: JobSpec, out_dir: Path) -> dict[str, str]:
    """Return all labels of a job's container."""
    return {
        **own_labels(),
        OWNER: owner_id(),
        ATTEMPT: spec.attempt_id,
        DEADLINE: f"{spec.deadline_unix:.0f}",
        OUT_DIR: str(out_dir),
        **{PREFIX + SPEC_LABELS[key]: value for key, value in spec.labels.items() if key in SPEC_LABELS},
    }


def owner_lives(labels: dict[str, str]) -> bool:
    """Return whether the controller that created the container still runs. Only for our own host."""
    parts = labels.get(OWNER, "").split("/")
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        return False
    return is_alive(ProcessId(int(parts[1]), int(parts[2]), parts[0]))


def labels_of(entry: dict[str, Any]) -> dict[str, str]:
    """Return the labels of one entry of an engine's listing."""
    found: Any = entry.get("Labels") or {}
    return {str(key): str(value) for key, value in found.items()}


def host_id() -> str:
    """Return this machine's id: a shared engine holds jobs of several machines."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = ""
    return f"{socket.gethostname()}-{machine[:12]}" if machine else socket.gethostname()
