"""Value helpers that every layer shares: frozen models, canonical JSON, hashes, safe file writes.

Why here: a recipe hash, an item id and a cache key must come from one definition of "the same
JSON". Holds no business rules and imports nothing of the package.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of every value that crosses a boundary: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


def canonical_json(value: Any) -> str:
    """Return `value` as JSON text with sorted keys and no spaces; NaN and infinity are refused.

    An integral float is written as the integer (`3.0` -> `3`), so that a recipe that went through
    YAML, JSON or an LLM keeps its hash.
    """
    return json.dumps(
        _normalised(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """Return the hex SHA-256 of `text` in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_hash(value: Any, n_chars: int = 12) -> str:
    """Return the first `n_chars` hex digits of the SHA-256 of `value`'s canonical JSON."""
    return sha256_text(canonical_json(value))[:n_chars]


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write `text`, whole or in pieces, so that a crash leaves the old file or the new one, never a part.

    Temporary file in the same folder, fsync, rename, fsync of the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines((text,) if isinstance(text, str) else text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _normalised(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _normalised(value.model_dump(mode="json", by_alias=True))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {str(key): _normalised(item) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [_normalised(item) for item in value]  # pyright: ignore
    return value
