"""How a job's files reach its container and come back: the seam between near and far engines.

An engine on this machine sees our files (`NearFiles`: bind mounts). A remote one does not: there the
same paths are volumes that are filled and emptied through archives (`docker_transfer.FarFiles`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from rdagent_ft.errors import JobError
from rdagent_ft.execution.docker_archives import OutputTooLargeError
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_mounts import bind_mounts, checked_inputs
from rdagent_ft.execution.docker_profile import CODE_FOLDER, Limits
from rdagent_ft.execution.docker_watch import disk_is_almost_full, output_is_too_much
from rdagent_ft.execution.job_rights import settle_rights
from rdagent_ft.execution.port import JobHandle, JobSpec


class JobFiles(Protocol):
    """The files of jobs on one engine. All methods may be called again after a crash."""

    def mounts(self, spec: JobSpec) -> list[dict[str, Any]]:
        """Return the mounts of a new container. Raises `JobError` for a path that must not be mounted."""
        ...

    def send(self, spec: JobSpec, image: str) -> None:
        """Bring everything the job reads to the engine; called before its container is started."""
        ...

    def fetch_progress(self, handle: JobHandle) -> None:
        """Bring back what shows progress while the job runs. Cheap, and seldom by its own clock."""
        ...

    def fetch(self, handle: JobHandle) -> None:
        """Bring back the whole folder of an ended job. What it holds is hostile.

        Raises `OutputTooLargeError` for more than a job may leave, `EngineRefusedError` when the
        engine cannot give it, and `PreflightError` when it cannot be stored here.
        """
        ...

    def holds_too_much(self, handle: JobHandle) -> bool:
        """Return whether a running job's folder is over its limits, as far as is known by now."""
        ...

    def discard(self, attempt_id: str) -> None:
        """Remove what the engine holds for an attempt besides its container."""
        ...

    def tidy(self) -> None:
        """Remove what the engine holds for nobody any more."""
        ...


class NearFiles:
    """Files on an engine of this machine: mounted where they lie."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits

    def mounts(self, spec: JobSpec) -> list[dict[str, Any]]:
        """Return bind mounts: inputs read-only, the job's folder writable, our package read-only.

        Raises `JobError` on a remote engine: there the same path is another folder, or none.
        """
        if self._engine.is_remote:
            path = next(iter(spec.inputs.values()), spec.out_dir).absolute()
            raise JobError(
                f"{path} lies on this machine and cannot be mounted by the engine at {self._engine.url}",
                hint="on a remote engine files travel through volumes (docker_transfer.FarFiles)",
            )
        code = package_folder()
        return bind_mounts(spec, checked_inputs(spec), code, f"{CODE_FOLDER}/{code.name}")

    def send(self, spec: JobSpec, image: str) -> None:
        """Do nothing: the engine sees our files."""

    def fetch_progress(self, handle: JobHandle) -> None:
        """Do nothing: the job writes where we read."""

    def fetch(self, handle: JobHandle) -> None:
        """Look once more: what was written after the last look and before the end counts too."""
        settle_rights(handle.out_dir, self._limits.n_output_files)
        if output_is_too_much(handle.out_dir, self._limits):
            raise OutputTooLargeError(f"{handle.out_dir} holds more than a job may leave")

    def holds_too_much(self, handle: JobHandle) -> bool:
        """Look into the job's folder, and at the disk that it fills."""
        if disk_is_almost_full(handle.out_dir, self._limits):
            return True
        return output_is_too_much(handle.out_dir, self._limits)

    def discard(self, attempt_id: str) -> None:
        """Do nothing: a bind mount leaves nothing behind."""

    def tidy(self) -> None:
        """Do nothing: a bind mount leaves nothing behind."""


def package_folder() -> Path:
    """Return the folder of this package, whose job scripts every container gets."""
    return Path(__file__).resolve().parent.parent
