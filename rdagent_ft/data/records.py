"""Raw records of a data file, one mapping each, with the place they came from.

Knows file formats (JSON, JSON lines, CSV, each also as `.gz`; parquet) and nothing of prompts or turns.
Text that is not UTF-8 is kept with surrogate escapes, so that one bad cell costs one row and is named,
not the file.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from rdagent_ft.data.compressed import data_suffix, open_data
from rdagent_ft.errors import DataError, PreflightError

CSV_FIELD_LIMIT = 1 << 27
WRAPPER_KEYS = ("data", "train", "rows", "examples", "items")
_UTF8_BOM = b"\xef\xbb\xbf"
_NAN_CELLS = frozenset({"nan", "NaN", "NAN"})


class Record(NamedTuple):
    """One record: where it stands, and its columns; `problem` says why it has none."""

    place: str
    columns: dict[str, Any]
    problem: str | None = None


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of one data file, in order.

    Raises `DataError` naming file and line for what cannot be parsed or unpacked, `PreflightError` when
    parquet is asked for without pyarrow.
    """
    suffix = data_suffix(path)
    if suffix == ".csv":
        return _read_csv(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    return _read_json(path)


def _read_json(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON list, of JSON lines, or of one object that wraps a list."""
    with open_data(path) as stream:
        start = stream.read(1 << 16)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path.name} is UTF-16", hint="save it as UTF-8")
        stream.seek(len(_UTF8_BOM) if start.startswith(_UTF8_BOM) else 0)
        first = start.removeprefix(_UTF8_BOM).lstrip()[:1]
        if first == b"[" or (first == b"{" and not _first_line_is_json(stream)):
            yield from _json_document(path, stream.read())
            return
        for number, line in enumerate(stream, start=1):
            if line.strip():
                value = _parse(path, line, line_number=number)
                yield _as_record(f"{path.name}:{number}", value)


def _first_line_is_json(stream: Any) -> bool:
    """Return whether the first non-empty line is a document of its own; keeps the position.

    An indented object opens with a line such as `{`, which is not; a broken line of JSON lines is
    told apart by having a quote after the brace.
    """
    position = stream.tell()
    line = next((item for item in stream if item.strip()), b"")
    stream.seek(position)
    text = line.strip()
    if text == b"{":
        return False
    try:
        json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return not text.endswith((b"[", b"{", b","))
    return True


def _json_document(path: Path, raw: bytes) -> Iterator[Record]:
    document = _parse(path, raw)
    if isinstance(document, dict):
        wrapped = cast("dict[str, Any]", document)
        key = next((key for key in WRAPPER_KEYS if isinstance(wrapped.get(key), list)), None)
        if key is None:
            raise DataError(
                f"{path.name} holds one object, not a list of rows; its keys are "
                f"{', '.join(list(wrapped)[:10])}",
                hint=f"write a JSON list, JSON lines, or a list under one of {', '.join(WRAPPER_KEYS)}",
            )
        document = wrapped[key]
    for index, value in enumerate(cast("list[Any]", document), start=1):
        yield _as_record(f"{path.name}:record {index}", value)


def _parse(path: Path, raw: bytes, line_number: int | None = None) -> Any:
    """Return the parsed JSON. Raises `DataError` naming file, line and column."""
    try:
        return json.loads(raw.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        line = line_number if line_number is not None else error.lineno
        reason = f"{error.msg} (column {error.colno})"
    except RecursionError:
        line, reason = line_number or 1, "nested too deeply"
    except ValueError as error:
        line, reason = line_number or 1, str(error).split(";")[0]
    raise DataError(
        f"{path.name}, line {line}: malformed JSON: {reason}",
        hint="fix or delete this line" if line_number is not None else "fix the file",
    )


def _as_record(place: str, value: Any) -> Record:
    if isinstance(value, dict):
        return Record(place, cast("dict[str, Any]", value))
    return Record(place, {}, "the record is not an object")


def _read_csv(path: Path) -> Iterator[Record]:
    """Yield the rows of a CSV file with a header; `;` and tab are taken where the header has no comma."""
    previous_limit = csv.field_size_limit(CSV_FIELD_LIMIT)
    start = 1
    try:
        with (
            open_data(path) as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream,
        ):
            reader = csv.reader(stream, delimiter=csv_delimiter(stream.readline()), strict=True)
            stream.seek(0)
            header: list[str] = next(reader, [""])
            _check_header(path, header)
            start = reader.line_num + 1
            for cells in reader:
                place, start = f"{path.name}:{start}", reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield Record(place, {}, "the row has another number of cells than the header")
                    continue
                values = (math.nan if cell in _NAN_CELLS else cell for cell in cells)
                yield Record(place, dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path.name}, line {start}: malformed CSV: {error}") from None
    finally:
        csv.field_size_limit(previous_limit)


def csv_delimiter(header: str) -> str:
    """Return what parts the cells of a CSV file, judged by its first line."""
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _check_header(path: Path, header: list[str]) -> None:
    if not any(cell.strip() for cell in header):
        raise DataError(f"{path.name} has no header line")
    doubled = sorted({cell for cell in header if header.count(cell) > 1})
    if doubled:
        raise DataError(f"{path.name}: the column {doubled[0]!r} occurs twice in the header")


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import lib, parquet  # pyright: ignore
    except ImportError:
        raise PreflightError(
            f"{path.name} is parquet, and pyarrow is not installed",
            hint="pip install 'rdagent-ft[parquet]', or convert the file to JSON lines",
        ) from None
    arrow_error = cast("type[Exception]", lib.ArrowException)  # pyright: ignore
    try:
        index = 0
        with parquet.ParquetFile(path) as table:  # pyright: ignore
            for batch in table.iter_batches(batch_size=4096):  # pyright: ignore
                for columns in cast("list[dict[str, Any]]", batch.to_pylist()):  # pyright: ignore
                    index += 1
                    yield Record(f"{path.name}:row {index}", columns)
    except (arrow_error, OSError) as error:
        raise DataError(f"{path.name} is not a readable parquet file: {error}") from None
