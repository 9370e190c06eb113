"""The contamination check of files: records of any known format, and a clean file without the leaks.

A training record that cannot become a row (a preference pair, plain text) is compared with all of its texts.
An evaluation file needs no answers: benchmarks often keep them elsewhere.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rdagent_ft.data.columns import ColumnMapping, map_columns
from rdagent_ft.data.contamination import Overlap, document_of, find_overlaps
from rdagent_ft.data.eval_files import texts_in
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.records import Record, read_records
from rdagent_ft.data.turns import Unusable, row_of
from rdagent_ft.data.whole_overlap import Document
from rdagent_ft.errors import DataError, UserError
from rdagent_ft.values import Frozen, write_atomic

_OUT_SUFFIXES = (".jsonl", ".json", ".csv")
_SHOWN_CHARS = 160


class Pair(Frozen):
    """One overlap for people: where both texts stand, why they are a pair, and how they begin.

    `reason`, `coverage`, `run_words` and `answer_attached` are those of `contamination.Overlap`.
    """

    row: str
    item: str
    reason: str
    coverage: float
    run_words: int
    answer_attached: bool
    row_text: str
    item_text: str


class FileCheck(NamedTuple):
    """The records of the training files, and the pairs that were found."""

    records: list[Record]
    overlaps: list[Overlap]
    leaks: tuple[Pair, ...]
    near: tuple[Pair, ...]

    @property
    def leak_rows(self) -> set[int]:
        """Numbers of the records that leak."""
        return {overlap.document for overlap in self.overlaps if overlap.is_leak}

    @property
    def leaked_items(self) -> set[int]:
        """Numbers of the items that leak; the others are the clean subset."""
        return {overlap.item for overlap in self.overlaps if overlap.is_leak}

    def clean_records(self) -> list[Record]:
        """Return the records that do not leak, in order; what is no record is left out."""
        leaks = self.leak_rows
        return [
            record
            for number, record in enumerate(self.records)
            if number not in leaks and record.problem is None
        ]


def check_records(records: list[Record], items: Sequence[EvalItem], columns: dict[str, str]) -> FileCheck:
    """Compare training records with items. `columns`: canonical field -> column; may be empty."""
    documents = list(_documents(records, columns))
    overlaps = find_overlaps(documents, items)
    pairs = [
        (
            overlap.is_leak,
            pair_of(
                overlap, records[overlap.document].place, documents[overlap.document], items[overlap.item]
            ),
        )
        for overlap in overlaps
    ]
    return FileCheck(
        records=records,
        overlaps=overlaps,
        leaks=tuple(pair for is_leak, pair in pairs if is_leak),
        near=tuple(pair for is_leak, pair in pairs if not is_leak),
    )


def read_file(path: Path) -> list[Record]:
    """Return the records of one data file. Raises `DataError` when it cannot be read or holds none."""
    try:
        records = list(read_records(path))
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if not records:
        raise DataError(f"{str(path)!r} holds no rows")
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines, a JSON list or CSV, by the ending of `path`, whole or not at all.

    Raises `UserError` for another ending or a place that cannot be written.
    """
    columns = [record.columns for record in records]
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        text = "".join(_json(each) + "\n" for each in columns)
    elif suffix == ".json":
        text = "[\n" + ",\n".join(map(_json, columns)) + "\n]\n"
    elif suffix == ".csv":
        text = _csv(columns)
    else:
        raise UserError(
            f"{str(path)!r} has no ending that can be written", hint=f"use {', '.join(_OUT_SUFFIXES)}"
        )
    try:
        write_atomic(path, text)
    except UnicodeEncodeError:
        raise UserError("a row holds bytes that are not UTF-8", hint="write to a .jsonl file") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror}") from None


def _documents(records: Sequence[Record], columns: dict[str, str]) -> Iterator[Document]:
    mapping: ColumnMapping | None = None
    try:
        mapping = map_columns(records, columns)
    except DataError:
        if columns:
            raise
    for record in records:
        if mapping is not None:
            try:
                yield document_of(row_of(record.columns, mapping.fields))
                continue
            except Unusable:
                pass
        yield Document(tuple(texts_in(record.columns)), "")


def pair_of(overlap: Overlap, row: str, document: Document, item: EvalItem) -> Pair:
    """Return an overlap with its texts; `row` is the name of the training row."""
    return Pair(
        row=row,
        item=item.item_id if item.item_id.startswith(item.source) else f"{item.source} {item.item_id}",
        reason=overlap.reason,
        coverage=round(overlap.coverage, 3),
        run_words=overlap.run_words,
        answer_attached=overlap.answer_attached,
        row_text=shortened(" ".join(document.prompt)),
        item_text=shortened(item.question),
    )


def shortened(text: str) -> str:
    """Return the beginning of a text on one line; bytes that are not UTF-8 as question marks."""
    line = " ".join(text[: 4 * _SHOWN_CHARS].split()).encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


def _json(columns: dict[str, Any]) -> str:
    text = json.dumps(columns, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(columns)
    return text


def _csv(rows: list[dict[str, Any]]) -> str:
    header = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        cells = (row.get(name, "") for name in header)
        writer.writerow(
            cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False) for cell in cells
        )
    return stream.getvalue()
