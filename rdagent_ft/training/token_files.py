"""Tokenised rows as one safetensors file: what a training leaves and a later one starts from.

Flat token ids, where each row begins, and where its trained part begins: a row trains everything after
its prompt. Rows are whole, not cut to any length, so that trainings of several lengths share a file. Read
as strictly by jobs as by the controller; that the ids are the right ones for the text is asked elsewhere.
Runs inside jobs, too: standard library and numpy only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from rdagent_ft.tensor_files import DamagedTensorsError, Tensor, read_tensors

LEFT_NAME = "tokens.safetensors"
"""What a job leaves in its folder, and what lies in `CACHE_FOLDER` of an entry that it is given."""
CACHE_FOLDER = ".cache"
"""Result keys leave this folder of an input out: tokens make a job faster and decide nothing."""
MAX_TOKENS = 1 << 29
MAX_FILE_BYTES = 4 * MAX_TOKENS + (1 << 30)
_MAX_HEADER_BYTES = _MAX_VERSION_BYTES = 4096
_DTYPES = {
    "offsets": ("I64", "<i8"),
    "ids": ("I32", "<i4"),
    "starts": ("I32", "<i4"),
    "versions": ("U8", "u1"),
}


class DamagedTokensError(ValueError):
    """The file does not hold what it should; the text says what is wrong."""


class Tokens(NamedTuple):
    """Tokenised rows, in the order of the training file.

    Attributes:
        ids: int32, all rows one behind the other.
        offsets: int64, one more than rows: row n is `ids[offsets[n]:offsets[n + 1]]`.
        starts: int32, tokens of each row before its trained part.
        versions: package -> version of what tokenised.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    starts: NDArray[np.int32]
    versions: dict[str, str]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.starts)


def write_tokens(path: Path, tokens: Tokens) -> None:
    """Write a file; it appears whole or not at all. Equal tokens give equal bytes."""
    arrays: dict[str, NDArray[Any]] = {
        "offsets": tokens.offsets,
        "ids": tokens.ids,
        "starts": tokens.starts,
        "versions": np.frombuffer(json.dumps(tokens.versions, sort_keys=True).encode(), dtype=np.uint8),
    }
    header: dict[str, Any] = {}
    position = 0
    for name, array in arrays.items():
        end = position + array.size * np.dtype(_DTYPES[name][1]).itemsize
        header[name] = {"dtype": _DTYPES[name][0], "shape": [array.size], "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers then lie where processors like them
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, array in arrays.items():
            array.astype(_DTYPES[name][1], copy=False).tofile(stream)
    temporary.replace(path)


def read_tokens(path: Path, *, n_rows: int, vocab_size: int | None = None) -> Tokens:
    """Return the tokens of a file, mapped into memory and checked in every number.

    Args:
        path: a regular file that nobody writes to any more.
        n_rows: rows of the training file; the tokens must have as many.
        vocab_size: every id must be below it; None asks only for ids that are not negative.

    Raises `DamagedTokensError`, and `OSError` when the file cannot be opened.
    """
    with path.open("rb") as stream:
        n_bytes = os.fstat(stream.fileno()).st_size
        if n_bytes > MAX_FILE_BYTES:
            raise DamagedTokensError(f"it is larger than {MAX_FILE_BYTES} bytes")
        try:
            entries = read_tensors(stream, n_bytes, max_header_bytes=_MAX_HEADER_BYTES)
        except DamagedTensorsError as error:
            raise DamagedTokensError(str(error)) from None
        begin = stream.tell()
    _check_entries(entries, n_rows, begin)
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    arrays = {
        name: raw[begin + entry.start : begin + entry.end].view(_DTYPES[name][1])
        for name, entry in entries.items()
    }
    tokens = Tokens(
        arrays["ids"], arrays["offsets"], arrays["starts"], _versions(arrays["versions"].tobytes())
    )
    _check_numbers(tokens, vocab_size)
    return tokens


def _check_entries(entries: dict[str, Tensor], n_rows: int, begin: int) -> None:
    if set(entries) != set(_DTYPES):
        raise DamagedTokensError(f"it holds {sorted(entries)!r:.200}, expected {sorted(_DTYPES)}")
    for name, entry in entries.items():
        if entry.dtype != _DTYPES[name][0] or len(entry.shape) != 1:
            raise DamagedTokensError(f"`{name}` is no flat {_DTYPES[name][0]}")
    if n_rows < 1:
        raise DamagedTokensError("there are no rows")
    for name, wanted in (("offsets", n_rows + 1), ("starts", n_rows)):
        if entries[name].shape != (wanted,):
            raise DamagedTokensError(f"`{name}` has {entries[name].shape[0]} numbers, expected {wanted}")
    if entries["ids"].shape[0] > MAX_TOKENS or entries["versions"].shape[0] > _MAX_VERSION_BYTES:
        raise DamagedTokensError("it holds more than any training leaves")
    if any((begin + entry.start) % np.dtype(_DTYPES[name][1]).itemsize for name, entry in entries.items()):
        raise DamagedTokensError("its numbers are not aligned")


def _check_numbers(tokens: Tokens, vocab_size: int | None) -> None:
    offsets = tokens.offsets
    if offsets[0] != 0 or offsets[-1] != tokens.ids.size or offsets.max() > tokens.ids.size:
        raise DamagedTokensError("its rows do not cover its tokens")
    lengths = np.diff(offsets)
    if offsets.min() < 0 or (lengths <= 0).any():
        raise DamagedTokensError("its rows do not cover its tokens one after the other")
    if (tokens.starts < 0).any() or (tokens.starts > lengths).any():
        raise DamagedTokensError("a trained part begins outside of its row")
    if tokens.ids.min() < 0 or (vocab_size is not None and tokens.ids.max() >= vocab_size):
        raise DamagedTokensError("a token is not in the vocabulary")


def _versions(raw: bytes) -> dict[str, str]:
    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError):
        raise DamagedTokensError("`versions` is not JSON") from None
    found = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if not found or not all(isinstance(version, str) for version in found.values()):
        raise DamagedTokensError("`versions` names no packages")
    return found
