"""Data files as they are or packed with gzip, so that readers need not know which.

A packed file is unpacked once without keeping anything before a reader sees it: a bomb, a cut or damaged
file is refused as a whole. No other packing is read.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, cast

from rdagent_ft.errors import DataError

PACKED = ".gz"
MAX_UNPACKED_BYTES = 4 << 30
MAX_RATIO = 200
"""JSON lines shrink 3 to 20 times, one row repeated about 100 times; zeros shrink 1,000 times."""

SMALL_BYTES = 16 << 20
"""Up to here the ratio does not matter: so much fits into any memory."""

_CHUNK_BYTES = 1 << 20


def is_packed(path: Path) -> bool:
    """Return whether the name says that the file is packed with gzip."""
    return path.name.lower().endswith(PACKED)


def data_suffix(path: Path) -> str:
    """Return the ending that names the format, in lower case: `.jsonl` of `x.jsonl` and `x.jsonl.gz`."""
    return (path.with_suffix("") if is_packed(path) else path).suffix.lower()


def open_data(path: Path) -> IO[bytes]:
    """Open a data file for reading bytes, unpacked and seekable.

    Raises `DataError` for a packed file that is no gzip, cut off, damaged, or unpacks to more than
    `MAX_UNPACKED_BYTES` or than `MAX_RATIO` times its size; `OSError` for what cannot be opened.
    """
    if not is_packed(path):
        return path.open("rb")
    check_packed(path, MAX_UNPACKED_BYTES)
    return cast("IO[bytes]", gzip.open(path, "rb"))


def check_packed(path: Path, max_bytes: int) -> int:
    """Return the bytes that the file unpacks to, at most `max_bytes`; nothing is kept.

    Errors: those of `open_data`.
    """
    allowed = min(max_bytes, max(SMALL_BYTES, MAX_RATIO * path.stat().st_size))
    n_bytes = 0
    try:
        with gzip.open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                n_bytes += len(chunk)
                if n_bytes > allowed:
                    raise DataError(
                        f"{path.name} unpacks to more than {allowed:,} bytes",
                        hint=f"limits are {max_bytes:,} bytes and {MAX_RATIO} times the packed size: "
                        "unpack it yourself if you trust it",
                    )
    except gzip.BadGzipFile as error:
        raise DataError(f"{path.name} is no gzip file, or damaged: {error}") from None
    except EOFError:
        raise DataError(f"{path.name} is cut off: its end is missing", hint="fetch it again") from None
    except zlib.error as error:
        raise DataError(f"{path.name} is damaged: {error}", hint="fetch it again") from None
    return n_bytes
