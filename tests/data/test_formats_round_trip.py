"""Every format in and out: rows that are written and read again are equal, or the writer refuses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.data.formats import ROW_FORMATS, RowFormat, colliding_columns, write_format
from rdagent_ft.data.preferences import PreferenceRow, make_preference, read_preferences
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import Message, Role, Row, make_row
from rdagent_ft.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
VALUE = st.integers() | TEXT | st.booleans() | st.lists(TEXT, max_size=3)
META = st.dictionaries(TEXT.map(lambda name: f"x_{name}"), VALUE, max_size=3)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = {"text_pair": {"prompt": "text", "completion": "label"}}


@st.composite
def conversations(draw: st.DrawFn, *, tools: bool) -> tuple[Message, ...]:
    """Turns in an order that a chat may have, the assistant's last."""
    roles: list[Role] = ["system"] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        roles += ["user", "assistant"]
        if tools and draw(st.booleans()):
            roles += ["tool", "assistant"]
    return tuple(Message(role=role, content=draw(TEXT)) for role in roles)


def rows_of(*, tools: bool) -> st.SearchStrategy[list[Row]]:
    one = st.builds(
        lambda turns, source, meta: make_row(turns, source=source, meta=meta),
        conversations(tools=tools),
        st.none() | TEXT,
        META,
    )
    return st.lists(one, min_size=1, max_size=5)


def read_back(path: Path, columns: dict[str, str] | None = None) -> list[Row]:
    rows, report = read_rows(resolve_dataset(str(path), path.parent), columns)
    assert report.dropped == {}
    return rows


@pytest.mark.parametrize("form", ["sharegpt", "messages", "prompt_completion", "trl", "prompt_response"])
@FEW
@given(rows=rows_of(tools=True))
def test_conversations_come_back_equal(tmp_path: Path, form: RowFormat, rows: list[Row]) -> None:
    write_format(tmp_path / "rows.jsonl", rows, form)
    assert read_back(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize("form", ["alpaca", "vertex"])
@FEW
@given(rows=rows_of(tools=False))
def test_formats_without_tools_come_back_equal(tmp_path: Path, form: RowFormat, rows: list[Row]) -> None:
    write_format(tmp_path / "rows.jsonl", rows, form)
    assert read_back(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize("form", ROW_FORMATS)
@FEW
@given(texts=st.lists(st.tuples(TEXT, TEXT, META), min_size=1, max_size=5))
def test_single_turns_come_back_equal_in_every_format(
    tmp_path: Path, form: RowFormat, texts: list[tuple[str, str, dict[str, Any]]]
) -> None:
    rows = [
        make_row((Message(role="user", content=prompt), Message(role="assistant", content=answer)), meta=meta)
        for prompt, answer, meta in texts
    ]
    write_format(tmp_path / "rows.jsonl", rows, form)
    assert read_back(tmp_path / "rows.jsonl", COLUMNS.get(form)) == rows


@pytest.mark.parametrize("form", ["pairs", "kto"])
@FEW
@given(
    data=st.lists(st.tuples(conversations(tools=True), TEXT, TEXT, st.none() | TEXT), min_size=1, max_size=5),
    which=st.randoms(use_true_random=False),
)
def test_preferences_come_back_equal(tmp_path: Path, form: Any, data: list[Any], which: Any) -> None:
    rows: list[PreferenceRow] = []
    for turns, chosen, rejected, _ in data:
        if form == "pairs" and chosen != rejected:
            rows.append(make_preference(turns[:-1], chosen, rejected))
        elif form == "kto":
            good = which.random() < 0.5
            rows.append(make_preference(turns[:-1], chosen if good else None, None if good else chosen))
    if not rows:
        return
    write_format(tmp_path / "rows.jsonl", rows, form)
    again, report = read_preferences(resolve_dataset(str(tmp_path / "rows.jsonl"), tmp_path))
    assert again == rows
    assert report.dropped == {}
    assert report.format == form


def tool_row() -> Row:
    turns: list[tuple[Role, str]] = [("user", "a"), ("assistant", "{}"), ("tool", "1"), ("assistant", "b")]
    return make_row(tuple(Message(role=role, content=text) for role, text in turns))


@pytest.mark.parametrize("form", ["alpaca", "vertex", "text_pair"])
def test_what_a_format_cannot_hold_is_refused_and_named(
    tmp_path: Path, form: RowFormat, row: Callable[..., Row]
) -> None:
    with pytest.raises(DataError, match=f"row 2 does not fit the format {form}"):
        write_format(tmp_path / "rows.jsonl", [row("a", "b"), tool_row()], form)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_tool_call_has_the_name_that_llamafactory_reads(tmp_path: Path) -> None:
    write_format(tmp_path / "rows.jsonl", [tool_row()], "sharegpt")
    turns = json.loads((tmp_path / "rows.jsonl").read_text())["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "function_call", "observation", "gpt"]


def test_a_column_with_a_name_of_the_format_is_refused(tmp_path: Path) -> None:
    turns = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    rows = [make_row(turns, meta={"prompt": "x", "score": 1, "messages": [{"role": "user", "content": "z"}]})]
    assert colliding_columns(rows, "prompt_completion") == ("messages", "prompt")
    assert colliding_columns(rows, "alpaca") == ("messages",)
    with pytest.raises(DataError, match="cannot carry the columns messages, prompt"):
        write_format(tmp_path / "rows.jsonl", rows, "trl")


def test_vertex_is_written_as_tuning_reads_it(tmp_path: Path) -> None:
    turns = (
        Message(role="system", content="s"),
        Message(role="user", content="u"),
        Message(role="assistant", content="a"),
    )
    write_format(tmp_path / "rows.jsonl", [make_row(turns)], "vertex")
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {
        "systemInstruction": {"role": "system", "parts": [{"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "u"}]},
            {"role": "model", "parts": [{"text": "a"}]},
        ],
    }


def test_router_rows_with_other_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "response": "r", "grade": "6", "topic_tags": ["a"]}) + "\n")
    (row,) = read_back(path)
    assert (row.prompt_text, row.completion, row.meta) == ("p", "r", {"grade": "6", "topic_tags": ["a"]})
