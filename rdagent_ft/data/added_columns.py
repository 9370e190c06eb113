"""A dataset's files written again with columns added, everything else as it was.

The new cells are put into the text of each record, so numbers, quotes, delimiters and cells that our readers
cannot use keep their spelling. One file is written, in the format of the dataset. What decides about the new
values is not known here.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rdagent_ft.data.compressed import data_suffix, is_packed, open_data
from rdagent_ft.data.records import CSV_FIELD_LIMIT, WRAPPER_KEYS, csv_delimiter
from rdagent_ft.data.rows import DatasetSource
from rdagent_ft.errors import DataError, UserError
from rdagent_ft.values import sha256_file

Added = Mapping[str, str | None]
"""Column -> new value; None is a cell without a value."""

NO_VALUE = "NaN"
"""How CSV says that a cell has no value, for our reader and for pandas. An empty cell is an empty text."""

_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = "\ufeff"


def write_added(source: DatasetSource, out: Path, added: Sequence[Added | None]) -> None:
    """Write the records of `source` with their new columns to `out`, whole or not at all.

    Args:
        source: the dataset as it was read; a file that changed since is refused.
        out: a file with the ending of the dataset's files, perhaps with `.gz`.
        added: one entry a record, in reading order, all with the same columns; None leaves the record out.

    Raises `DataError` for a changed file, `UserError` for a place that cannot be written.
    """
    files = [Path(ref.path) for ref in source.files]
    for ref in source.files:
        if sha256_file(Path(ref.path)) != ref.sha256:
            raise DataError(
                f"{ref.path!r} changed while it was read", hint="start again: what was paid is kept"
            )
    columns = next((tuple(each) for each in added if each is not None), ())
    entries = iter(added)
    if data_suffix(out) == ".parquet":
        _write_parquet(files, out, list(added), columns)
        return
    text = _csv(files, entries, columns) if data_suffix(out) == ".csv" else _json(files, entries)
    _write(out, (piece.encode("utf-8", "surrogateescape") for piece in text))


class _JsonFile(NamedTuple):
    """The texts of a file's records, and what stands before, between and after them."""

    head: str
    records: list[str]
    separator: str
    tail: str
    is_list: bool


def _json(files: Sequence[Path], entries: Iterator[Added | None]) -> Iterator[str]:
    """Yield the text of all files; several are joined, as lines or as one list."""
    parts = [_json_file(path) for path in files]
    shape = parts[0]
    if len(parts) > 1:
        is_list = any(part.is_list for part in parts)
        shape = _JsonFile(*(("[\n", [], ",\n", "\n]\n") if is_list else ("", [], "\n", "\n")), is_list)
    yield shape.head
    is_first = True
    for text in (text for part in parts for text in part.records):
        values = next(entries)
        if values is None:
            continue
        yield ("" if is_first else shape.separator) + _with_values(text, values)
        is_first = False
    yield shape.tail


