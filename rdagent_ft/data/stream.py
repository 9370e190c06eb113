"""Read a dataset row by row in bounded memory: one pass for the columns, one for the rows.

Gives the same rows and reasons as `read.read_rows`, which holds everything at once. A JSON list (not JSON
lines) is one document and is held by the parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.data.columns import ColumnMapping, map_columns
from rdagent_ft.data.preference_columns import PreferenceFormat, preference_format
from rdagent_ft.data.read import records_of, usable_row
from rdagent_ft.data.records import Record
from rdagent_ft.data.rows import DatasetSource, Row
from rdagent_ft.data.turns import Unusable
from rdagent_ft.errors import DataError

_N_SAMPLE = 1000


class Scan(NamedTuple):
    """What one pass over the files told.

    Attributes:
        sample: the first records, and for every later column the first record that has it.
        n_records: records in the files.
        has_boolean_labels: a column `label` holds booleans only.
        preferences: which kind of preference data it is, None where it is none.
    """

    sample: list[Record]
    n_records: int
    has_boolean_labels: bool
    preferences: PreferenceFormat | None


class Judged(NamedTuple):
    """One record: its row, or the reason why it has none."""

    place: str
    row: Row | None
    reason: str | None


def scan(source: DatasetSource, columns: dict[str, str] | None = None) -> Scan:
    """Look at all records once, keeping few. Raises `DataError` for malformed files and for no records."""
    sample: list[Record] = []
    seen: set[str] = set()
    n_records = n_labels = 0
    all_boolean = True
    for record in _records(source):
        n_records += 1
        if len(sample) < _N_SAMPLE or not record.columns.keys() <= seen:
            sample.append(record)
            seen |= record.columns.keys()
        if "label" in record.columns:
            n_labels += 1
            all_boolean = all_boolean and isinstance(record.columns["label"], bool)
    if not sample:
        raise DataError(f"dataset {source.name!r} holds no rows")
    labelled = n_labels > 0 and all_boolean
    kind = preference_format(sample, columns)
    if kind == "kto" and n_labels and not labelled and "label" not in (columns or {}):
        kind = None
    return Scan(sample, n_records, labelled, kind)


def stream_rows(source: DatasetSource, found: Scan, mapping: ColumnMapping) -> Iterator[Judged]:
    """Yield every record as a row or a reason, in file order."""
    labelled = found.has_boolean_labels and "label" not in mapping.fields.values()
    for record in _records(source):
        try:
            row = usable_row(record, mapping, labelled=labelled)
        except Unusable as error:
            yield Judged(record.place, None, str(error))
        else:
            yield Judged(record.place, row, None)


def row_mapping(found: Scan, columns: dict[str, str] | None = None) -> ColumnMapping:
    """Return how records become rows. Raises `DataError` as `map_columns` does."""
    return map_columns(found.sample, columns)


def _records(source: DatasetSource) -> Iterator[Record]:
    for ref in source.files:
        yield from records_of(Path(ref.path))
