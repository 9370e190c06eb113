"""Listing a folder that a job left: every entry with what it really is, within bounds.

Links are named and never followed, and a tree that is too deep or too full ends the listing. What a
caller makes of a link, a FIFO or a second name of a foreign file is its own affair.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import open_folder_inside

MAX_DEPTH = 16
EntryKind = Literal["file", "folder", "link", "shared", "special", "deep", "unnamed"]


class TreeEntry(NamedTuple):
    """One entry: its path below the listed folder, what it is, and its size in bytes.

    `kind` is `file` or `folder` for what may be used. Else: `link` (symbolic), `shared` (a file with
    more than one name: it may be someone else's), `special` (FIFO, socket, device), `deep` (a folder
    below `MAX_DEPTH`, not looked into), `unnamed` (a name that is not clean UTF-8).
    """

    name: str
    kind: EntryKind
    n_bytes: int


def list_tree(root: Path, name: str = "", *, max_entries: int, skip: Collection[str] = ()) -> list[TreeEntry]:
    """Return all entries below `root/name` in the order of their names, folders before what they hold.

    `skip` names entries at the top that are not looked at. Raises `JobError` when the folder is
    missing or reached by a link, or when there are more than `max_entries`.
    """
    found: list[TreeEntry] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        entries = _list_folder(root, _join(name, folder), folder, max_entries - len(found))
        if not folder:
            entries = [entry for entry in entries if entry.name not in skip]
        found += entries
        waiting += [entry.name for entry in entries if entry.kind == "folder"]
    return sorted(found)


def _list_folder(root: Path, place: str, folder: str, n_left: int) -> list[TreeEntry]:
    descriptor = open_folder_inside(root, place)
    try:
        found: list[TreeEntry] = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if len(found) >= n_left:
                    raise JobError(f"`{place or '.'}` of the job holds too many files")
                path = _join(folder, entry.name)
                status = entry.stat(follow_symlinks=False)
                found.append(TreeEntry(path, _kind(entry.name, path, status), status.st_size))
        return found
    finally:
        os.close(descriptor)


def _kind(name: str, path: str, status: os.stat_result) -> EntryKind:
    if not name.isprintable():  # lone surrogates stand for bytes that are no UTF-8
        return "unnamed"
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "folder" if path.count("/") < MAX_DEPTH else "deep"
    if stat.S_ISREG(mode):
        return "file" if status.st_nlink == 1 else "shared"
    return "special"


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name
