"""Reading: every format and file form, every way a record can be unusable, and clear refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import ReadReport, Row
from rdagent_ft.errors import DataError, PreflightError

GOOD = {"prompt": "p", "completion": "c"}


def read(path: Path, columns: dict[str, str] | None = None) -> tuple[list[Row], ReadReport]:
    return read_rows(resolve_dataset(str(path), path.parent), columns)


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def turns_of(row: Row) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


@pytest.mark.parametrize(
    ("record", "kind", "turns"),
    [
        ({"instruction": "i", "input": "", "output": "o"}, "alpaca", [("user", "i"), ("assistant", "o")]),
        ({"instruction": "i", "input": "x", "output": "o"}, "alpaca", [("user", "i\nx"), ("assistant", "o")]),
        (
            {"instruction": "i", "output": "o", "system": "s", "history": [["q", "a"]]},
            "alpaca",
            [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "i"), ("assistant", "o")],
        ),
        (
            {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]},
            "sharegpt",
            [("user", "h"), ("assistant", "g")],
        ),
        (
            {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]},
            "messages",
            [("user", "u"), ("assistant", "a")],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "u"}]},
                          {"role": "assistant", "content": "a"}], "system": "s"},
            "messages",
            [("system", "s"), ("user", "u"), ("assistant", "a")],
        ),
        (
            {"prompt": [{"role": "user", "content": "u"}],
             "completion": [{"role": "assistant", "content": "a"}]},
            "prompt_completion",
            [("user", "u"), ("assistant", "a")],
        ),
        ({"prompt": " p", "completion": "c\n"}, "prompt_completion", [("user", " p"), ("assistant", "c\n")]),
        ({"input": "p", "output": "c"}, "prompt_completion", [("user", "p"), ("assistant", "c")]),
        ({"question": "q", "answer": 4}, "question_answer", [("user", "q"), ("assistant", "4")]),
        ({"problem": "q", "solution": 2.0}, "question_answer", [("user", "q"), ("assistant", "2")]),
        ({"query": "q", "response": True}, "question_answer", [("user", "q"), ("assistant", "true")]),
        ({"prompt": "p", "completion": {"to": "Añn"}}, "prompt_completion",
         [("user", "p"), ("assistant", '{"to": "Añn"}')]),
    ],
)  # fmt: skip
def test_a_format_is_detected_and_text_is_kept(
    tmp_path: Path, record: dict[str, Any], kind: str, turns: list[tuple[str, str]]
) -> None:
    rows, report = read(lines(tmp_path / "rows.jsonl", [record]))
    assert turns_of(rows[0]) == turns
    assert (report.format, report.n_read, report.n_rows, report.dropped) == (kind, 1, 1, {})
    assert set(report.mapping.values()) <= set(record)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", json.dumps([GOOD, GOOD])),
        ("indented.json", json.dumps([GOOD, GOOD], indent=2)),
        ("lines.json", json.dumps(GOOD) + "\n\n" + json.dumps(GOOD)),
        ("wrapped.json", json.dumps({"version": 1, "data": [GOOD, GOOD]}, indent=1)),
        ("wrapped-in-a-line.jsonl", json.dumps([GOOD, GOOD])),
        ("bom.jsonl", "\ufeff" + json.dumps(GOOD) + "\r\n" + json.dumps(GOOD) + "\r\n"),
        ("rows.csv", "prompt,completion\np,c\np,c\n"),
        ("bom.csv", '\ufeffprompt,completion\r\np,c\r\n"p","c"\r\n'),
        ("semicolon.csv", "prompt;completion\np;c\np;c\n"),
        ("tab.csv", "prompt\tcompletion\np\tc\np\tc\n"),
    ],
)
def test_every_file_form_gives_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8", newline="")
    rows, report = read(tmp_path / name)
    assert [turns_of(row) for row in rows] == [[("user", "p"), ("assistant", "c")]] * 2
    assert rows[0].item_id == rows[1].item_id
    assert report.n_read == 2


def test_parquet_is_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"question": ["q1", "q2", None], "answer": ["a1", "a2", "a3"], "n": [1, 2, 3]}
    parquet.write_table(arrow.table(table), tmp_path / "rows.parquet")
    rows, report = read(tmp_path / "rows.parquet")
    assert [row.completion for row in rows] == ["a1", "a2"]
    assert rows[0].meta == {"n": 1}
    assert report.examples == {"missing prompt": ("rows.parquet:row 3",)}
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"bad\.parquet is not a readable parquet file"):
        read(tmp_path / "bad.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(PreflightError) as caught:
        read(tmp_path / "rows.parquet")
    assert "pip install 'rdagent-ft[parquet]'" in caught.value.render()


def test_columns_map_what_the_table_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,category,source,id\nhello,greet,web,7\n")
    rows, report = read(tmp_path / "rows.csv", {"prompt": "text", "completion": "category"})
    assert (rows[0].prompt_text, rows[0].completion, rows[0].source) == ("hello", "greet", "web")
    assert rows[0].meta == {"id": "7"}
    assert report.mapping == {"prompt": "text", "completion": "category", "source": "source"}
    assert "columns that the model does not see: id" in report.notes


def test_columns_may_override_one_field_only(tmp_path: Path) -> None:
    record = {"problem": "q", "answer": "4", "solution": "2+2=4", "kind": "easy"}
    rows, report = read(lines(tmp_path / "rows.jsonl", [record]))
    assert rows[0].completion == "4"
    assert any("completion=solution" in note for note in report.notes)
    rows, _ = read(tmp_path / "rows.jsonl", {"completion": "solution", "source": "kind"})
    assert (rows[0].prompt_text, rows[0].completion, rows[0].source) == ("q", "2+2=4", "easy")


def test_all_wrong_columns_are_reported_together(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": "a", "category": "b"}])
    with pytest.raises(DataError) as caught:
        read(path, {"prompt": "txt", "answer": "category", "completion": "zzz"})
    assert [problem.value for problem in caught.value.problems] == ["txt", "category", "zzz"]
    assert "did you mean 'text'?" in caught.value.render()


def test_no_usable_columns_shows_them_and_the_way_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": "a", "category": "b"}])
    with pytest.raises(DataError) as caught:
        read(path)
    assert "the dataset has text, category" in caught.value.message
    assert "--columns prompt=text,completion=category" in (caught.value.hint or "")


def test_text_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no answer to train on"):
        read(lines(tmp_path / "rows.jsonl", [{"text": "a"}]))


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "prompt=prompt,completion=chosen"),
        ({"chosen": "a", "rejected": "b"}, "messages=chosen"),
        ({"prompt": "p", "response": "x", "chosen": "a", "rejected": "b"}, "prompt=prompt,completion=chosen"),
    ],
)
def test_preference_pairs_are_refused_with_the_way_out(
    tmp_path: Path, record: dict[str, Any], hint: str
) -> None:
    with pytest.raises(DataError, match="preference pairs") as caught:
        read(lines(tmp_path / "rows.jsonl", [record]))
    assert hint in (caught.value.hint or "")


def test_preference_pairs_can_be_mapped_to_the_chosen_answer(tmp_path: Path) -> None:
    record = {"prompt": "p", "chosen": {"role": "assistant", "content": "a"}, "rejected": "b"}
    rows, _ = read(lines(tmp_path / "rows.jsonl", [record]), {"prompt": "prompt", "completion": "chosen"})
    assert rows[0].completion == "a"


def test_answers_marked_as_bad_are_dropped(tmp_path: Path) -> None:
    records = [{**GOOD, "label": label} for label in (True, False, True)]
    rows, report = read(lines(tmp_path / "rows.jsonl", records))
    assert len(rows) == 2
    assert report.dropped == {"marked as a bad answer (label is false)": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "p", "completion": " "}, "empty completion"),
        ({"prompt": " ", "completion": "c"}, "empty prompt"),
        ({"prompt": None, "completion": "c"}, "missing prompt"),
        ({"prompt": "p", "completion": float("nan")}, "missing completion"),
        ({"prompt": "p"}, "missing completion"),
        ({"prompt": {"a": 1}, "completion": "c"}, "the prompt is not text"),
        ({"prompt": "p", "completion": {"a": float("nan")}}, "the completion is not valid JSON"),
        ({"prompt": "p", "completion": "\ud800"}, "not valid UTF-8"),
        ("just text", "the record is not an object"),
    ],
)
def test_an_unusable_record_is_dropped_with_reason_and_place(
    tmp_path: Path, record: Any, reason: str
) -> None:
    rows, report = read(lines(tmp_path / "rows.jsonl", [GOOD, record, GOOD]))
    assert (len(rows), report.n_read, report.n_rows) == (2, 3, 2)
    assert report.dropped == {reason: 1}
    assert report.examples == {reason: ("rows.jsonl:2",)}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["user"], "fewer than two turns"),
        (["user", "assistant", "user"], "the last turn is not the assistant's"),
        (["assistant", "user", "assistant"], "wrong order of roles"),
        (["user", "user", "assistant"], "wrong order of roles"),
        (["user", "assistant", "assistant"], "wrong order of roles"),
        (["user", "system", "assistant"], "wrong order of roles"),
        (["user", "wizard", "assistant"], "a turn has an unknown role"),
        ([], "the turns are missing or not a list"),
    ],
)
def test_wrong_turns_are_dropped_with_reason(tmp_path: Path, turns: list[str], reason: str) -> None:
    good = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    bad = [{"role": role, "content": "x"} for role in turns]
    _, report = read(lines(tmp_path / "rows.jsonl", [{"messages": good}, {"messages": bad}]))
    assert report.dropped == {reason: 1}


@pytest.mark.parametrize("content", [None, "", [{"type": "image_url"}], 3])
def test_turns_without_text_are_dropped(tmp_path: Path, content: Any) -> None:
    good = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    bad = [{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]
    rows, report = read(lines(tmp_path / "rows.jsonl", [{"messages": good}, {"messages": bad}]))
    assert (len(rows), sum(report.dropped.values())) == (1, 1)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_bytes_that_are_not_utf8_cost_one_row(tmp_path: Path, name: str) -> None:
    good, bad = json.dumps(GOOD).encode(), b'{"prompt": "caf\xe9", "completion": "c"}'
    forms = {
        "rows.jsonl": b"\n".join([good, bad, good]),
        "rows.json": b"[" + b",".join([good, bad, good]) + b"]",
        "rows.csv": b"prompt,completion\np,c\ncaf\xe9,c\np,c\n",
    }
    (tmp_path / name).write_bytes(forms[name])
    rows, report = read(tmp_path / name)
    assert (len(rows), report.dropped) == (2, {"not valid UTF-8": 1})


def test_csv_cells_nan_missing_cells_and_long_fields(tmp_path: Path) -> None:
    long = "x" * 300_000
    text = f'prompt,completion\np,NaN\np\n"two\nlines","c, d"\n{long},c\np,c\n'
    (tmp_path / "rows.csv").write_text(text)
    rows, report = read(tmp_path / "rows.csv")
    assert [row.prompt_text for row in rows] == ["two\nlines", long, "p"]
    assert rows[0].completion == "c, d"
    assert report.examples == {
        "missing completion": ("rows.csv:2",),
        "the row has another number of cells than the header": ("rows.csv:3",),
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", json.dumps(GOOD) + '\n{"prompt": \n', r"a\.jsonl, line 2: malformed JSON"),
        ("a.jsonl", '{"prompt": "p", completion}\n' + json.dumps(GOOD), r"a\.jsonl, line 1: malformed JSON"),
        ("a.json", json.dumps(GOOD) + "\n\n{oops}\n", r"a\.json, line 3: malformed JSON"),
        ("a.json", '[\n{"prompt": "p"},\n{"prompt" 1}\n]', r"a\.json, line 3: malformed JSON"),
        ("a.json", json.dumps(GOOD)[:-4], r"a\.json, line 1: malformed JSON"),
        ("a.jsonl", json.dumps(GOOD) + "\n" + "[" * 100_000, r"a\.jsonl, line 2: malformed JSON: nested"),
        ("a.jsonl", "not json", r"a\.jsonl, line 1: malformed JSON"),
        ("a.json", '{\n "only": 1\n}', "holds one object, not a list of rows"),
        ("a.csv", 'prompt,completion\np,c\n"open,c\n', r"a\.csv, line 3: malformed CSV"),
        ("a.csv", "prompt,prompt\na,b\n", "occurs twice in the header"),
        ("a.jsonl", "\n\n", "holds no rows"),
        ("a.json", "[]", "holds no rows"),
        ("a.csv", "prompt,completion\n", "holds no rows"),
        ("a.csv", "\n", "has no header line"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_utf16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD), "utf-16")
    with pytest.raises(DataError, match="is UTF-16"):
        read(tmp_path / "a.jsonl")


def test_losing_more_than_half_of_the_records_is_an_error(tmp_path: Path) -> None:
    bad = {"prompt": "p", "completion": ""}
    assert len(read(lines(tmp_path / "half.jsonl", [GOOD, bad]))[0]) == 1
    with pytest.raises(DataError, match="2 of 3 records cannot be used") as caught:
        read(lines(tmp_path / "most.jsonl", [GOOD, bad, bad]))
    assert caught.value.problems[0].key == "most.jsonl:2, most.jsonl:3"


def test_meta_keeps_short_json_values_and_says_what_it_left_out(tmp_path: Path) -> None:
    record = {**GOOD, "n": 1, "tags": ["a"], "gone": None, "bad": float("nan"), "long": "x" * 9000}
    rows, report = read(lines(tmp_path / "rows.jsonl", [record]))
    assert rows[0].meta == {"n": 1, "tags": ["a"]}
    assert any("other columns of 1 rows" in note for note in report.notes)


def test_files_of_a_folder_are_read_in_order_and_notes_are_carried(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    lines(folder / "b.jsonl", [{"prompt": "2", "completion": "c"}])
    lines(folder / "a.jsonl", [{"prompt": "1", "completion": "c"}])
    lines(folder / "test.jsonl", [GOOD])
    rows, report = read(folder)
    assert [row.prompt_text for row in rows] == ["1", "2"]
    assert report.notes[0].startswith("left out as test or validation data: test.jsonl")
