"""Data files packed with gzip: read as if unpacked, and refused whole when they are bombs or damaged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rdagent_ft.data import compressed
from rdagent_ft.data.compressed import check_packed, data_suffix
from rdagent_ft.data.data_files import choose_train_files
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.records import read_records
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.errors import DataError

ROWS = [{"prompt": f"question {n}", "completion": "ü" * n} for n in range(1, 4)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def zipped(content: bytes) -> bytes:
    """Packed without the time: parameters name tests, which must be the same for every worker."""
    return gzip.compress(content, mtime=0)


PACKED = zipped(LINES)


def packed(path: Path, content: bytes) -> Path:
    with gzip.open(path, "wb") as stream:
        stream.write(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.json", json.dumps(ROWS).encode()),
        ("indented.json", json.dumps({"data": ROWS}, indent=1).encode()),
        ("bom.csv", b"\xef\xbb\xbfprompt,completion\n" + b'question 1,"two\r\nlines"\n'),
    ],
)
def test_a_packed_file_holds_what_the_plain_one_holds(tmp_path: Path, name: str, content: bytes) -> None:
    plain = tmp_path / name
    plain.write_bytes(content)
    other = packed(tmp_path / f"{name}.GZ", content)
    assert [record.columns for record in read_records(other)] == [
        record.columns for record in read_records(plain)
    ]
    assert next(read_records(other)).place.startswith(f"{name}.GZ:")


def test_the_format_is_the_ending_before_gz() -> None:
    names = ("a.jsonl", "a.JSONL.gz", "a.b/c.csv.gz", "a.gz")
    assert [data_suffix(Path(name)) for name in names] == [".jsonl", ".jsonl", ".csv", ""]


def test_several_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl.gz"
    path.write_bytes(PACKED + PACKED)
    assert len(list(read_records(path))) == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PACKED[:-9], "cut off"),
        (PACKED[:5], "cut off"),
        (LINES, "no gzip file"),
        (PACKED[:20] + b"\0\0\0" + PACKED[23:], "damaged"),
        (PACKED[:-8] + b"\0" * 8, "damaged"),
        (PACKED + b"and more", "damaged"),
        (zipped(b"PK\x03\x04 a zip\n"), "malformed JSON"),
        (zipped(PACKED), "malformed JSON"),
        (zipped('{"a": 1}'.encode("utf-16")), "UTF-16"),
    ],
)
def test_what_is_damaged_or_something_else_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        list(read_records(path))
    assert "rows.jsonl.gz" in raised.value.message


def test_a_bomb_is_refused_before_a_row_of_it_is_read(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "bomb.jsonl.gz", LINES + b" " * (compressed.SMALL_BYTES + 1))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(DataError, match="unpacks to more than 16,777,216 bytes"):
        next(read_records(bomb))


def test_the_limits_are_bytes_and_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "rows.jsonl.gz", LINES)
    assert check_packed(path, len(LINES)) == len(LINES)
    with pytest.raises(DataError, match="more than"):
        check_packed(path, len(LINES) - 1)
    monkeypatch.setattr(compressed, "SMALL_BYTES", 1)
    assert check_packed(path, 1 << 20) == len(LINES)  # 200 times its size is more than this
    monkeypatch.setattr(compressed, "MAX_RATIO", 1)
    with pytest.raises(DataError, match="more than"):
        check_packed(path, 1 << 20)


def test_a_run_takes_a_packed_dataset(tmp_path: Path) -> None:
    path = packed(tmp_path / "rows.jsonl.gz", LINES)
    rows, report = read_rows(resolve_dataset(str(path), tmp_path))
    assert [row.completion for row in rows] == ["ü", "üü", "üüü"]
    assert report.n_read == 3
    registered = tmp_path / "datasets"
    registered.mkdir()
    path.rename(registered / "mine.jsonl.gz")
    assert resolve_dataset("mine", tmp_path).files[0].path.endswith("mine.jsonl.gz")


def test_a_file_that_lies_there_twice_counts_once() -> None:
    chosen = choose_train_files(["a.jsonl", "a.jsonl.gz", "b.jsonl.gz", "test.csv.gz"], "here")
    assert chosen.paths == ("a.jsonl", "b.jsonl.gz")
    assert [note.rpartition(": ")[2] for note in chosen.notes] == ["test.csv.gz", "a.jsonl.gz"]
