"""The name of a job's result: one hash over everything that decides it.

Two jobs of equal image, code, command, environment and input contents get the same key wherever their
folders lie; when they run and what they are called does not count. What a job cannot be named by (an
input that is missing, or links to a folder) has no key, and its result is not kept.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from rdagent_ft.errors import JobError
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.values import canonical_json, sha256_file, sha256_text

KEY_VERSION = 1
"""Raised when what is hashed, or what is stored, changes."""
MAX_TEXT_BYTES = 4 << 20
MAX_FILES = 100_000
NOT_CONTENT = frozenset({".jobs", ".cache"})
"""Names at the top of a job's folder that an executor or a library keeps for itself."""
# No letter, digit or dot may touch a path: `/a/b` is not meant in `/a/b2` or `/x/a/b`.
_EDGE = rb"[\w.\-\x80-\xff]"
Digest = tuple[str, str, str]
"""Path below its root, `text` or `bytes`, SHA-256."""


class UnnamedResultError(JobError):
    """A job's result cannot be named; the message says what is in the way."""


class FileHashes:
    """SHA-256 of files, kept in memory while size, times and inode stay: models are hashed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int, int], str] = {}

    def sha256(self, path: Path, status: os.stat_result) -> str:
        """Return the hash of the file that has this status."""
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = sha256_file(path)
        return found


@cache
def package_hash() -> str:
    """Return one hash over this package's Python files, by their paths and contents."""
    root = Path(__file__).resolve().parent.parent
    return sha256_text(
        canonical_json(
            [[path.relative_to(root).as_posix(), sha256_file(path)] for path in sorted(root.rglob("*.py"))]
        )
    )


def job_key(spec: JobSpec, *, image: str, code_hash: str, hashes: FileHashes) -> str:
    """Return 64 hex digits that name the result of `spec` in this image. Raises `UnnamedResultError`.

    Literal paths of the inputs and of the output folder are replaced by their names in the command,
    the environment and in text files up to 4 MiB. A job that finds scratch files of an attempt before
    (checkpoints) has no key: hashing them costs more than their result is ever asked for.
    """
    left_over = [name for name in spec.scratch if os.path.lexists(spec.out_dir / name)]
    if left_over:
        raise UnnamedResultError(f"`{left_over[0]}` of an attempt before lies in {spec.out_dir}")
    replace = _replacer(spec)

    def named(text: str) -> str:
        return replace(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    return sha256_text(
        canonical_json(
            {
                "version": KEY_VERSION,
                "image": image,
                "code": code_hash,
                "kind": spec.kind,
                "argv": [named(word) for word in spec.argv],
                "env": {name: named(value) for name, value in spec.env.items()},
                "needs_gpu": spec.needs_gpu,
                "aliases": spec.aliases,
                "scratch": sorted(spec.scratch),
                "inputs": {
                    name: sorted(_digests(path, replace, hashes)) for name, path in spec.inputs.items()
                },
                "out": sorted(_digests(spec.out_dir, replace, hashes)) if spec.out_dir.exists() else [],
            }
        )
    )


def _replacer(spec: JobSpec) -> Callable[[bytes], bytes]:
    """Return what replaces paths by names; a name holds NUL, which no text that counts holds."""
    names: dict[bytes, bytes] = {}
    folders = [(path, f"input:{name}") for name, path in sorted(spec.inputs.items())]
    for folder, name in [*folders, (spec.out_dir, "out")]:
        for path in {str(folder.absolute()), os.path.realpath(folder)}:
            if path != "/":
                names.setdefault(os.fsencode(path), b"\0<" + name.encode() + b">\0")
    if not names:
        return lambda content: content
    longest_first = sorted(names, key=lambda path: (-len(path), path))
    pattern = re.compile(
        rb"(?<!" + _EDGE + rb")(?:" + b"|".join(map(re.escape, longest_first)) + rb")(?!" + _EDGE + rb")"
    )
    return lambda content: pattern.sub(lambda match: names[match.group()], content)


def _digests(root: Path, replace: Callable[[bytes], bytes], hashes: FileHashes) -> Iterator[Digest]:
    """Yield path, form and hash of each file below `root`, or of `root` when it is a file."""
    try:
        for number, path in enumerate(_files(root)):
            if number >= MAX_FILES:
                raise UnnamedResultError(f"{root} holds more than {MAX_FILES} files")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UnnamedResultError(f"{path} is no regular file")
            name = "" if path == root else path.relative_to(root).as_posix()
            content = path.read_bytes() if status.st_size <= MAX_TEXT_BYTES else None
            if content is not None and _is_text(content):
                yield name, "text", sha256_text(replace(content).decode("utf-8"))
            else:
                yield name, "bytes", hashes.sha256(path, status)
    except OSError as error:
        raise UnnamedResultError(f"{root} cannot be read: {error.strerror}") from None


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below `root`, links among them: a model folder may consist of links to files."""
    if not root.is_dir():
        yield root
        return
    for parent, folders, files in os.walk(root):
        if Path(parent) == root:
            folders[:] = [name for name in folders if name not in NOT_CONTENT]
        for name in folders:
            if Path(parent, name).is_symlink():
                raise UnnamedResultError(f"{Path(parent, name)} links to a folder")
        yield from (Path(parent, name) for name in files)


def _is_text(content: bytes) -> bool:
    if b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
