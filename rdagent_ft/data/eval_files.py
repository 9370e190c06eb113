"""Evaluation files of any known format as items: a question, and an answer where the file has one.

More lenient than the reader of training data: a benchmark's answers often lie elsewhere, and its columns
have names of their own. Scoring reads benchmarks through `evaluation/benchmarks.py`, never through this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from rdagent_ft.data.columns import map_columns
from rdagent_ft.data.contamination import item_of
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.records import Record
from rdagent_ft.data.turns import Unusable, row_of, text_of
from rdagent_ft.errors import DataError, UserError

_CONTEXTS = ("body", "context", "passage")
_QUESTIONS = (
    "question", "problem", "instruction", "query", "prompt", "turns", "input", "text", "sentence",
)  # fmt: skip
_ANSWERS = (
    "answer", "expected_answer", "gold", "gold_answer", "target", "completion", "output", "response",
    "canonical_solution", "code", "solution", "correct", "answerkey", "label", "category",
)  # fmt: skip


def eval_items(records: Sequence[Record], source: str, columns: dict[str, str]) -> list[EvalItem]:
    """Return the items of an evaluation file; records without a question are left out.

    Args:
        records: of one file.
        source: the file's name.
        columns: canonical field (`prompt`, `completion`) -> column; may be empty.

    Raises `DataError` when no record has a question.
    """
    if columns:
        names = {name for record in records for name in record.columns}
        for field, column in columns.items():
            if column not in names:
                raise DataError(
                    f"{source} has no column {column!r}", hint=f"it has {', '.join(sorted(names))}"
                )
            if field not in {"prompt", "completion"}:
                raise UserError(f"unknown field {field!r}", hint="use prompt=… and completion=…")
    found = [item for record in records if (item := _item(record, source, columns)) is not None]
    if not found:
        shown = ", ".join(list(records[0].columns)[:20])
        raise DataError(
            f"{source} holds no questions: its columns are {shown}",
            hint="say which column is the question, e.g. --eval-columns prompt=QUESTION,completion=ANSWER",
        )
    return found


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text inside a JSON value."""
    pending: list[Any] = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, dict):
            pending += reversed(list(cast("dict[str, Any]", current).values()))
        elif isinstance(current, list):
            pending += reversed(cast("list[Any]", current))


def _item(record: Record, source: str, columns: dict[str, str]) -> EvalItem | None:
    """Return the item of a record, or None."""
    if not columns:
        try:
            mapping = map_columns([record])
            if "messages" in mapping.fields:
                return item_of(row_of(record.columns, mapping.fields), source)._replace(item_id=record.place)
        except (DataError, Unusable):
            pass
    named = {name.lower(): value for name, value in record.columns.items()}
    if columns:
        question = _cell(record.columns.get(columns.get("prompt", "")))
        answer = _cell(record.columns.get(columns.get("completion", "")))
    else:
        asked = next((name for name in _QUESTIONS if _cell(named.get(name))), None)
        parts = [*_CONTEXTS, asked, "input"] if asked == "instruction" else [*_CONTEXTS, asked]
        question = "\n".join(text for name in parts if name and (text := _cell(named.get(name))))
        answer = next((text for name in _ANSWERS if name != asked and (text := _cell(named.get(name)))), "")
    return EvalItem(record.place, source, question, answer) if question.strip() else None


def _cell(value: Any) -> str:
    """Return a cell's text; of an object its `stem`, of a list its texts; empty for anything else."""
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value).get("stem")
    if isinstance(value, list):
        return "\n".join(texts_in(value))
    try:
        return text_of(value, "cell")
    except Unusable:
        return ""
