"""The run's own file of preference rows: written once when a run is prepared, read by its stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rdagent_ft.data.preferences import PreferenceRow
from rdagent_ft.data.write import read_stored, write_lines


def write_preference_rows(path: Path, rows: Iterable[PreferenceRow]) -> None:
    """Write rows as JSON lines; `read_preference_rows` gives equal rows back."""
    write_lines(path, (row.model_dump(mode="json") for row in rows))


def read_preference_rows(path: Path) -> list[PreferenceRow]:
    """Return the rows that `write_preference_rows` wrote. Raises `DataError` naming file and line."""
    return read_stored(path, PreferenceRow)
