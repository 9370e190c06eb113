"""Lines of a data script become rows, or problems that name them."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.data.script_rows import (
    MIN_ROWS,
    SCRIPT_SOURCE,
    max_script_bytes,
    max_script_rows,
    row_count_problem,
    script_rows,
)

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def read(*objects: dict[str, Any]) -> tuple[list[Any], list[str]]:
    rows, problems = script_rows(list(enumerate(objects, start=1)), "data.jsonl")
    return rows, [problem.render() for problem in problems]


def test_both_shapes_give_the_same_row() -> None:
    rows, problems = read({"messages": TURNS}, {"prompt": "hi", "completion": "hello"})
    assert problems == []
    assert rows[0] == rows[1]
    assert (rows[0].source, rows[0].meta) == (SCRIPT_SOURCE, {})


def test_a_stored_row_goes_through_with_its_source_and_a_new_id() -> None:
    rows, problems = read(
        {"item_id": "made up", "messages": TURNS, "source": "forum", "meta": {"a": 1}, "x": 2}
    )
    assert problems == []
    assert rows[0].source == "forum"
    assert rows[0].item_id != "made up"
    assert rows[0].meta == {}


def test_a_system_turn_may_be_a_column() -> None:
    rows, _ = read({"prompt": "hi", "completion": "hello", "system": "be kind"})
    assert [turn.role for turn in rows[0].messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({}, "neither `messages` nor `prompt`"),
        ({"prompt": "hi"}, "neither `messages`"),
        ({"text": "hi hello"}, "but 'text'"),
        ({"\x1b[31m\ud800": 1}, "\\x1b"),
        ({"messages": TURNS, "prompt": "hi"}, "both `messages` and `prompt`"),
        ({"messages": "hi"}, "not a list"),
        ({"messages": TURNS[:1]}, "fewer than two turns"),
        ({"messages": [*TURNS, {"role": "wizard", "content": "x"}]}, "unknown role"),
        ({"prompt": "hi", "completion": "  "}, "empty completion"),
        ({"prompt": None, "completion": "x"}, "missing prompt"),
        ({"prompt": float("nan"), "completion": "x"}, "missing prompt"),
        ({"prompt": "a\ud800", "completion": "x"}, "UTF-8"),
        ({"prompt": "hi", "completion": "x", "source": "s" * 201}, "200 characters"),
        ({"prompt": "hi", "completion": "x", "source": ["a"]}, "source is not text"),
        ({"prompt": "hi", "completion": "x" * 1_000_001}, "1,000,000 characters"),
    ],
)
def test_any_other_line_is_a_problem_that_names_it(line: dict[str, Any], reason: str) -> None:
    rows, problems = read({"prompt": "hi", "completion": "hello"}, line)
    assert len(rows) == 1
    (problem,) = problems
    assert "data.jsonl:2:" in problem
    assert reason in problem
    assert "[data.script_output]" in problem
    problem.encode("utf-8")


def test_equal_problems_come_together_and_stay_short() -> None:
    lines = [(number, {"text": "x"}) for number in range(5, 1005)]
    lines += [(2000 + number, {f"key{number}": 1}) for number in range(50)]
    rows, problems = script_rows(lines, "data.jsonl")
    assert rows == []
    assert len(problems) == 5
    assert "data.jsonl:5, data.jsonl:6, data.jsonl:7 and 997 more lines" in problems[0].rule


def test_bounds_grow_with_the_train_split_up_to_an_end() -> None:
    assert [max_script_rows(n) for n in (0, 100, 5_000, 10**9)] == [10_000, 10_000, 25_000, 2_000_000]
    assert [max_script_bytes(n) for n in (0, 10**7, 10**12)] == [1 << 24, 5 * 10**7, 1 << 28]


def test_too_few_rows_are_a_problem_that_says_why() -> None:
    assert row_count_problem(MIN_ROWS, 0) is None
    few = row_count_problem(MIN_ROWS - 1, 7)
    assert few is not None
    assert f"left {MIN_ROWS - 1} rows" in few.rule
    assert "7 more repeat held-out items" in few.rule
    none = row_count_problem(0, 0)
    assert none is not None
    assert none.problem_class == "data.script_output"
