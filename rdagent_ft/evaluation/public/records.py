"""Records of benchmark files: JSON lines, a JSON list, gzip, csv, a zip or folder of csv files.

Every form is bounded in bytes, unpacked ones too. Holds no knowledge of any benchmark.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import DataError
from rdagent_ft.values import sha256_file, sha256_text

MAX_FILE_BYTES = 256 << 20
MAX_FILES = 2_000

Records = list[tuple[str, dict[str, Any]]]
"""(place, record): the place is `file:line`, for messages."""


def json_records(path: Path) -> Records:
    """Return the objects of a JSON lines file, or of one JSON list; `.gz` is unpacked.

    Raises `DataError` with file and line.
    """
    content = _bytes_of(path)
    if content.lstrip()[:1] == b"[" and path.suffix == ".json":
        value = _parsed(content, str(path))
        if not isinstance(value, list):
            raise DataError(f"{path} is not a JSON list")
        entries = [(f"{path}[{n}]", entry) for n, entry in enumerate(cast("list[Any]", value))]
    else:
        lines = enumerate(content.split(b"\n"), start=1)
        entries = [(f"{path}:{n}", _parsed(line, f"{path}:{n}")) for n, line in lines if line.strip()]
    records: Records = []
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise DataError(f"{place} is not a JSON object")
        records.append((place, cast("dict[str, Any]", entry)))
    return records


def csv_table(path: Path) -> list[tuple[str, list[str]]]:
    """Return (place, cells) of each row of a csv file, a heading included."""
    return _cells(_bytes_of(path), str(path))


def csv_tables(path: Path, suffix: str) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yield (name without suffix, rows) of the csv files of a folder or zip, by name.

    In a zip, files whose name ends in `suffix` count, wherever they lie. Raises `DataError`.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(suffix) and file.is_file())
        for file in files[:MAX_FILES]:
            yield file.name.removesuffix(suffix), csv_table(file)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            found = sorted(
                (info for info in archive.infolist() if info.filename.endswith(suffix)),
                key=lambda info: info.filename,
            )
            if len(found) > MAX_FILES or sum(info.file_size for info in found) > MAX_FILE_BYTES:
                raise DataError(f"{path} holds more than {MAX_FILES} files or {MAX_FILE_BYTES} bytes")
            for info in found:
                name = info.filename.rpartition("/")[2].removesuffix(suffix)
                with archive.open(info) as stream:
                    content = _bounded(cast("io.BufferedIOBase", stream), f"{path}/{info.filename}")
                yield name, _cells(content, f"{path}/{info.filename}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from None


def fingerprint(path: Path) -> str:
    """Return the hex SHA-256 of a file; of a folder, over the names and hashes of its files."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.iterdir() if file.is_file())
    return sha256_text("\n".join(f"{file.name} {sha256_file(file)}" for file in files))


def _bytes_of(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _bounded(cast("io.BufferedIOBase", stream), str(path))
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _bounded(stream: io.BufferedIOBase, place: str) -> bytes:
    content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"{place} is larger than {MAX_FILE_BYTES} bytes")
    return content


def _parsed(content: bytes, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {str(error)[:200]}") from None


def _cells(content: bytes, place: str) -> list[tuple[str, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        return [(f"{place}:{reader.line_num}", cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{place} is not a csv table in UTF-8: {error}") from None
