"""Tars that travel between us and an engine's volumes: written from listed files, read as hostile input.

What comes back was filled by a job: it is read as a stream, and only regular files and folders below
one root are kept. Why not plain `tarfile`: it takes garbage after a member for the end of the archive,
keeps every member in memory, and reads extended headers of any size. What the files hold is not
looked at here.
"""

from __future__ import annotations

import errno
import os
import tarfile
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from rdagent_ft.errors import EngineRefusedError, JobError, PreflightError
from rdagent_ft.execution.docker_trees import Item, file_key
from rdagent_ft.execution.job_tree import MAX_DEPTH

PIECE_BYTES = 1 << 20
READ_BYTES = 1 << 16
HEADER_BYTES = 1 << 18
"""More than one header may take, with the names that it holds and what is read ahead."""
MAX_NAME_BYTES = 255
_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputTooLargeError(JobError):
    """A job left more bytes or files than may be fetched. Met by the executor, which ends the attempt."""


class Unpacked(NamedTuple):
    """What was kept of an archive; `n_skipped` links, devices, FIFOs and unusable names were not."""

    n_files: int
    n_bytes: int
    n_skipped: int


def pack(root: str, items: Iterable[Item], *, user: tuple[int, int], root_unix: int) -> Generator[bytes]:
    """Yield a tar of the items below a folder `root`, whose own time of change is `root_unix`.

    All belongs to `user`; files are 0644 or 0755. Raises `JobError` when a file is not what was listed.
    """
    top = _header(root, tarfile.DIRTYPE, user)
    top.mode, top.mtime = 0o755, root_unix
    yield top.tobuf(tarfile.PAX_FORMAT)
    for item in items:
        info = _header(f"{root}/{item.name}", tarfile.REGTYPE, user)
        info.mtime = item.mtime_unix
        if item.kind == "folder":
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        elif item.kind == "link":
            info.type, info.linkname = tarfile.SYMTYPE, item.link
        else:
            yield from _packed_file(info, item)
            continue
        yield info.tobuf(tarfile.PAX_FORMAT)
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(pieces: Iterator[bytes], root: str, folder: Path, *, max_bytes: int, max_entries: int) -> Unpacked:
    """Write the files below `root` of a tar stream into the new folder `folder`; modes 0644 or 0755.

    Raises `OutputTooLargeError` past a bound, `EngineRefusedError` for an archive that is cut off,
    damaged, or names a place outside `root`, and `PreflightError` when the disk does not take it.
    """
    folder.mkdir(parents=True)
    writer = _Writer(folder)
    n_entries = n_bytes = n_skipped = 0
    for archive, member in _members(pieces):
        n_entries, n_bytes = n_entries + 1, n_bytes + max(0, member.size)
        if n_entries > max_entries:
            raise OutputTooLargeError(f"the job left more than {max_entries} files")
        if n_bytes > max_bytes:
            raise OutputTooLargeError(f"the job left more than {max_bytes} bytes")
        place = _place(member.name, root)
        if place is None or not (member.isreg() or member.isdir()):
            n_skipped += 1
            continue
        try:
            if member.isdir():
                writer.folder(place, member.mtime)
            else:
                writer.file(place, _content(archive, member), member)
        except OSError as error:
            _raise_write_error(error, place)
    writer.finish()
    return Unpacked(writer.n_files, n_bytes, n_skipped)


def read_single(pieces: Iterator[bytes], max_bytes: int) -> bytes | None:
    """Return the one regular file of a tar stream; None when it is none or larger than `max_bytes`."""
    for archive, member in _members(pieces):
        if not member.isreg() or member.size > max_bytes:
            return None
        return b"".join(_content(archive, member))
    return None


