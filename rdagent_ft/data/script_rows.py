"""Turns the lines that a data script wrote into rows, or says which lines are wrong.

The same reader as for a person's dataset, but stricter: a script can be corrected, so one bad line is a
problem instead of a dropped row. Bounds on how many rows a script may write are here as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rdagent_ft.data.rows import Row, make_row
from rdagent_ft.data.split import MIN_TRAIN_ITEMS
from rdagent_ft.data.turns import Unusable, row_of
from rdagent_ft.errors import Problem

SCRIPT_SOURCE = "script"
"""The `source` of rows to which the script gave none."""

MIN_ROWS = MIN_TRAIN_ITEMS
MAX_GROWTH = 5
_ALWAYS_ALLOWED_ROWS = 10_000
_MAX_ROWS = 2_000_000
_MIN_BYTES = 1 << 24
_MAX_BYTES = 1 << 28
_MAX_SOURCE_CHARS = 200
_MAX_ROW_CHARS = 1_000_000
_N_PLACES = 3
_N_REASONS = 5
_FIX = "write one JSON object a line with `messages`, or with `prompt` and `completion`"


def max_script_rows(n_train: int) -> int:
    """Return how many rows a script may write: five times the train split, at least 10,000."""
    return min(_MAX_ROWS, max(_ALWAYS_ALLOWED_ROWS, MAX_GROWTH * n_train))


def max_script_bytes(train_bytes: int) -> int:
    """Return how large a script's output may be, from the size of the file that it reads (bytes)."""
    return min(_MAX_BYTES, max(_MIN_BYTES, MAX_GROWTH * train_bytes))


def script_rows(lines: Sequence[tuple[int, dict[str, Any]]], name: str) -> tuple[list[Row], list[Problem]]:
    """Return the rows of numbered JSON objects and every problem, equal reasons together.

    A line has `messages`, or `prompt` and `completion` (and perhaps `system`), and perhaps `source`. Other
    keys are not used: item ids are made from the text again.

    Args:
        lines: line number and object, in order.
        name: the file's name, for messages.
    """
    rows: list[Row] = []
    wrong: dict[str, list[int]] = defaultdict(list)
    for number, columns in lines:
        try:
            row = _row(columns)
        except Unusable as error:
            wrong[str(error)].append(number)
        else:
            rows.append(row)
    return rows, [
        _line_problem(name, reason, numbers) for reason, numbers in list(wrong.items())[:_N_REASONS]
    ]


def row_count_problem(n_rows: int, n_copies: int) -> Problem | None:
    """Return a problem when too few rows are left to train on, else None."""
    if n_rows >= MIN_ROWS:
        return None
    rule = f"left {n_rows} rows, and at least {MIN_ROWS} are needed"
    if n_copies:
        rule += f" ({n_copies} more repeat held-out items and were dropped)"
    return Problem("data.script", None, rule, "data.script_output", "write more rows, or filter less")


def _row(columns: dict[str, Any]) -> Row:
    """Return the row of one object. Raises `Unusable`."""
    row = row_of(columns, _fields(columns))
    source = row.source or SCRIPT_SOURCE
    if len(source) > _MAX_SOURCE_CHARS:
        raise Unusable(f"a `source` of more than {_MAX_SOURCE_CHARS} characters")
    if sum(len(turn.content) for turn in row.messages) > _MAX_ROW_CHARS:
        raise Unusable(f"more than {_MAX_ROW_CHARS:,} characters of text")
    return make_row(row.messages, source=source)


def _fields(columns: dict[str, Any]) -> dict[str, str]:
    """Return canonical field -> key. Raises `Unusable` when the shape is neither of the two."""
    paired = [name for name in ("prompt", "completion") if name in columns]
    if "messages" in columns and paired:
        raise Unusable(f"both `messages` and `{paired[0]}`")
    if "messages" not in columns and len(paired) < 2:
        shown = ", ".join(ascii(name[:40]) for name in list(columns)[:6]) or "no keys"
        raise Unusable(f"neither `messages` nor `prompt` and `completion`, but {shown}")
    names = ("messages", "system", "source") if "messages" in columns else (*paired, "system", "source")
    return {name: name for name in names if name in columns}


def _line_problem(name: str, reason: str, numbers: list[int]) -> Problem:
    places = ", ".join(f"{name}:{number}" for number in numbers[:_N_PLACES])
    more = f" and {len(numbers) - _N_PLACES} more lines" if len(numbers) > _N_PLACES else ""
    return Problem("data.script", None, f"{places}{more}: {reason}", "data.script_output", _FIX)
