"""Read a dataset into rows, with a report in which every dropped record is counted and placed.

Losing rows silently is how a good recipe gets blamed for bad data: a record that cannot become a row
has a reason, and a dataset that loses more than half of its records is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rdagent_ft.data.columns import ColumnMapping, all_columns, map_columns
from rdagent_ft.data.records import Record, read_records
from rdagent_ft.data.rows import DatasetSource, ReadReport, Row
from rdagent_ft.data.turns import Unusable, row_of
from rdagent_ft.errors import DataError, Problem

MAX_DROPPED_SHARE = 0.5
_N_EXAMPLES = 3
_REJECTED = "marked as a bad answer (label is false)"


def read_rows(source: DatasetSource, columns: dict[str, str] | None = None) -> tuple[list[Row], ReadReport]:
    """Return all rows of `source` in file order, and what reading found.

    Args:
        source: from `resolve_dataset`.
        columns: canonical field (`prompt`, `completion`, `system`, `input`, `history`, `messages`,
            `source`) -> column; overrides the alias table.

    Raises `DataError` for a malformed line, unusable columns, no records, or more than half of the
    records dropped; `PreflightError` for parquet without pyarrow.
    """
    records = [record for ref in source.files for record in records_of(Path(ref.path))]
    if not records:
        raise DataError(f"dataset {source.name!r} holds no rows")
    mapping = map_columns(records, columns)
    rows, dropped, examples, notes = _rows(records, mapping)
    if len(records) - len(rows) > MAX_DROPPED_SHARE * len(records):
        raise too_many_dropped(len(records), dropped, examples, mapping.format, mapping.fields)
    report = ReadReport(
        format=mapping.format,
        mapping=mapping.fields,
        columns=all_columns(records),
        n_read=len(records),
        n_rows=len(rows),
        dropped=dict(dropped.most_common()),
        examples={reason: tuple(places) for reason, places in examples.items()},
        notes=(*source.notes, *mapping.notes, *notes),
    )
    return rows, report


def records_of(path: Path) -> Iterator[Record]:
    """Yield the records of one data file. Raises `DataError` when it cannot be read."""
    try:
        yield from read_records(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _rows(
    records: Sequence[Record], mapping: ColumnMapping
) -> tuple[list[Row], Counter[str], dict[str, list[str]], list[str]]:
    """Return rows, reason -> count, reason -> first places, and notes."""
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    labelled = _has_answer_labels(records, mapping)
    n_cut_meta = 0
    for record in records:
        try:
            row = usable_row(record, mapping, labelled=labelled)
        except Unusable as error:
            dropped[str(error)] += 1
            if len(places := examples.setdefault(str(error), [])) < _N_EXAMPLES:
                places.append(record.place)
            continue
        rows.append(row)
        kept = len(row.meta) + len(mapping.fields)
        n_cut_meta += kept < sum(value is not None for value in record.columns.values())
    notes = (
        [f"other columns of {n_cut_meta} rows were too long or no JSON and are not kept"]
        if n_cut_meta
        else []
    )
    return rows, dropped, examples, notes


def usable_row(record: Record, mapping: ColumnMapping, *, labelled: bool) -> Row:
    """Return the row of one record. Raises `Unusable` with the reason that the report counts.

    `labelled`: the dataset tells good answers from bad ones in a boolean column `label`.
    """
    if record.problem is not None:
        raise Unusable(record.problem)
    if labelled and record.columns.get("label") is False:
        raise Unusable(_REJECTED)
    return row_of(record.columns, mapping.fields)


def _has_answer_labels(records: Sequence[Record], mapping: ColumnMapping) -> bool:
    """Return whether a boolean column `label` tells good answers from bad ones (unpaired preference)."""
    if "label" in mapping.fields.values():
        return False
    labels = [record.columns["label"] for record in records if "label" in record.columns]
    return bool(labels) and all(isinstance(label, bool) for label in labels)


def too_many_dropped(
    n_read: int, dropped: Counter[str], examples: dict[str, list[str]], form: str, fields: dict[str, str]
) -> DataError:
    """Return the error for a dataset that loses most of its records, with the reasons and their places."""
    problems = tuple(
        Problem(
            key=", ".join(examples[reason]),
            value=None,
            rule=f"{n_dropped} of {n_read} records: {reason}",
            problem_class="data.dropped",
            fix="repair these records, or map other columns with --columns",
        )
        for reason, n_dropped in dropped.most_common(5)
    )
    used = ", ".join(f"{field}={column}" for field, column in fields.items())
    return DataError(
        f"{sum(dropped.values())} of {n_read} records cannot be used (read as {form}: {used})",
        problems=problems,
    )
