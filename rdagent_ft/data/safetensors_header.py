"""Weight counts from safetensors headers, without loading a weight.

A header is 8 bytes of length (little-endian) and that much JSON. The file must be exactly as long as the
header says: a download that was cut is found here and not in the middle of a training.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import UserError

_MAX_HEADER_BYTES = 100 << 20


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name -> shape. Raises `UserError` when the file is damaged or cut."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            n_header = int.from_bytes(stream.read(8), "little")
            if size < 8 or n_header > min(size - 8, _MAX_HEADER_BYTES):
                raise _damaged(path, "its header does not fit the file")
            header: Any = json.loads(stream.read(n_header))
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not an object")
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for name, entry in cast("dict[str, Any]", header).items():
        if name == "__metadata__":
            continue
        try:
            shapes[name] = tuple(int(length) for length in entry["shape"])
            end = max(end, int(entry["data_offsets"][1]))
        except (KeyError, TypeError, ValueError, IndexError):
            raise _damaged(path, f"the entry of {name[:80]!r} is malformed") from None
    if size != 8 + n_header + end:
        raise _damaged(path, f"it has {size} bytes where its header asks for {8 + n_header + end}")
    return shapes


def count_weights(paths: list[Path]) -> int:
    """Return the number of weights in all files; a tensor stored twice counts once."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        shapes |= tensor_shapes(path)
    return sum(math.prod(shape) for shape in shapes.values())


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{str(path)!r} is not a whole safetensors file: {reason}", hint="download it again")
