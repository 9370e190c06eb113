"""What `gc` looks for: jobs, containers and images that nobody works with any more.

Local jobs are found through the run's journal and never by walking its folders: what a container
wrote there could name any process of this machine. Containers are found by our labels.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from rdagent_ft.engine.lock import LOCK_NAME, hold_run
from rdagent_ft.errors import StateError
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import control_folder
from rdagent_ft.execution.docker_reaper import Held, held_containers
from rdagent_ft.execution.image_labels import ImageRef
from rdagent_ft.execution.images import list_images
from rdagent_ft.execution.port import JobHandle, JobSpec
from rdagent_ft.reporting.read import DATABASE_NAME


class OldImages(NamedTuple):
    """Images of ours that another one of the same name, variant and base stands in for."""

    keep: ImageRef
    superseded: list[ImageRef]


def local_jobs(run_dir: Path) -> list[JobHandle]:
    """Return the unfinished jobs of a run that the local executor may have started.

    [] for a folder without a journal. Raises `StateError` when the journal cannot be read.
    """
    path = run_dir.absolute() / DATABASE_NAME
    if not path.is_file():
        return []
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10.0)
        try:
            rows = connection.execute("SELECT spec, handle FROM attempts WHERE status != 'done'").fetchall()
        finally:
            connection.close()
        specs = [
            (JobSpec.model_validate_json(spec), handle and JobHandle.model_validate_json(handle))
            for spec, handle in rows
        ]  # fmt: skip
    except (sqlite3.Error, ValidationError) as error:
        raise StateError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return [
        JobHandle(executor="local", attempt_id=spec.attempt_id, out_dir=spec.out_dir)
        for spec, handle in specs
        if _is_local(spec, handle)
    ]


def abandoned_containers(engine: Engine) -> dict[Path, list[Held]]:
    """Return run folder -> its containers whose controller is gone. Of a locked run, they may be adopted."""
    found: dict[Path, list[Held]] = {}
    for held in held_containers(engine):
        if not held.owner_lives:
            found.setdefault(held.run_dir, []).append(held)
    return dict(sorted(found.items()))


def old_images(engine: Engine) -> list[OldImages]:
    """Return each image of ours to keep, with those it replaces: the current one, else the newest."""
    groups: dict[tuple[str, str, str], list[ImageRef]] = {}
    # The current one of a place is its newest: a newer one would be of today's pins, too.
    for entry in sorted(list_images(engine.client), key=lambda entry: entry.state != "current"):
        image = entry.image
        groups.setdefault((image.name, image.variant, image.base_image), []).append(image)
    return [OldImages(images[0], images[1:]) for images in groups.values()]


@contextmanager
def holding(run_dir: Path) -> Generator[None]:
    """Hold the run while its jobs are stopped, so that no resume adopts one at the same moment.

    Raises `RunLockedError` when a live process has it. A folder that is gone, or never was a run's,
    needs no hold.
    """
    if not (run_dir / LOCK_NAME).exists():
        yield
        return
    with hold_run(run_dir):
        yield


def _is_local(spec: JobSpec, handle: JobHandle | None) -> bool:
    """Return whether an attempt is the local executor's; a container's has its folder outside its reach."""
    if handle is not None:
        return handle.executor == "local"
    return not control_folder(spec.out_dir, spec.attempt_id).exists()