def _json_file(path: Path) -> _JsonFile:
    """Take apart a file that `records.read_records` has read without an error."""
    with open_data(path) as stream:
        text = stream.read().decode("utf-8", "surrogateescape").removeprefix(_BOM)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not text.lstrip().startswith("[") and _is_json(lines[0]):
        return _JsonFile("", lines, "\n", "\n", is_list=False)
    start = _list_start(text)
    places, end = _items(text, start + 1)
    if not places:
        return _JsonFile(text[:end], [], "", text[end:], is_list=True)
    separator = text[places[0][1] : places[1][0]] if len(places) > 1 else ",\n"
    records = [text[first:last] for first, last in places]
    return _JsonFile(text[: places[0][0]], records, separator, text[places[-1][1] :], is_list=True)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _list_start(text: str) -> int:
    """Return where the list of records opens: at the top, or under the key that the reader takes."""
    at = _after_space(text, 0)
    if text[at] == "[":
        return at
    lists: dict[str, int | None] = {}
    decoder = json.JSONDecoder()
    at = _after_space(text, at + 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        at = _after_space(text, _after_space(text, at) + 1)
        value, end = decoder.raw_decode(text, at)
        lists[key] = at if isinstance(value, list) else None
        at = _after_space(text, end)
        at = _after_space(text, at + 1) if text[at] == "," else at
    return next(start for start in (lists.get(key) for key in WRAPPER_KEYS) if start is not None)


def _items(text: str, at: int) -> tuple[list[tuple[int, int]], int]:
    """Return the places of a list's items, and that of its end. `at` is behind the opening bracket."""
    decoder = json.JSONDecoder()
    places: list[tuple[int, int]] = []
    at = _after_space(text, at)
    while text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        places.append((at, end))
        at = _after_space(text, end)
        at = _after_space(text, at + 1) if text[at] == "," else at
    return places, at


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _with_values(text: str, values: Added) -> str:
    """Return the text of a JSON object with more members; what is no object stays as it is."""
    if not text.startswith("{"):
        return text
    body = text[:-1].rstrip()
    comma = "" if body == "{" else ", "
    return f"{body}{comma}{json.dumps(dict(values), ensure_ascii=False)[1:-1]}{text[len(body) :]}"


def _csv(files: Sequence[Path], entries: Iterator[Added | None], columns: tuple[str, ...]) -> Iterator[str]:
    """Yield the rows of all files under the header of the first one."""
    previous_limit = csv.field_size_limit(CSV_FIELD_LIMIT)
    try:
        for number, path in enumerate(files):
            with open_data(path) as raw:
                has_bom = raw.read(3) == _BOM.encode()
                raw.seek(0)
                with io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as stream:
                    delimiter = csv_delimiter(stream.readline())
                    stream.seek(0)
                    rows = _csv_rows(stream, delimiter)
                    _, header = next(rows)
                    if number == 0:
                        yield (_BOM if has_bom else "") + _with_cells(header, columns, delimiter)
                    for cells, text in rows:
                        values = next(entries) if cells else None
                        if values is not None:
                            known = [NO_VALUE if value is None else value for value in values.values()]
                            yield _with_cells(text, known, delimiter)
    finally:
        csv.field_size_limit(previous_limit)


def _csv_rows(stream: Iterable[str], delimiter: str) -> Iterator[tuple[list[str], str]]:
    """Yield every row with the text that it was read from."""
    lines: list[str] = []

    def kept() -> Iterator[str]:
        for line in stream:
            lines.append(line)
            yield line

    for cells in csv.reader(kept(), delimiter=delimiter, strict=True):
        yield cells, "".join(lines)
        lines.clear()


def _with_cells(text: str, cells: Sequence[str], delimiter: str) -> str:
    body = text.rstrip("\r\n")
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="").writerow(cells)
    return f"{body}{delimiter}{stream.getvalue()}{text[len(body) :] or chr(10)}"


def _write_parquet(
    files: Sequence[Path], out: Path, added: Sequence[Added | None], columns: tuple[str, ...]
) -> None:
    """Write the table with text columns behind the others; types and the file's own notes are kept."""
    import pyarrow as pa  # pyright: ignore
    from pyarrow import parquet  # pyright: ignore

    pa, parquet = _untyped(pa), _untyped(parquet)
    try:
        # Not `read_table`, which makes columns of folders that are called `name=value`.
        tables = [parquet.ParquetFile(path).read() for path in files]
        table = pa.concat_tables(tables, promote_options="default")
        for name in columns:
            values = [None if each is None else each[name] for each in added]
            table = table.append_column(name, pa.array(values, pa.string()))
        stream = io.BytesIO()
        parquet.write_table(table.filter(pa.array([each is not None for each in added])), stream)
    except pa.ArrowException as error:
        raise DataError(f"{out.name} cannot be written as parquet: {error}") from None
    _write(out, [stream.getvalue()])


def _untyped(module: Any) -> Any:
    """Return a module without types as what it is for the type checker."""
    return module


def _write(out: Path, pieces: Iterable[bytes]) -> None:
    """Write a file whole or not at all, packed where its name says so; equal bytes for equal pieces."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                if is_packed(out):
                    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed:
                        packed.writelines(pieces)
                else:
                    stream.writelines(pieces)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--out {str(out)!r} cannot be written: {error.strerror or error}") from None
