"""How a container ended, as failure class and reason: pure functions over the engine's own record.

The exit code alone lies: a parent whose child was killed for memory exits 1, a shell reports 137 for
any kill, and an engine that is stopped takes innocent jobs with it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from rdagent_ft.execution.port import FailureClass

StopReason = Literal["cancelled", "deadline", "stalled", "output_limit"]
SIGNAL_KILL, SIGNAL_BUS = 137, 135
ASKED_TO_END = {129, 130, 143}
ENDED_BY_TIMEOUT = {124, 137}
_GPU_LOST = re.compile(
    r"Failed to initialize NVML|GPU is lost|fallen off the bus|No CUDA GPUs are available"
    r"|no CUDA-capable device is detected|uncorrectable ECC error|NVRM: Xid",
    re.IGNORECASE,
)


def judge(
    state: dict[str, Any],
    *,
    stop_reason: StopReason | None,
    deadline_unix: float,
    engine_was_away: bool,
    needs_gpu: bool,
    log_tail: str,
) -> tuple[FailureClass, str]:
    """Return failure class and reason of an ended container.

    Args:
        state: `State` of the engine's `inspect`.
        stop_reason: why we ended it; None when we did not.
        engine_was_away: the engine stopped answering while the job ran.
        log_tail: the end of the job's output; only asked whether it names a lost GPU.
    """
    code = int(state.get("ExitCode") or 0)
    if not started_unix(state):
        return "infra", "start_failed"
    if stop_reason == "cancelled":
        return "stopped", "cancelled"
    if stop_reason is not None:
        return "resource", stop_reason
    if code == 0:
        return "ok", "exit"
    if state.get("OOMKilled"):
        return "resource", "out_of_memory"
    if engine_was_away and code in {SIGNAL_KILL, 255, *ASKED_TO_END}:
        return "infra", "engine_restarted"
    if code in ENDED_BY_TIMEOUT and ended_unix(state) >= deadline_unix:
        return "resource", "deadline"
    if needs_gpu and _GPU_LOST.search(log_tail):
        return "infra", "gpu_lost"
    if code in {SIGNAL_KILL, SIGNAL_BUS}:  # by nobody we know: memory, or shared memory
        return "resource", "killed, memory suspected"
    if code in ASKED_TO_END:  # someone else stopped it; says nothing about the candidate
        return "infra", "killed"
    return "candidate", "exit"


def started_unix(state: dict[str, Any]) -> float:
    """Return when the container started, Unix seconds; 0.0 when it never did."""
    return _unix(str(state.get("StartedAt") or ""))


def ended_unix(state: dict[str, Any]) -> float:
    """Return when the container ended, Unix seconds; 0.0 when it has not."""
    return _unix(str(state.get("FinishedAt") or ""))


def _unix(stamp: str) -> float:
    if not stamp or stamp.startswith("0001-"):
        return 0.0
    whole, _, rest = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{rest or 0}")
