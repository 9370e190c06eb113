"""Containers that run one short command of ours, never of a job: a GPU listing, a size.

They have no network and no more rights than the command needs, carry our labels with their purpose,
and are removed by whoever started them, or by `FarFiles.tidy` once that process is gone.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from rdagent_ft.errors import EngineRefusedError
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_engine import Engine

MEMORY_BYTES = 512 << 20
MAX_OUTPUT_BYTES = 1 << 16


def helper_labels(purpose: str) -> dict[str, str]:
    """Return the labels of a container of ours that runs no job."""
    return {
        **docker_labels.own_labels(),
        docker_labels.OWNER: docker_labels.owner_id(),
        docker_labels.HELPER: purpose,
    }


def short_options(purpose: str, **more: Any) -> dict[str, Any]:
    """Return the options of `create` for a short command; `more` adds mounts, devices or a capability."""
    return {
        "labels": helper_labels(purpose),
        "user": "0:0",
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 64,
        "mem_limit": MEMORY_BYTES,
        **more,
    }


def run_short(engine: Engine, image: str, argv: list[str], options: dict[str, Any], timeout_s: float) -> str:
    """Run a command to its end and return what it printed, both streams.

    Raises `EngineRefusedError` when it cannot be started, fails or takes longer than `timeout_s`.
    """
    name = f"ft-short-{secrets.token_hex(8)}"
    engine.create(name, image, argv, options)
    try:
        engine.start(name)
        give_up_at = time.monotonic() + timeout_s
        while (found := engine.inspect(name)) is None or found["State"].get("Running"):
            if found is None or time.monotonic() > give_up_at:
                raise EngineRefusedError(f"`{argv[0]}` did not end within {timeout_s:.0f} s")
            time.sleep(0.1)
        output = read_output(engine, name)
        if found["State"].get("ExitCode"):
            raise EngineRefusedError(f"`{argv[0]}` failed: {output.strip()[-300:]}")
        return output
    finally:
        engine.remove(name)


def read_output(engine: Engine, name: str) -> str:
    """Return what an ended container printed, cut to a small size."""
    found = b""
    for piece in engine.logs(name, since_unix=None, follow=False):  # to the end: else it stays open
        found += piece.partition(b" ")[2][: MAX_OUTPUT_BYTES - len(found)]
    return found.decode("utf-8", "replace")
