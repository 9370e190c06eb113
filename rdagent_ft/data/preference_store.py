"""The run's own file of preference rows: written once when a run is prepared, read by its stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from rdagent_ft.data.preferences import PreferenceRow
from rdagent_ft.errors import DataError
from rdagent_ft.values import write_atomic


def write_preference_rows(path: Path, rows: Iterable[PreferenceRow]) -> None:
    """Write rows as JSON lines; `read_preference_rows` gives equal rows back."""
    write_atomic(path, "".join(row.model_dump_json() + "\n" for row in rows))


def read_preference_rows(path: Path) -> list[PreferenceRow]:
    """Return the rows that `write_preference_rows` wrote. Raises `DataError` naming file and line."""
    rows: list[PreferenceRow] = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    rows.append(PreferenceRow.model_validate_json(line))
                except ValidationError as error:
                    reason = error.errors()[0]["msg"]
                    raise DataError(f"{str(path)!r}, line {number}: not a stored pair: {reason}") from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    return rows
