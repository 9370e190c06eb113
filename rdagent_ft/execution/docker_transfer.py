"""Files of jobs on an engine that does not see ours: sent into volumes, fetched back as archives.

Inputs and our package lie in volumes that are named by what they hold, read-only and shared between
attempts; a job's own folder is a volume of its attempt. A volume is filled through a courier: a
container that mounts it and is never started. Its name makes a second sender of the same volume wait.
What comes back is hostile (`docker_archives`). A sender that is cut off leaves an unmarked volume,
which the next one fills again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

from rdagent_ft.errors import EngineRefusedError, JobError
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_archives import pack, read_single, unpack
from rdagent_ft.execution.docker_control import control_folder
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_files import package_folder
from rdagent_ft.execution.docker_meter import Meter
from rdagent_ft.execution.docker_parcels import Parcel, output_volume, plan_parcels
from rdagent_ft.execution.docker_profile import Limits
from rdagent_ft.execution.docker_short import helper_labels
from rdagent_ft.execution.docker_trees import Hashes
from rdagent_ft.execution.port import JobHandle, JobSpec

PROGRESS_NAMES = ("metrics.jsonl", "progress.jsonl")
PROGRESS_EVERY_S = 2.0
MAX_PROGRESS_BYTES = 8 << 20
SEND_WAIT_S = 6 * 3600.0
"""How long another sender of the same input is waited for."""
COURIER_ROOT = "ft-volume"


class FarFiles:
    """Files on a remote engine.

    Args:
        engine: where the volumes are.
        user: uid and gid of jobs, the owner of what is sent.
        limits: `output_bytes` and `n_output_files` bound what is fetched.
        keeps_inputs: whether input volumes that no container uses outlive a loop.
        progress_names: files at the top of a job's folder that are fetched while it runs.
    """

    def __init__(
        self, engine: Engine, user: tuple[int, int], limits: Limits, *, keeps_inputs: bool = True,
        progress_names: tuple[str, ...] = PROGRESS_NAMES, progress_every_s: float = PROGRESS_EVERY_S,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._user = (0, 0) if engine.info.is_rootless else user
        self._limits = limits
        self._keeps_inputs = keeps_inputs
        self._progress_names = progress_names
        self._progress_every_s = progress_every_s
        self._hashes = Hashes()
        self._meter = Meter(engine, limits)
        self._next_progress: dict[str, float] = {}
        self._seen: dict[tuple[str, str], object] = {}

    def mounts(self, spec: JobSpec) -> list[dict[str, Any]]:
        """Return volume mounts: inputs and our package read-only, the job's folder writable."""
        return [mount for parcel in self._plan(spec) for mount in parcel.mounts()]

    def send(self, spec: JobSpec, image: str) -> None:
        """Fill the volumes of a created container that are not filled yet.

        Raises `EngineRefusedError` when the engine does not take them, or when the inputs are no more
        those that the container was created for.
        """
        container = docker_labels.container_name(spec.attempt_id)
        for parcel in self._plan(spec):
            if not self._has_arrived(container, parcel):
                self._send(container, parcel, image)

    def fetch_progress(self, handle: JobHandle) -> None:
        """Bring back the files that show progress, where they changed; at most every two seconds."""
        now = time.monotonic()
        if now < self._next_progress.get(handle.attempt_id, 0.0):
            return
        self._next_progress[handle.attempt_id] = now + self._progress_every_s
        for name in self._progress_names:
            self._fetch_file(handle, name)

    def holds_too_much(self, handle: JobHandle) -> bool:
        """Return whether a running job's folder was found to be over its limits. Waits for nothing."""
        return self._meter.is_over(handle.attempt_id, str(handle.ref["image"]))

    def fetch(self, handle: JobHandle) -> None:
        """Replace the local folder by that of the ended job; on any error it stays as it is.

        Raises `OutputTooLargeError` past the limits, `EngineRefusedError` for an archive that is not
        sound, and `PreflightError` when this machine's disk does not take it.
        """
        out_dir = handle.out_dir
        control = control_folder(out_dir, handle.attempt_id)
        fetched, replaced = control / "fetched", control / "replaced"
        for leftover in (fetched, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        pieces = self._engine.get_archive(docker_labels.container_name(handle.attempt_id), str(out_dir))
        if pieces is None:
            raise EngineRefusedError(f"the engine has no folder of attempt {handle.attempt_id} any more")
        try:
            with closing(pieces):
                unpack(
                    pieces, out_dir.name, fetched,
                    max_bytes=self._limits.output_bytes, max_entries=self._limits.n_output_files,
                )  # fmt: skip
            if out_dir.exists():
                out_dir.rename(replaced)
            fetched.rename(out_dir)
        finally:
            for leftover in (fetched, replaced):
                shutil.rmtree(leftover, ignore_errors=True)

    def discard(self, attempt_id: str) -> None:
        """Remove the volume of an attempt; inputs stay for the next one."""
        self._next_progress.pop(attempt_id, None)
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] != attempt_id}
        self._meter.remove(attempt_id)
        self._engine.remove_volume(output_volume(attempt_id))

    def tidy(self) -> None:
        """Remove what crashed senders left, and inputs that are not to be kept."""
        for entry in self._engine.containers({**docker_labels.own_labels(), docker_labels.HELPER: ""}):
            if not docker_labels.owner_lives(docker_labels.labels_of(entry)):
                self._engine.remove(str(entry["Id"]))
        for entry in self._engine.volumes({**docker_labels.own_labels(), docker_labels.ATTEMPT: ""}):
            attempt_id = docker_labels.labels_of(entry)[docker_labels.ATTEMPT]
            if self._engine.inspect(docker_labels.container_name(attempt_id)) is None:
                self._engine.remove_volume(str(entry["Name"]))
        if not self._keeps_inputs:
            self.prune_inputs()

    def prune_inputs(self) -> None:
        """Remove the volumes of inputs and of our package that no container uses."""
        for entry in self._engine.volumes({**docker_labels.own_labels(), docker_labels.CONTENT: ""}):
            self._engine.remove_volume(str(entry["Name"]))

    def _plan(self, spec: JobSpec) -> list[Parcel]:
        return plan_parcels(spec, package_folder(), self._user, self._hashes)

    def _has_arrived(self, container: str, parcel: Parcel) -> bool:
        status = self._engine.path_status(container, parcel.targets[0])
        return status is not None and _unix(status.changed) == parcel.root_unix

    def _send(self, container: str, parcel: Parcel, image: str) -> None:
        with self._courier(parcel, image) as courier:
            if self._has_arrived(container, parcel):  # another sender was at it
                return
            # Only now: a job that runs has changed its folder, which then looks as if it were not sent.
            found = self._engine.inspect(container)
            if found is None or found["State"].get("Status") != "created":
                return
            archive = pack(COURIER_ROOT, parcel.items, user=self._user, root_unix=parcel.root_unix)
            try:
                self._engine.put_archive(courier, "/", archive)
            except JobError as error:  # also a file that changed meanwhile: the next attempt lists anew
                raise EngineRefusedError(f"{parcel.volume} cannot be filled: {error.message}") from None
        if not self._has_arrived(container, parcel):
            raise EngineRefusedError(
                f"the inputs of container {container} are not those that it was created for",
                hint="they changed in between, or the engine does not keep times of folders",
            )

    @contextmanager
    def _courier(self, parcel: Parcel, image: str) -> Generator[str]:
        """Hold the volume's courier, waiting for another sender's to go. Raises `EngineRefusedError`."""
        name = f"ft-courier-{parcel.volume}"
        mount = {
            "Type": "volume", "Source": parcel.volume, "Target": f"/{COURIER_ROOT}", "ReadOnly": False,
            "VolumeOptions": {"NoCopy": True, "Labels": parcel.labels},
        }  # fmt: skip
        options = {"labels": helper_labels("courier"), "mounts": [mount], "network_mode": "none"}
        give_up_at = time.monotonic() + SEND_WAIT_S
        while not self._engine.create(name, image, ["true"], options):
            other = self._engine.inspect(name)
            if other is not None and not docker_labels.owner_lives(other["Config"]["Labels"] or {}):
                self._engine.remove(str(other["Id"]))  # by id: the name may be another's by now
            elif time.monotonic() > give_up_at:
                raise EngineRefusedError(f"another process has been sending volume {parcel.volume} for hours")
            else:
                time.sleep(0.2)
        try:
            yield name
        finally:
            self._engine.remove(name)

    def _fetch_file(self, handle: JobHandle, name: str) -> None:
        """Replace a local file by the job's, whole: whoever reads on at an offset finds the same bytes."""
        container = docker_labels.container_name(handle.attempt_id)
        path = f"{handle.out_dir}/{name}"
        status = self._engine.path_status(container, path)
        seen = (handle.attempt_id, name)
        if status is None or not status.is_file or status == self._seen.get(seen):
            return
        self._seen[seen] = status
        target = handle.out_dir / name
        if status.n_bytes > MAX_PROGRESS_BYTES:  # no more to show, but a sign of life
            if target.exists():
                os.utime(target)
            return
        pieces = self._engine.get_archive(container, path)
        if pieces is None:
            return
        try:
            with closing(pieces):
                content = read_single(pieces, MAX_PROGRESS_BYTES)
        except EngineRefusedError:  # it became shorter while it was sent: the next look shows it
            return
        if content is not None:
            temporary = control_folder(handle.out_dir, handle.attempt_id) / f"{name}.part"
            temporary.write_bytes(content)
            temporary.replace(target)


def _unix(stamp: str) -> int:
    """Return the whole seconds of an engine's time of change, which may be in any time zone."""
    return int(datetime.fromisoformat(stamp).timestamp())
