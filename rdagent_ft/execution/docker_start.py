"""Starting an attempt's container exactly once, whoever else tries at the same moment.

The engine refuses a second container of the same name; everything here may be repeated after a crash at
any point, and ends with one container that is ours, running or ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rdagent_ft.errors import EngineRefusedError, JobError
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_files import JobFiles
from rdagent_ft.execution.docker_profile import job_command
from rdagent_ft.execution.port import JobSpec

APPEARS_WITHIN_S = 15.0


def create_and_start(
    engine: Engine,
    files: JobFiles,
    spec: JobSpec,
    image: str,
    options: Callable[[JobSpec], dict[str, Any]],
) -> None:
    """Create the container and start it, or adopt the one that has the attempt's name.

    `options` gives those of the SDK's `create`. Raises `JobError` when the name or the folder is taken
    by something else, `EngineRefusedError` when the engine says no.
    """
    name = docker_labels.container_name(spec.attempt_id)
    if engine.inspect(name) is None:
        _refuse_overlap(engine, spec)
        engine.create(name, image, job_command(spec), options(spec))
    found = _appeared(engine, name)
    if found["Config"]["Labels"].get(docker_labels.ATTEMPT) != spec.attempt_id:
        raise JobError(f"the container name {name} is taken by a container that is not ours")
    if found["State"].get("Status") == "created":
        files.send(spec, image)
        engine.start(name)


def _appeared(engine: Engine, name: str) -> dict[str, Any]:
    """Look at a container that exists, or that another controller is creating this moment.

    The engine takes the name before the container can be seen.
    """
    give_up_at = time.monotonic() + APPEARS_WITHIN_S
    while (found := engine.inspect(name)) is None:
        if time.monotonic() >= give_up_at:
            raise EngineRefusedError(f"container {name} vanished before it was started")
        time.sleep(0.05)
    return found


def _refuse_overlap(engine: Engine, spec: JobSpec) -> None:
    place = {docker_labels.OUT_DIR: str(spec.out_dir.absolute()), **docker_labels.own_labels()}
    for entry in engine.containers(place):
        other = docker_labels.labels_of(entry).get(docker_labels.ATTEMPT)
        if entry.get("State") == "running" and other != spec.attempt_id:
            raise JobError(
                f"job {spec.attempt_id!r} could not be started",
                hint=f"attempt {other} still runs in {spec.out_dir}",
            )
