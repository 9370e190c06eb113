"""Which files of a folder are training data, and what they are pinned by.

A folder may carry its own test or validation files: those are left out and reported, because rows of
a test file inside the training data would make every later score worthless.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rdagent_ft.data.compressed import PACKED
from rdagent_ft.data.rows import FileRef
from rdagent_ft.errors import DataError, UserError
from rdagent_ft.values import content_hash, sha256_file

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
_NOT_DATA = frozenset(
    {"manifest.json", "dataset_info.json", "dataset_infos.json", "state.json", "config.json"}
)
_HELD_OUT = re.compile(
    r"(?:^|[./_-])(?:test|testing|validation|valid|val|dev|eval)(?:[./_-]|$)", re.IGNORECASE
)
_MAX_DEPTH = 4
_MAX_FILES = 10_000


class ChosenFiles(NamedTuple):
    """Relative paths to read, in reading order, and notes about those left out."""

    paths: tuple[str, ...]
    notes: tuple[str, ...]


def local_path(name: str) -> Path:
    """Return `name` as a path with `~` expanded; an unknown user's `~name` stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def path_exists(path: Path) -> bool:
    """Return whether the path exists; a name too long or with a NUL byte is no path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_data_file(path: str) -> bool:
    """Return whether the file's name says that it may hold rows."""
    name = PurePosixPath(path).name
    return name.lower().endswith(DATA_SUFFIXES) and name not in _NOT_DATA and not name.startswith(".")


def is_held_out(path: str) -> bool:
    """Return whether a relative path names a test or validation part."""
    return _HELD_OUT.search(path) is not None


def choose_train_files(paths: Iterable[str], where: str) -> ChosenFiles:
    """Return the data files that are not named test or validation, sorted.

    A packed file beside the same file unpacked is left out: its rows would count twice.

    Raises `UserError` when there is no data file, or only held-out ones: training on a file called
    `test` needs the person to name that file.
    """
    found = {path for path in paths if is_data_file(path)}
    twice = sorted(path for path in found if path.lower().endswith(PACKED) and path[: -len(PACKED)] in found)
    data = sorted(found - set(twice))
    if not data:
        raise UserError(f"{where} holds no {', '.join(DATA_SUFFIXES)} file")
    train = tuple(path for path in data if not is_held_out(path))
    left_out = [path for path in data if is_held_out(path)]
    if not train:
        raise UserError(
            f"{where} holds only test or validation files: {_shown(left_out)}",
            hint="name one of these files itself to train on it",
        )
    notes = [f"left out as test or validation data: {_shown(left_out)}"] if left_out else []
    notes += [f"left out, as they lie there unpacked too: {_shown(twice)}"] if twice else []
    return ChosenFiles(train, tuple(notes))


def folder_files(folder: Path) -> list[str]:
    """Return all file paths below `folder`, relative and with `/`; hidden ones and deep ones excepted."""
    found: list[str] = []
    for current, folders, names in os.walk(folder):
        depth = len(Path(current).relative_to(folder).parts)
        folders[:] = (
            sorted(name for name in folders if not name.startswith(".")) if depth < _MAX_DEPTH else []
        )
        found += [(Path(current) / name).relative_to(folder).as_posix() for name in sorted(names)]
        if len(found) > _MAX_FILES:
            raise UserError(f"{str(folder)!r} holds more than {_MAX_FILES} files: name the data file itself")
    return found


def pin_files(paths: Iterable[Path]) -> tuple[FileRef, ...]:
    """Return size and SHA-256 of every file. Raises `DataError` for an empty or unreadable one."""
    refs: list[FileRef] = []
    for path in paths:
        try:
            n_bytes = path.stat().st_size
            if n_bytes == 0:
                raise DataError(f"{str(path)!r} is empty")
            refs.append(FileRef(path=str(path.absolute()), n_bytes=n_bytes, sha256=sha256_file(path)))
        except OSError as error:
            raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    return tuple(refs)


def content_revision(files: Iterable[FileRef]) -> str:
    """Return a short content hash over the files, independent of where they lie."""
    return content_hash([[Path(ref.path).name, ref.sha256] for ref in files], n_chars=16)


def dataset_names(root: Path) -> Iterator[str]:
    """Yield the names under `root` that can be asked for: data files and folders, `name` or `org/name`."""
    if not root.is_dir():
        return
    for first in sorted(root.iterdir()):
        if first.name.startswith("."):
            continue
        if first.is_file():
            if is_data_file(first.name):
                yield first.name
            continue
        children = [child for child in sorted(first.iterdir()) if not child.name.startswith(".")]
        if any(child.is_file() and is_data_file(child.name) for child in children):
            yield first.name
        yield from (f"{first.name}/{child.name}" for child in children if child.is_dir())


def _shown(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
