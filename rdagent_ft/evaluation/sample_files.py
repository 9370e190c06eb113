"""SampleRows on disk: one JSON object a line, in item order. Reading trusts nothing but the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdagent_ft.errors import StateError
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.values import write_atomic

MAX_FILE_BYTES = 512 << 20


def write_samples(path: Path, rows: Sequence[SampleRow]) -> None:
    """Write the rows to `path` atomically; folders are made."""
    write_atomic(path, (sample_line(row) + "\n" for row in rows))


def sample_line(row: SampleRow) -> str:
    """Return the row as one line of ASCII JSON (no separator inside a text can break the line)."""
    return json.dumps(row.model_dump(mode="json"), allow_nan=False)


def read_samples(path: Path) -> list[SampleRow]:
    """Return the rows of `path`. Raises `StateError` when it is absent, over 512 MiB or damaged."""
    try:
        n_bytes = path.stat().st_size
    except OSError as error:
        raise StateError(f"samples cannot be read: {path}: {error.strerror}") from None
    if n_bytes > MAX_FILE_BYTES:
        raise StateError(f"samples file is {n_bytes} bytes, more than {MAX_FILE_BYTES}: {path}")
    rows: list[SampleRow] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                value: Any = json.loads(line)
                rows.append(SampleRow.model_validate(value))
            except (ValueError, ValidationError, RecursionError) as error:
                raise StateError(f"{path}:{number} is not a sample row: {_first_line(error)}") from None
    return rows


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
