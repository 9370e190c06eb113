"""The header of a safetensors file, read strictly: the one place that knows the format.

A header is 8 bytes of length (little-endian) and that much JSON; the tensors follow without gap or
overlap up to the last byte. A file that was cut or made up is found here, before anything loads it.
No weight is read. Callers say whose file it is and raise their own error.
"""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO, NamedTuple, cast

MAX_HEADER_BYTES = 100 << 20
"""What the format's own library accepts."""
MAX_HEADER_PARTS = 1_000_000
"""Objects and lists: three for each tensor. A header of empty lists would take 20 times its size."""
MAX_DIMENSIONS = 32
_MAX_LENGTH = 1 << 48
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


class DamagedTensorsError(ValueError):
    """The bytes are no whole safetensors file; the text says why."""


class Tensor(NamedTuple):
    """One entry of the header: `start` and `end` count bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_tensors(
    stream: BinaryIO, n_bytes: int, *, max_header_bytes: int = MAX_HEADER_BYTES
) -> dict[str, Tensor]:
    """Return tensor name -> entry of a file of `n_bytes` that is open at its start.

    Raises `DamagedTensorsError` unless every entry is well formed and the entries cover the file's
    bytes exactly once.
    """
    n_header = int.from_bytes(stream.read(8), "little")
    if n_bytes < 8 or n_header > min(n_bytes - 8, max_header_bytes):
        raise DamagedTensorsError("its header does not fit the file")
    raw = stream.read(n_header)
    if raw.count(b"[") + raw.count(b"{") > MAX_HEADER_PARTS:
        raise DamagedTensorsError("its header has too many parts")
    try:
        header: Any = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        own = isinstance(error, DamagedTensorsError)
        raise DamagedTensorsError(str(error) if own else "its header is not JSON") from None
    if not isinstance(header, dict):
        raise DamagedTensorsError("its header is not an object")
    entries = cast("dict[str, Any]", header)
    _check_metadata(entries.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    _check_layout(tensors, n_bytes - 8 - n_header)
    return tensors


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DamagedTensorsError("its header names a key twice")
    return found


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict):
        raise DamagedTensorsError("its metadata is not an object")
    if not all(isinstance(value, str) for value in cast("dict[str, Any]", metadata).values()):
        raise DamagedTensorsError("its metadata is not text")


def _tensor(name: str, entry: Any) -> Tensor:
    """Return one entry, its size checked against dtype and shape."""
    place = f"the entry of {name[:80]!r}"
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise DamagedTensorsError(f"{place} has a name that is no text")
    values = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    if set(values) != {"dtype", "shape", "data_offsets"}:
        raise DamagedTensorsError(f"{place} is malformed")
    dtype, shape = values["dtype"], _sizes(values["shape"])
    offsets = _sizes(values["data_offsets"])
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise DamagedTensorsError(f"{place} has an unknown dtype")
    if shape is None or len(shape) > MAX_DIMENSIONS or offsets is None or len(offsets) != 2:
        raise DamagedTensorsError(f"{place} is malformed")
    start, end = offsets
    if start > end or math.prod(shape) * _DTYPE_BITS[dtype] != (end - start) * 8:
        raise DamagedTensorsError(f"{place} has other bytes than its shape asks for")
    return Tensor(dtype, shape, start, end)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a list of sizes, None when it is none. True is no 1 here."""
    if not isinstance(value, list):
        return None
    sizes = cast("list[Any]", value)
    fit = all(type(size) is int and 0 <= size <= _MAX_LENGTH for size in sizes[: MAX_DIMENSIONS + 1])
    return tuple(sizes[: MAX_DIMENSIONS + 1]) if fit else None


def _check_layout(tensors: dict[str, Tensor], n_data_bytes: int) -> None:
    position = 0
    for start, end, name in sorted((tensor.start, tensor.end, name) for name, tensor in tensors.items()):
        if start != position:
            raise DamagedTensorsError(f"the entry of {name[:80]!r} leaves a gap or overlaps another")
        position = end
    if position != n_data_bytes:
        raise DamagedTensorsError(f"it has {n_data_bytes} bytes of weights, its header asks for {position}")