def _header(name: str, kind: bytes, user: tuple[int, int]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, (info.uid, info.gid) = kind, 0o644, user
    return info


def _packed_file(info: tarfile.TarInfo, item: Item) -> Generator[bytes]:
    try:
        with os.fdopen(os.open(item.source, _READ_ONLY), "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            if file_key(status) != item.key:
                raise JobError(f"{item.source} changed while it was sent to the engine")
            info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
            yield info.tobuf(tarfile.PAX_FORMAT)
            left = info.size
            while left:
                piece = stream.read(min(PIECE_BYTES, left))
                if not piece:
                    raise JobError(f"{item.source} became shorter while it was sent to the engine")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise JobError(f"{item.source} cannot be read: {error.strerror}") from None
    yield bytes(-info.size % tarfile.BLOCKSIZE)


class _Source:
    """Pieces as a file object that gives no more than `allowance` bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self.allowance = HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Return the next bytes, `size` at most; b"" at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        taken, self._rest = self._rest[:size], self._rest[size:]
        self.allowance -= len(taken)
        if self.allowance < 0:
            raise EngineRefusedError("the engine's archive has a header of unlikely size")
        return bytes(taken)


class _StrictHeader(tarfile.TarInfo):
    """A header that is neither sound nor the mark of the end is an error, not an end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictHeader:
        """See `tarfile.TarInfo.frombuf`."""
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise EngineRefusedError(f"the engine's archive is damaged or cut off: {error}") from None


def _members(pieces: Iterator[bytes]) -> Generator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of a stream, one in memory at a time. Raises `EngineRefusedError`."""
    source = _Source(pieces)
    try:
        with tarfile.open(
            fileobj=cast("IO[bytes]", source), mode="r|", bufsize=READ_BYTES, tarinfo=_StrictHeader
        ) as archive:
            while (member := archive.next()) is not None:
                archive.__dict__["members"] = []  # it remembers them all, and has no switch for that
                if member.size < 0 or member.issparse():
                    raise EngineRefusedError(
                        f"the engine's archive holds an odd member: {member.name[:200]!r}"
                    )
                source.allowance = member.size + HEADER_BYTES
                yield archive, member
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise EngineRefusedError(f"the engine's archive is damaged or cut off: {error}") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Generator[bytes]:
    stream = cast("IO[bytes]", archive.extractfile(member))
    try:
        while piece := stream.read(PIECE_BYTES):
            yield piece
    except tarfile.TarError as error:
        raise EngineRefusedError(f"the engine's archive is damaged or cut off: {error}") from None


def _place(name: str, root: str) -> str | None:
    """Return a member's path below the root ("" for itself); None for a name that we do not write."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != (root,):
        raise EngineRefusedError(f"the engine's archive names a place outside of the folder: {name[:200]!r}")
    parts = path.parts[1:]
    if len(parts) > MAX_DEPTH + 1 or not name.isprintable():
        return None
    if any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for part in parts):
        return None
    return "/".join(parts)


class _Writer:
    """Writes below a folder that is ours alone and holds no link."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder_times: dict[str, float] = {"": 0.0}
        self.n_files = 0

    def folder(self, place: str, mtime: float) -> None:
        """Make a folder, and remember its time of change."""
        self._make(place)
        self._folder_times[place] = mtime

    def file(self, place: str, content: Iterable[bytes], member: tarfile.TarInfo) -> None:
        """Write a file that is not there yet."""
        self._make(place.rpartition("/")[0])
        with os.fdopen(os.open(self._root / place, _NEW_FILE, 0o600), "wb") as stream:
            for piece in content:
                stream.write(piece)
            stream.flush()  # before the time is set
            os.fchmod(stream.fileno(), 0o755 if member.mode & 0o100 else 0o644)
            _set_time(stream.fileno(), member.mtime)
        self.n_files += 1

    def finish(self) -> None:
        """Give folders their times: what was written into them has changed them."""
        for place, mtime in self._folder_times.items():
            _set_time(self._root / place, mtime)

    def _make(self, place: str) -> None:
        if place in self._folder_times:
            return
        self._make(place.rpartition("/")[0])
        (self._root / place).mkdir()
        (self._root / place).chmod(0o755)
        self._folder_times[place] = 0.0


def _set_time(path: Path | int, mtime: float) -> None:
    """Set a time of change, for trainers that sort checkpoints by it; an odd one is left out."""
    if 0 < mtime <= time.time():
        os.utime(path, (mtime, mtime))


def _raise_write_error(error: OSError, place: str) -> None:
    if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
        raise EngineRefusedError(f"the engine's archive holds `{place}` twice") from None
    raise PreflightError(
        f"what a job left cannot be stored: {error.strerror}", hint="free some disk, then --resume"
    ) from None
