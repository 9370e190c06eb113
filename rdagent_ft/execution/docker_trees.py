"""What a job reads, as a list of files that can be sent: names, sources and one hash over all of it.

The hash names the volume that holds the files on a remote engine, so equal inputs travel once. Nothing
is sent from here (`docker_archives`, `docker_transfer`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.values import sha256_file

MAX_ITEMS = 200_000


class FileKey(NamedTuple):
    """What changes when a file's content does."""

    device: int
    inode: int
    n_bytes: int
    mtime_ns: int


class Item(NamedTuple):
    """One entry of a tree: its path below the root, and where its content is read.

    `source` and `key` belong to files, `link` to links.
    """

    name: str
    kind: Literal["file", "folder", "link"]
    source: Path = Path()
    key: FileKey | None = None
    link: str = ""
    mtime_unix: int = 0
    is_executable: bool = False


def file_key(status: os.stat_result) -> FileKey | None:
    """Return the key of a regular file; None for anything else."""
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def list_items(
    folder: Path, *, follow_links_out: bool, skip: Collection[str] = (), closed: Collection[Path] = ()
) -> list[Item]:
    """Return what lies below a folder: files, folders, and links that stay inside it.

    A link that leads out becomes the file that it points to where `follow_links_out`, and is left out
    elsewhere, as are FIFOs, sockets and devices. Names in `skip` are left out everywhere; folders in
    `closed` are not looked into. Raises `JobError` for a folder that cannot be read or is too full.
    """
    root = folder.resolve()
    items: list[Item] = []
    for parent, folders, files in os.walk(root, onerror=_raise_unreadable):
        here = Path(parent)
        for name in sorted({*folders, *files} - set(skip)):
            item = _item(root, here / name, follow_links_out=follow_links_out)
            if item is not None:
                items.append(item)
        if len(items) > MAX_ITEMS:
            raise JobError(f"{folder} holds more than {MAX_ITEMS} files")
        folders[:] = [name for name in folders if name not in skip and here / name not in closed]
    return items


def file_item(name: str, path: Path) -> Item:
    """Return a file under a name of its own. Raises `JobError` when it is no regular file."""
    try:
        status = path.lstat()
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}") from None
    item = _file(name, path, status)
    if item is None:
        raise JobError(f"{path} is neither a file nor a folder")
    return item


def with_folders(items: list[Item], names: Iterable[str]) -> list[Item]:
    """Return the items and the folders of these names, which something else will be mounted on."""
    there = {item.name for item in items}
    wanted: dict[str, None] = {}
    for name in sorted(names):
        parts = name.split("/")
        wanted |= dict.fromkeys("/".join(parts[:n]) for n in range(1, len(parts) + 1))
    return [*items, *(Item(name, "folder") for name in wanted if name not in there)]


class Hashes:
    """Hashes of files, each read once as long as it does not change."""

    def __init__(self) -> None:
        self._known: dict[FileKey, str] = {}

    def listing(self, items: list[Item]) -> list[list[str]]:
        """Return names and contents of the items, for a hash over all of them. Raises `JobError`."""
        return sorted(
            [item.name, item.kind, item.link, "x" if item.is_executable else "", self._content(item)]
            for item in items
        )

    def _content(self, item: Item) -> str:
        if item.key is None:
            return ""
        if item.key not in self._known:
            try:
                self._known[item.key] = sha256_file(item.source)
            except OSError as error:
                raise JobError(f"{item.source} cannot be read: {error.strerror}") from None
        return self._known[item.key]


def _item(root: Path, path: Path, *, follow_links_out: bool) -> Item | None:
    name = str(path.relative_to(root))
    try:
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode):
            if stat.S_ISDIR(status.st_mode):
                return Item(name, "folder", mtime_unix=int(status.st_mtime))
            return _file(name, path, status)
        link, real = str(path.readlink()), path.resolve()
        if real.is_relative_to(root) and not Path(link).is_absolute():
            return Item(name, "link", link=link)
        if real.is_relative_to(root) or follow_links_out:
            return _file(name, real, real.stat())
    except OSError:  # a link to nothing
        return None
    return None


def _file(name: str, path: Path, status: os.stat_result) -> Item | None:
    key = file_key(status)
    if key is None:
        return None
    is_executable = bool(status.st_mode & 0o100)
    return Item(name, "file", path, key, mtime_unix=int(status.st_mtime), is_executable=is_executable)


def _raise_unreadable(error: OSError) -> None:
    raise JobError(f"{error.filename} cannot be read: {error.strerror}")
