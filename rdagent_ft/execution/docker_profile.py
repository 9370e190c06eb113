"""The launch profile of a job's container: what it may use, and nothing else.

Pure functions from a JobSpec to the options of `create`, so that the whole profile can be read and
tested in one place. What each line protects against is in docs/execution.md.
"""

from __future__ import annotations

import math
import time
from typing import Any

from rdagent_ft.execution.docker_engine import EngineInfo
from rdagent_ft.execution.job_environment import common_variables
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.values import Frozen

GIB = 1 << 30
CODE_FOLDER = "/opt/rdagent-ft"
"""Our package is mounted below it, read-only; images hold third-party packages only."""
CACHES = "/tmp/.cache"
MEMORY_SHARE = 0.9
"""Of the engine's memory for one job: the controller and the engine need the rest."""
KILL_AFTER_S = 30
ORPHAN_GRACE_S = 60
"""The controller ends a job at its deadline; the container ends itself this much later."""
LAUNCHER = """\
dump() {
    for folder in /proc/[0-9]*; do
        [ "${folder#/proc/}" = $$ ] || while read -r key value; do
            [ "$key" = SigCgt: ] && [ $((0x$value & 0x200)) -ne 0 ] && kill -USR1 "${folder#/proc/}"
        done < "$folder/status"
    done 2> /dev/null
}
trap 'again=1; dump' USR1
trap 'again=1; kill -TERM "$job"' TERM
env --default-signal=INT,QUIT "$@" 2>&1 &
job=$! again=1 code=
while [ "$again" ]; do
    again=; wait "$job"; ended=$?
    [ "$code" ] && [ "$ended" = 127 ] || code=$ended
done
exit "$code"
"""
"""Runs its arguments, both streams as one, and ends with their exit code; 127 is also a wait too many.

SIGUSR1 goes on to every process that handles it: our jobs register faulthandler, which prints all
stacks. It needs no new process, so that a job that took all of them still dumps. The dump is not a
command that we run inside: a job can stop what enters its container, and then the engine cannot end
that container by any means. `env`: a shell starts what it does not wait for with SIGINT ignored.
"""


class Limits(Frozen):
    """What one job may use at most. `n_output_files` and `output_bytes` bound its folder."""

    memory_bytes: int
    n_cpus: float
    shm_bytes: int
    tmp_bytes: int
    n_pids: int = 4096
    output_bytes: int = 200 * GIB
    n_output_files: int = 200_000
    min_free_bytes: int = 1 * GIB


def job_limits(
    info: EngineInfo,
    *,
    memory_gib: float | None = None,
    n_cpus: float | None = None,
    shm_gib: float = 16.0,
    output_gib: float = 200.0,
) -> Limits:
    """Return the limits of jobs on an engine. Shared memory and /tmp count against the memory."""
    memory = int(memory_gib * GIB) if memory_gib is not None else int(info.memory_bytes * MEMORY_SHARE)
    return Limits(
        memory_bytes=memory,
        n_cpus=min(n_cpus or math.inf, float(info.n_cpus)),
        shm_bytes=min(int(shm_gib * GIB), memory // 2),
        tmp_bytes=memory // 4,
        output_bytes=int(output_gib * GIB),
    )


def job_command(spec: JobSpec) -> list[str]:
    """Return the container's command: the job under `timeout`, which needs no controller to end it.

    Both streams go through one pipe: the engine reads two independently, so that a flood on one would
    arrive after the traceback that followed it.
    """
    left_s = max(1, math.ceil(spec.deadline_unix - time.time())) + ORPHAN_GRACE_S
    launcher = ["sh", "-c", LAUNCHER, "sh"]
    return [*launcher, "timeout", f"--kill-after={KILL_AFTER_S}", str(left_s), *spec.argv]


def job_variables(spec: JobSpec, n_cpus: float) -> dict[str, str]:
    """Return the container's whole environment. HOME and USER: any uid may run here, torch asks."""
    return {
        "HOME": "/tmp",
        "USER": "ft",
        "LOGNAME": "ft",
        "LANG": "C.UTF-8",
        **common_variables(CACHES),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": CODE_FOLDER,
        # Inside, libraries see all cores of the machine, whatever the CPU limit is.
        "OMP_NUM_THREADS": str(max(1, int(n_cpus))),
        **spec.env,
    }


def container_options(
    spec: JobSpec,
    *,
    labels: dict[str, str],
    mounts: list[dict[str, Any]],
    limits: Limits,
    user: tuple[int, int],
    gpu_uuid: str | None,
    runtime: str | None,
    is_rootless: bool,
) -> dict[str, Any]:
    """Return the keyword options of the SDK's `containers.create`.

    `gpu_uuid` None with `spec.needs_gpu` asks for any one GPU: the engine refuses where it has none.
    In a rootless engine uid 0 inside is the caller outside.
    """
    uid, gid = (0, 0) if is_rootless else user
    options: dict[str, Any] = {
        "labels": labels,
        "user": f"{uid}:{gid}",
        "working_dir": str(spec.out_dir.absolute()),
        "environment": job_variables(spec, limits.n_cpus),
        "hostname": "job",
        "init": True,
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": limits.n_pids,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": int(limits.n_cpus * 1e9),
        "shm_size": limits.shm_bytes,
        "tmpfs": {"/tmp": f"size={limits.tmp_bytes},mode=1777,exec"},
        "mounts": mounts,
        "log_config": {"type": "json-file", "config": {"max-size": "20m", "max-file": "3"}},
        "ulimits": [{"name": "core", "soft": 0, "hard": 0}],
        "restart_policy": {"Name": "no"},
    }
    if not is_rootless:  # under memory pressure of the whole machine the job goes first
        options["oom_score_adj"] = 500
    if runtime is not None:
        options["runtime"] = runtime
    if spec.needs_gpu:
        which = {"device_ids": [gpu_uuid]} if gpu_uuid is not None else {"count": 1}
        options["device_requests"] = [{"driver": "", "capabilities": [["gpu"]], **which}]
    return options
