"""Columns are added to every format, and nothing else of the file changes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.data.added_columns import Added, write_added
from rdagent_ft.data.data_files import content_revision, pin_files
from rdagent_ft.data.records import read_records
from rdagent_ft.data.rows import DatasetSource
from rdagent_ft.errors import DataError


def source_of(*paths: Path) -> DatasetSource:
    files = pin_files(paths)
    return DatasetSource(name="x", kind="local", revision=content_revision(files), files=files)


def tags(*values: str | None) -> list[Added | None]:
    return [None if value == "-" else {"tag": value} for value in values]


@pytest.mark.parametrize(
    ("name", "before", "values", "after"),
    [
        (
            "a.jsonl",
            b'{"x": 1.50, "y": "\xff"}\n\n{}\r\n[1]\n{"x":{"a":[1e400]} }',
            ("h", "e", "e", None),
            b'{"x": 1.50, "y": "\xff", "tag": "h"}\n{"tag": "e"}\n[1]\n{"x":{"a":[1e400]}, "tag": null }\n',
        ),
        ("a.jsonl", b'\xef\xbb\xbf{"x": 1}\n{"x": 2}\n', ("-", '"'), b'{"x": 2, "tag": "\\""}\n'),
        (
            "a.json",
            b'[\n  {\n    "x": 1\n  },\n  {"x": "]}"},\n  7\n]\n',
            ("h", "e", None),
            b'[\n  {\n    "x": 1, "tag": "h"\n  },\n  {"x": "]}", "tag": "e"},\n  7\n]\n',
        ),
        (
            "a.json",
            b'{\n"items": [{"x": 0}], "note": {"data": []}, "train" :[{"x": 1},{"x": 2}] ,"n": 2}',
            ("h", "-"),
            b'{\n"items": [{"x": 0}], "note": {"data": []}, "train" :[{"x": 1, "tag": "h"}] ,"n": 2}',
        ),
        ("a.json", b'{"x": 1}\n{"x": 2}', ("h", "e"), b'{"x": 1, "tag": "h"}\n{"x": 2, "tag": "e"}\n'),
        (
            "a.csv",
            b'\xef\xbb\xbf"t;ext";n\r\n"two\r\nlines, ""so""";007\r\n\r\nnan;\xe9\r\nbroken\r\n1;2',
            ("h;x", None, None, "e"),
            b'\xef\xbb\xbf"t;ext";n;tag\r\n"two\r\nlines, ""so""";007;"h;x"\r\nnan;\xe9;NaN\r\n'
            b"broken;NaN\r\n1;2;e\n",
        ),
        ("a.csv", b"text\none\n", ("h",), b"text,tag\none,h\n"),
    ],
)
def test_only_the_new_cells_are_new(
    tmp_path: Path, name: str, before: bytes, values: tuple[str | None, ...], after: bytes
) -> None:
    path, out = tmp_path / name, tmp_path / f"out-{name}"
    path.write_bytes(before)
    write_added(source_of(path), out, tags(*values))
    assert out.read_bytes() == after
    kept = [record for record, value in zip(read_records(path), values, strict=True) if value != "-"]
    for old, new in zip(kept, read_records(out), strict=True):
        assert repr({key: value for key, value in new.columns.items() if key != "tag"}) == repr(old.columns)


def test_packed_files_are_packed_again_and_equal(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"x": 1}\n'))
    for name in ("b.jsonl.gz", "c.jsonl.gz"):
        write_added(source_of(path), tmp_path / name, tags("h"))
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == b'{"x": 1, "tag": "h"}\n'
    assert (tmp_path / "b.jsonl.gz").read_bytes() == (tmp_path / "c.jsonl.gz").read_bytes()


def test_several_files_become_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "b.jsonl").write_text('[{"x": 2}]')
    write_added(source_of(tmp_path / "a.jsonl", tmp_path / "b.jsonl"), tmp_path / "o.jsonl", tags("h", "e"))
    assert [record.columns for record in read_records(tmp_path / "o.jsonl")] == [
        {"x": 1, "tag": "h"}, {"x": 2, "tag": "e"},
    ]  # fmt: skip
    (tmp_path / "a.csv").write_text("x\n1")
    (tmp_path / "b.csv").write_text("x\n2\n")
    write_added(source_of(tmp_path / "a.csv", tmp_path / "b.csv"), tmp_path / "o.csv", tags("h", "e"))
    assert (tmp_path / "o.csv").read_text() == "x,tag\n1,h\n2,e\n"


def test_parquet_keeps_types_and_notes(tmp_path: Path) -> None:
    pa: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"x": pa.array([1, 2, 3], pa.int8()), "t": pa.array([0, None, 2], pa.timestamp("ms"))})
    folder = tmp_path / "part=7"
    folder.mkdir()
    parquet.write_table(table.replace_schema_metadata({"who": "me"}), folder / "a.parquet")
    write_added(source_of(folder / "a.parquet"), tmp_path / "o.parquet", tags("h", "-", None))
    found = parquet.ParquetFile(tmp_path / "o.parquet").read()
    assert found.drop_columns(["tag"]).equals(table.take([0, 2]))
    assert found.column("tag").to_pylist() == ["h", None]
    assert found.schema.metadata[b"who"] == b"me"


def test_a_file_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"x": 1}) + "\n")
    source = source_of(path)
    path.write_text(json.dumps({"x": 2}) + "\n")
    with pytest.raises(DataError, match="changed while"):
        write_added(source, tmp_path / "o.jsonl", tags("h"))
    assert not (tmp_path / "o.jsonl").exists()
