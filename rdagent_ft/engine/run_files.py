"""The folders in which a run's finished loops hold weights, found by the names that the engine gave them.

Only trainings and merges are looked at, and of those only folders of weights and checkpoints: samples, logs,
metrics, configs and manifests have other names. What jobs wrote is never followed through a link.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

FolderKind = Literal["checkpoints", "weights", "rest"]

_STAGE = re.compile(r"\d+-(sft|dpo|kto|reward|grpo|distill|merge)(-fix\d+)?")
_MERGED_TO_SERVE = re.compile(r"merge-.+")
_CHECKPOINTS = "output"
_WEIGHTS = ("adapter", "model", "merged", "reward-adapter")
_GOING = ".going-"
_REST = tuple(f".{name}.staging" for name in _WEIGHTS) + tuple(
    f"{_GOING}{name}" for name in (_CHECKPOINTS, *_WEIGHTS)
)
"""What a job or a removal that was cut off left: half a folder that nothing reads."""


class WeightsFolder(NamedTuple):
    """One folder of an attempt: `checkpoints` of a training, `weights`, or `rest` of something cut off."""

    path: Path
    kind: FolderKind


def weight_folders(loop_dir: Path, *, with_claim: bool) -> list[WeightsFolder]:
    """Return the folders of a finished loop; `with_claim`: also those of a claim that is over."""
    places = [(loop_dir / "stages", _STAGE)]
    places += [(loop_dir / "eval" / name, _MERGED_TO_SERVE) for name in ("job", "race")]
    if with_claim:
        places += [(folder, _STAGE) for folder in _folders(loop_dir / "seeds")]
        places.append((loop_dir / "eval" / "claim-job", _MERGED_TO_SERVE))
    return [
        found
        for place, pattern in places
        for job in _folders(place)
        if pattern.fullmatch(job.name)
        for attempt in _folders(job)
        if attempt.name.startswith("attempt-")
        for found in _of_attempt(attempt)
    ]


def disk_bytes(folder: Path) -> int:
    """Return the bytes that a folder's files take on disk; files with another name elsewhere do not count."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            entries = list(waiting.pop().iterdir())
        except OSError:
            continue  # it went away, or is not ours to look into: nothing of it would be freed
        for entry in entries:
            try:
                status = entry.lstat()
            except OSError:
                continue
            if entry.is_dir() and not entry.is_symlink():
                waiting.append(entry)
            elif status.st_nlink == 1:
                total += status.st_blocks * 512
    return total


def remove_folder(path: Path) -> None:
    """Remove a folder of weights: it is whole until it is gone under its name. Raises `OSError`.

    A link in its place is removed and what it names is left alone.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    going = path if path.name.startswith(_GOING) else path.with_name(_GOING + path.name.lstrip("."))
    if going != path:
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
    try:
        shutil.rmtree(going)
    except RecursionError:
        raise OSError(f"{path.name} is nested too deeply to be removed") from None


def _of_attempt(attempt: Path) -> Iterator[WeightsFolder]:
    kinds: dict[str, FolderKind] = {_CHECKPOINTS: "checkpoints"}
    kinds.update(dict.fromkeys(_WEIGHTS, "weights"), **dict.fromkeys(_REST, "rest"))
    for name, kind in kinds.items():
        path = attempt / name
        if path.is_dir() or path.is_symlink():
            yield WeightsFolder(path, kind)


def _folders(place: Path) -> list[Path]:
    if place.is_symlink() or not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink())
