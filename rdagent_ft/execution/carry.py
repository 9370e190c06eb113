"""Carrying files on from a job's folder: to the next attempt, to the export, into the result cache.

Only regular files with a single name are carried, by content or by renaming, never through a link;
all else is left behind and counted. Nothing is read but bytes: what they mean is judged elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from rdagent_ft.errors import JobError
from rdagent_ft.execution.job_tree import TreeEntry, list_tree
from rdagent_ft.execution.outputs import open_folder_inside, open_inside
from rdagent_ft.values import Frozen

PIECE_BYTES = 1 << 20


class CarriedFile(Frozen):
    """A file that was copied: its path below the folder, size and hash of what was written."""

    name: str
    n_bytes: int
    sha256: str


class CopyStats(Frozen):
    """What `copy_tree` copied, and how many entries it left behind."""

    files: tuple[CarriedFile, ...]
    n_skipped: int

    @property
    def n_bytes(self) -> int:
        """Bytes of all copied files."""
        return sum(file.n_bytes for file in self.files)


def copy_file_inside(source_root: Path, name: str, target: Path, *, max_bytes: int) -> CarriedFile:
    """Copy `source_root/name` to `target`, which is replaced as a whole; synced to disk.

    Raises `JobError` when it is no regular file of one name reached without links, or too large.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        carried = _copy(source_root, name, temporary, max_bytes, sync=True)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return carried


def move_folder_inside(
    source_root: Path, name: str, target_root: Path, *, max_files: int, max_bytes: int
) -> int:
    """Move the files of `source_root/name` to `target_root/name`; return how many entries stayed.

    One file is renamed after the other, so a move that was cut off goes on where it stopped. Both
    folders lie on one file system. Raises `JobError`, with nothing moved, when the folder is missing,
    reached by a link, or larger than the limits.
    """
    entries = list_tree(source_root, name, max_entries=max_files)
    files = _within(entries, name, max_bytes)
    for entry in files:
        target = target_root / name / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        inner = PurePosixPath(name, entry.name)
        folder = open_folder_inside(source_root, str(inner.parent))
        try:
            os.rename(inner.name, target, src_dir_fd=folder)
            target.chmod(0o644)  # no set-user-id bit, and readable by the next job
        except OSError as error:
            raise JobError(f"`{inner}` cannot be moved: {error.strerror}") from None
        finally:
            os.close(folder)
    return len(entries) - len(files) - sum(entry.kind == "folder" for entry in entries)


def copy_tree(
    source_root: Path, target_root: Path, *, skip: Collection[str] = (), max_bytes: int, max_files: int
) -> CopyStats:
    """Copy the regular files below `source_root` into the folder `target_root`.

    `skip` names entries at the top that are left out. Modes become 0644, or 0755 for what its owner
    may execute; empty folders are not made. Raises `JobError` past `max_bytes` or `max_files` entries,
    with what was copied so far left for the caller to remove.
    """
    entries = list_tree(source_root, max_entries=max_files, skip=skip)
    files = _within(entries, source_root.name, max_bytes)
    n_left = max_bytes
    copied: list[CarriedFile] = []
    for entry in files:
        target = target_root / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        copied.append(_copy(source_root, entry.name, target, n_left))
        n_left -= copied[-1].n_bytes
    n_skipped = sum(entry.kind not in {"file", "folder"} for entry in entries)
    return CopyStats(files=tuple(copied), n_skipped=n_skipped)


def _within(entries: list[TreeEntry], name: str, max_bytes: int) -> list[TreeEntry]:
    """Return the entries that are files. Raises `JobError` when they are too large together."""
    files = [entry for entry in entries if entry.kind == "file"]
    if sum(entry.n_bytes for entry in files) > max_bytes:
        raise JobError(f"`{name}` of the job is larger than {max_bytes} bytes")
    return files


def _copy(source_root: Path, name: str, target: Path, max_bytes: int, *, sync: bool = False) -> CarriedFile:
    digest = hashlib.sha256()
    n_bytes = 0
    with os.fdopen(open_inside(source_root, name), "rb") as reader:
        status = os.fstat(reader.fileno())
        if status.st_nlink != 1:
            raise JobError(f"`{name}` has another name somewhere: it may be someone else's file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "wb") as writer:
            while piece := reader.read(PIECE_BYTES):
                n_bytes += len(piece)
                if n_bytes > max_bytes:
                    raise JobError(f"`{name}` is larger than {max_bytes} bytes")
                digest.update(piece)
                writer.write(piece)
            os.fchmod(writer.fileno(), 0o755 if status.st_mode & 0o100 else 0o644)
            if sync:
                writer.flush()
                os.fsync(writer.fileno())
    return CarriedFile(name=name, n_bytes=n_bytes, sha256=digest.hexdigest())
