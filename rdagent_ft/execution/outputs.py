"""Reading what a job wrote, as hostile input: regular files only, inside the folder, size-bounded.

A job may leave a symlink to a private key, a FIFO that blocks a reader, a file of 100 GB or JSON
nested a million deep. Nothing here follows links, blocks, or reads past its bound. Formats are JSON,
JSON lines and text; safetensors are judged by `weight_files`, and a pickle is opened by nothing.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from rdagent_ft.errors import JobError

MAX_JSON_PARTS = 1_000_000
"""Objects and lists of one JSON text: 64 MiB of `[],[],[]` would take 1.5 GiB once parsed."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def read_json_file(root: Path, name: str, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """Return the JSON object in `root/name`.

    Raises `JobError` when the file is missing, not a regular file inside `root`, larger than
    `max_bytes`, or not a JSON object.
    """
    return _parse_object(_read_all(root, name, max_bytes).decode("utf-8", "replace"), name)


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
    numbered = iter_json_lines(root, name, max_bytes, max_lines, allow_cut_end=allow_cut_end)
    return [value for _, value in numbered]


def read_numbered_json_lines(
    root: Path, name: str, max_bytes: int, max_lines: int, *, allow_cut_end: bool = False
) -> list[tuple[int, dict[str, Any]]]:
    """Return what `read_json_lines` returns, each object with the number of its line, from 1."""
    return list(iter_json_lines(root, name, max_bytes, max_lines, allow_cut_end=allow_cut_end))


def iter_json_lines(
    root: Path,
    name: str,
    max_bytes: int,
    max_lines: int,
    *,
    max_line_bytes: int | None = None,
    allow_cut_end: bool = False,
) -> Generator[tuple[int, dict[str, Any]]]:
    """Yield line number (from 1) and object of each line; one line is in memory at a time.

    A line may have `max_line_bytes`, or as many as the file. Raises `JobError` as `read_json_lines`
    does, when it comes to the bad line.
    """
    with os.fdopen(open_inside(root, name), "rb") as stream:
        n_left, number = max_bytes, 0
        longest = max_bytes if max_line_bytes is None else min(max_line_bytes, max_bytes)
        while line := stream.readline(longest + 1):
            number, n_left = number + 1, n_left - len(line)
            if n_left < 0:
                raise JobError(f"`{name}` is larger than {max_bytes} bytes")
            if len(line) > longest:
                raise JobError(f"`{name}:{number}` is longer than {longest} bytes")
            if number > max_lines:
                raise JobError(f"`{name}` has more than {max_lines} lines")
            if not line.strip():
                continue
            try:
                yield number, _parse_object(line.decode("utf-8", "replace"), f"{name}:{number}")
            except JobError:
                if allow_cut_end and not line.endswith(b"\n"):
                    return
                raise


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
    parts = _parts(name)
    if not parts:
        raise JobError(f"`{name}` is not a path inside the job's folder")
    try:
        folder = _open_folder(root, parts[:-1])
        try:
            return _open_regular(parts[-1], folder)
        finally:
            os.close(folder)
    except FileNotFoundError:
        raise JobError(f"the job left no `{name}`") from None
    except OSError as error:
        raise JobError(f"`{name}` cannot be read: {error.strerror}") from None


def open_folder_inside(root: Path, name: str = "") -> int:
    """Return the descriptor of the folder `root/name`, opened as `open_inside` opens. Raises `JobError`."""
    try:
        return _open_folder(root, _parts(name))
    except FileNotFoundError:
        raise JobError(f"the job left no `{name}`") from None
    except OSError as error:
        raise JobError(f"`{name}` is not a folder that can be read: {error.strerror}") from None


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise JobError(f"`{name}` is not a path inside the job's folder")
    return parts


def _open_folder(root: Path, parts: tuple[str, ...]) -> int:
    """Open the folders one below the other; none but `root` itself may be reached by a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, flags)
    for part in parts:
        try:
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _open_regular(name: str | Path, folder: int | None = None) -> int:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", str(name))
    return descriptor


def _read_all(root: Path, name: str, max_bytes: int) -> bytes:
    with os.fdopen(open_inside(root, name), "rb") as stream:
        n_bytes = os.fstat(stream.fileno()).st_size
        content = stream.read(min(n_bytes, max_bytes) + 1)
    if max(n_bytes, len(content)) > max_bytes:
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


def _parse_object(text: str, place: str) -> dict[str, Any]:
    if text.count("[") + text.count("{") > MAX_JSON_PARTS or text.count(",") > 4 * MAX_JSON_PARTS:
        raise JobError(f"`{place}` has too many parts")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise JobError(f"`{place}` is not valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise JobError(f"`{place}` holds a JSON {type(value).__name__}, an object was expected")
    return cast("dict[str, Any]", value)
