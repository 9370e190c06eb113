"""Reading hostile outputs: nothing outside the folder, no blocking, no unbounded read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import clean_text, read_json_file, read_json_lines, read_log, read_text_tail
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
