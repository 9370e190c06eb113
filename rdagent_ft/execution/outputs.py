"""Reading what a job wrote, as hostile input: regular files only, inside the folder, size-bounded.

A job may leave a symlink to a private key, a FIFO that blocks a reader, a file of 100 GB or JSON
nested a million deep. Nothing here follows links, blocks, or reads past its bound. Formats are JSON,
JSON lines and text; weights are never opened here.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Any, cast

from rdagent_ft.errors import JobError

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def read_json_file(root: Path, name: str, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """Return the JSON object in `root/name`.

    Raises `JobError` when the file is missing, not a regular file inside `root`, larger than
    `max_bytes`, or not a JSON object.
    """
    value = _parse(_read_all(root, name, max_bytes).decode("utf-8", "replace"), name)
    if not isinstance(value, dict):
        raise JobError(f"`{name}` holds a JSON {type(value).__name__}, an object was expected")
    return cast("dict[str, Any]", value)


def read_json_lines(
    root: Path,
    name: str,
    max_bytes: int = 1 << 28,
    max_lines: int = 1_000_000,
    *,
    allow_cut_end: bool = False,
) -> list[dict[str, Any]]:
    """Return the JSON objects of `root/name`, one a line; empty lines are skipped.

    With `allow_cut_end`, a last line without its newline that does not parse is left out: the
    writer was killed in the middle of it. Raises `JobError` as `read_json_file` does, with the line.
    """
    text = _read_all(root, name, max_bytes).decode("utf-8", "replace")
    lines = text.split("\n")
    if len(lines) > max_lines + 1:
        raise JobError(f"`{name}` has more than {max_lines} lines")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = _parse(line, f"{name}:{number}")
        except JobError:
            if allow_cut_end and number == len(lines):
                break
            raise
        if not isinstance(value, dict):
            raise JobError(f"`{name}:{number}` holds a JSON {type(value).__name__}, an object was expected")
        rows.append(cast("dict[str, Any]", value))
    return rows


def read_text_tail(path: Path, n_chars: int = 4000) -> str:
    """Return the last `n_chars` characters of a text file, cleaned; "" where there is no such file."""
    return _read_piece(path, from_end=True, n_bytes=n_chars * 4)[-n_chars:]


def read_log(path: Path, n_chars: int = 400_000) -> str:
    """Return a log as text for the failure classifier: all of it, or its beginning and its end.

    The cause of a failure is usually in the first traceback, its consequence at the end.
    """
    half = n_chars // 2
    head = _read_piece(path, from_end=False, n_bytes=n_chars)
    tail = _read_piece(path, from_end=True, n_bytes=half)
    return head if head.endswith(tail) else head[:half] + "\n[...]\n" + tail


def clean_text(text: str) -> str:
    """Return text without terminal escapes, control and direction characters; CR becomes a newline.

    Tabs and newlines stay. Text of a job is printed on terminals and put into reports.
    """
    without = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROLS.sub("", without)


def open_inside(root: Path, name: str) -> int:
    """Open `root/name` for reading and return the descriptor of a regular file.

    Every part below `root` is opened without following links, so nothing outside `root` can be
    reached. Raises `JobError`.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise JobError(f"`{name}` is not a path inside the job's folder")
    descriptors: list[int] = []
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        descriptors.append(folder)
        for part in parts[:-1]:
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            descriptors.append(folder)
        return _open_regular(parts[-1], folder)
    except FileNotFoundError:
        raise JobError(f"the job left no `{name}`") from None
    except OSError as error:
        raise JobError(f"`{name}` cannot be read: {error.strerror}") from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _open_regular(name: str | Path, folder: int | None = None) -> int:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", str(name))
    return descriptor


def _read_all(root: Path, name: str, max_bytes: int) -> bytes:
    with os.fdopen(open_inside(root, name), "rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise JobError(f"`{name}` is larger than {max_bytes} bytes")
    return content


def _read_piece(path: Path, *, from_end: bool, n_bytes: int) -> str:
    try:
        descriptor = _open_regular(path)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        if from_end:
            stream.seek(max(0, os.fstat(descriptor).st_size - n_bytes))
        return clean_text(stream.read(n_bytes).decode("utf-8", "replace"))


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise JobError(f"`{place}` is not valid JSON: {reason}") from None
