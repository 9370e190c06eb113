"""Reading hostile outputs: nothing outside the folder, no blocking, no unbounded read."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import (
    clean_text,
    iter_json_lines,
    open_folder_inside,
    read_json_file,
    read_json_lines,
    read_log,
    read_numbered_json_lines,
    read_text_tail,
)
from rdagent_ft.execution.tail import JsonLinesTail

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "canary"}')
    root = tmp_path / "job"
    root.mkdir()
    (root / "result.json").symlink_to(secret)
    (root / "sub").symlink_to(tmp_path)
    for name in ("result.json", "sub/secret.json", "../secret.json", str(secret), "sub/../../secret.json"):
        with pytest.raises(JobError) as caught:
            read_json_file(root, name)
        assert "canary" not in str(caught.value)
    assert read_text_tail(root / "result.json") == ""
    assert JsonLinesTail(root / "result.json").read_new() == []


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(JobError, match="cannot be read"):
        read_json_file(tmp_path, "result.json")
    assert read_text_tail(tmp_path / "result.json") == ""
    assert JsonLinesTail(tmp_path / "result.json").read_new() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "an object was expected"),
        (b"{", "not valid JSON"),
        (b"[" * 200_000, "nested too deeply|not valid JSON"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"x": "' + b"a" * 2_000_000 + b'"}', "larger than"),
    ],
)
def test_bad_json_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(JobError, match=message):
        read_json_file(tmp_path, "result.json")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(JobError, match=r"left no `result\.json`"):
        read_json_file(tmp_path, "result.json")
    with pytest.raises(JobError, match="not a regular file"):
        read_json_file(tmp_path, "folder")


@given(rows)
def test_json_lines_round_trip(folder: Path, values: list[dict[str, object]]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    assert read_json_lines(folder, "rows.jsonl") == values


def test_json_lines_name_the_bad_line_and_allow_a_cut_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n\n{"n": 2}\n{"n": ')
    with pytest.raises(JobError, match=r"a\.jsonl:4"):
        read_json_lines(tmp_path, "a.jsonl")
    assert read_json_lines(tmp_path, "a.jsonl", allow_cut_end=True) == [{"n": 1}, {"n": 2}]
    with pytest.raises(JobError, match="more than 1 lines"):
        read_json_lines(tmp_path, "a.jsonl", max_lines=1)


def test_lines_are_read_one_at_a_time_and_bounded(tmp_path: Path) -> None:
    long = json.dumps({"text": "a" * 5000})
    (tmp_path / "a.jsonl").write_text(f'{{"n": 1}}\n\n{long}\n')
    lines = iter_json_lines(tmp_path, "a.jsonl", 1 << 20, 10, max_line_bytes=1000)
    assert next(lines) == (1, {"n": 1})
    with pytest.raises(JobError, match=r"a\.jsonl:3` is longer than 1000 bytes"):
        next(lines)
    assert read_numbered_json_lines(tmp_path, "a.jsonl", 1 << 20, 10)[1][0] == 3
    with pytest.raises(JobError, match="larger than 4000 bytes"):
        read_json_lines(tmp_path, "a.jsonl", 4000)
    with (tmp_path / "a.jsonl").open("r+b") as stream:
        stream.truncate(10 << 30)  # one sparse line of 10 GiB
    with pytest.raises(JobError, match=r"`a\.jsonl` is larger than|`a\.jsonl:4` is longer than"):
        read_json_lines(tmp_path, "a.jsonl", 1 << 16)


@pytest.mark.parametrize(
    "content", ['{"a": [' + "[]," * 1_500_000 + "[]]}", '{"a": [' + "1," * 5_000_000 + "1]}"]
)
def test_json_of_many_parts_is_refused_before_it_fills_the_memory(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match="too many parts"):
            read_json_file(tmp_path, "result.json", 64 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


def test_folders_are_opened_without_links(tmp_path: Path) -> None:
    (tmp_path / "job" / "a" / "b").mkdir(parents=True)
    (tmp_path / "job" / "link").symlink_to(tmp_path)
    (tmp_path / "job" / "file").touch()
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    os.close(open_folder_inside(tmp_path / "job", "a/b"))
    os.close(open_folder_inside(tmp_path / "job"))
    for name in ("link", "link/job", "file", "file/x", "absent", "../job", str(tmp_path), "a\0b"):
        with pytest.raises(JobError):
            open_folder_inside(tmp_path / "job", name)
    assert len(list(Path("/proc/self/fd").iterdir())) == n_open, "no descriptor is left open"


@given(rows, st.data())
def test_the_tail_gives_every_line_once_however_it_is_cut(
    folder: Path, values: list[dict[str, object]], data: st.DataObject
) -> None:
    content = "".join(json.dumps(value) + "\n" for value in values).encode()
    path = folder / "metrics.jsonl"
    path.write_bytes(b"")
    tail = JsonLinesTail(path, max_bytes=1 << 16)
    seen: list[dict[str, object]] = []
    position = 0
    while position < len(content):
        step = data.draw(st.integers(1, len(content) - position))
        with path.open("ab") as stream:
            stream.write(content[position : position + step])
        position += step
        seen += tail.read_new()
    assert seen == values


def test_the_tail_starts_again_when_the_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = JsonLinesTail(path)
    assert tail.read_new() == []
    path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    assert tail.read_new() == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n')
    assert tail.read_new() == [{"step": 1}]


def test_the_tail_reads_a_flood_in_pieces_and_leaves_links_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + "[" * 300_000 + '\n{"a": ' + "9" * 5000 + '}\n{"step": 2}\n')
    tail = JsonLinesTail(path, max_bytes=100_000)
    assert [tail.read_new() for _ in range(5)] == [[{"step": 1}], [], [], [{"step": 2}], []]
    os.truncate(path, 10 << 30)
    tracemalloc.start()
    try:
        assert [tail.read_new() for _ in range(20)] == [[]] * 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20
    (tmp_path / "secret").write_text('{"key": "canary"}\n')
    path.unlink()
    for make in (lambda: path.symlink_to(tmp_path / "secret"), lambda: os.mkfifo(path), path.mkdir):
        make()
        assert tail.read_new() == []
        path.unlink() if not path.is_dir() else path.rmdir()


@given(st.text())
def test_cleaned_text_has_no_control_characters(text: str) -> None:
    cleaned = clean_text(text)
    assert not [c for c in cleaned if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert "\u202e" not in cleaned


def test_a_long_log_keeps_beginning_and_end(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    path.write_text("first\n" + "middle\n" * 10_000 + "last\n")
    text = read_log(path, n_chars=1000)
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert len(text) < 1100
    path.write_text("short\n")
    assert read_log(path) == "short\n"
    assert read_log(tmp_path / "absent") == ""
