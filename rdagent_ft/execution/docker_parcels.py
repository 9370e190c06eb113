"""What of a job goes into which volume of a remote engine, and where that is mounted.

The targets are the paths that a near engine would bind, so a config means the same everywhere. Engines
mount volumes at folders only: a single file gets a volume at its folder, which then shows this file
and nothing else. Nothing is sent from here (`docker_transfer`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_mounts import checked_inputs
from rdagent_ft.execution.docker_profile import CODE_FOLDER
from rdagent_ft.execution.docker_trees import Hashes, Item, file_item, list_items, with_folders
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.values import content_hash

N_HASH_CHARS = 32
NOT_SENT = ("__pycache__",)
IMAGE_FOLDERS = (
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
    "/opt/venv",
    CODE_FOLDER,
)
"""A volume at or below these would hide what the image or our package has there."""
SHARED_FOLDERS = ("/", "/opt", "/run", "/tmp", "/var")
"""A volume right here would; deeper ones are fine."""


class Parcel(NamedTuple):
    """The contents of one volume and the places where a job sees it; the first is where it is looked at.

    `root_unix` is the time of change of the volume's own folder, set when all of it has arrived: an
    engine sets the times of folders last. It lies before 2002, so nothing that is written now gets it.
    """

    volume: str
    labels: dict[str, str]
    items: list[Item]
    targets: tuple[str, ...]
    root_unix: int
    is_output: bool = False

    def mounts(self) -> list[dict[str, Any]]:
        """Return the mounts as the engine takes them; a volume that is missing is made by them."""
        options = {"NoCopy": True, "Labels": self.labels}
        return [
            {"Type": "volume", "Source": self.volume, "Target": target, "ReadOnly": not self.is_output,
             "VolumeOptions": options}
            for target in self.targets
        ]  # fmt: skip


def output_volume(attempt_id: str) -> str:
    """Return the name of the volume that is an attempt's folder."""
    return f"{docker_labels.container_name(attempt_id)}-out"


def plan_parcels(spec: JobSpec, code: Path, user: tuple[int, int], hashes: Hashes) -> list[Parcel]:
    """Return all that a job needs on the engine, its own folder first.

    Raises `JobError` for an input that cannot be given there, and where a near engine would.
    """
    out_dir = str(spec.out_dir.absolute())
    inputs = checked_inputs(spec)
    own = [target for target, name in spec.aliases.items() if name == "out"]
    places: dict[str, Path] = {
        str(path): path for path in inputs.values() if not _at_or_below(str(path), out_dir)
    }
    places = {target: path for target, path in places.items() if not _comes_with(path, places)}
    places |= {target: inputs[name] for target, name in spec.aliases.items() if name != "out"}
    folders = {target: path for target, path in places.items() if path.is_dir()}
    files = _by_folder({target: path for target, path in places.items() if target not in folders})
    code_target = f"{CODE_FOLDER}/{code.name}"
    everywhere = [out_dir, *own, code_target, *folders, *files]
    for folder, held in files.items():
        _check_folder_of_files(spec, folder, held, [out_dir, *own, *folders])

    def finish(items: list[Item], targets: tuple[str, ...]) -> list[Item]:
        return with_folders(items, _mounted_below(targets, everywhere))

    parcels = [_output_parcel(spec, finish, (out_dir, *own))]
    code_items = list_items(code, follow_links_out=False, skip=NOT_SENT)
    parcels.append(_shared_parcel("code", finish(code_items, (code_target,)), (code_target,), user, hashes))
    for path in dict.fromkeys(folders.values()):
        targets = tuple(target for target, source in folders.items() if source == path)
        items = list_items(path, follow_links_out=_is_foreign(spec, path), closed=[Path(out_dir).resolve()])
        parcels.append(_shared_parcel("in", finish(items, targets), targets, user, hashes))
    for folder, held in files.items():
        items = [
            file_item(name, path.resolve() if _is_foreign(spec, path) else path)
            for name, path in held.items()
        ]
        parcels.append(_shared_parcel("in", finish(items, (folder,)), (folder,), user, hashes))
    return parcels


def _output_parcel(
    spec: JobSpec, finish: Callable[[list[Item], tuple[str, ...]], list[Item]], targets: tuple[str, ...]
) -> Parcel:
    labels = {**docker_labels.own_labels(), docker_labels.ATTEMPT: spec.attempt_id}
    items = finish(list_items(spec.out_dir, follow_links_out=False), targets)
    volume = output_volume(spec.attempt_id)
    return Parcel(volume, labels, items, targets, _mark(content_hash(volume)), is_output=True)


def _shared_parcel(
    kind: Literal["in", "code"],
    items: list[Item],
    targets: tuple[str, ...],
    user: tuple[int, int],
    hashes: Hashes,
) -> Parcel:
    """Name a volume by what it holds, for this user of this machine alone: others' are not trusted."""
    own = docker_labels.own_labels()
    content = content_hash([own, list(user), hashes.listing(items)], N_HASH_CHARS)
    labels = {**own, docker_labels.CONTENT: content}
    return Parcel(f"ft-{kind}-{content}", labels, items, targets, _mark(content))


def _mark(content: str) -> int:
    return 1 + int(content[:12], 16) % 1_000_000_000


def _by_folder(files: dict[str, Path]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for target, path in files.items():
        place = PurePosixPath(target)
        found.setdefault(str(place.parent), {})[place.name] = path
    return found


def _check_folder_of_files(spec: JobSpec, folder: str, held: dict[str, Path], taken: list[str]) -> None:
    hides = folder in SHARED_FOLDERS or any(_at_or_below(folder, other) for other in IMAGE_FOLDERS)
    if hides or folder in taken:
        names = ", ".join(f"{folder.rstrip('/')}/{name}" for name in held)
        raise JobError(
            f"job {spec.attempt_id!r} cannot be given {names}: a remote engine mounts whole folders, and "
            f"{folder} holds other things",
            hint="put the file into a folder of its own",
        )


def _mounted_below(targets: tuple[str, ...], everywhere: list[str]) -> set[str]:
    """Return the paths inside a volume that other volumes are mounted on: they must be there."""
    return {
        str(PurePosixPath(other).relative_to(target))
        for target in targets
        for other in everywhere
        if other != target and _at_or_below(other, target)
    }


def _comes_with(path: Path, places: dict[str, Path]) -> bool:
    """Return whether an input lies in the folder of another one, reached without a link."""
    return any(
        other != path
        and path.is_relative_to(other)
        and path.resolve() == other.resolve() / path.relative_to(other)
        for other in places.values()
    )


def _is_foreign(spec: JobSpec, path: Path) -> bool:
    """Return whether a path lies outside of the run: no job wrote there, so its links are followed."""
    run_dir = spec.labels.get("run_dir")
    return run_dir is None or not path.is_relative_to(Path(run_dir).absolute())


def _at_or_below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
