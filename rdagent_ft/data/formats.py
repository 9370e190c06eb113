"""Write rows in the formats that other tools read, so that reading them back gives equal rows.

Messages, `source` and `meta` survive; what a format cannot hold (a tool turn in alpaca) is refused, never
bent. Preference rows have two formats of their own. What a trainer of ours reads is written by `write.py`
and `preference_write.py`, which render prompts for one model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rdagent_ft.data.preference_write import write_trl_kto, write_trl_pairs
from rdagent_ft.data.preferences import PreferenceRow
from rdagent_ft.data.rows import Message, Row
from rdagent_ft.data.write import write_lines
from rdagent_ft.errors import DataError, Problem

RowFormat = Literal[
    "alpaca", "sharegpt", "messages", "prompt_completion", "trl", "prompt_response", "text_pair", "vertex"
]
PreferenceOutFormat = Literal["pairs", "kto"]
ROW_FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)
PREFERENCE_FORMATS: tuple[PreferenceOutFormat, ...] = get_args(PreferenceOutFormat)

_COLUMNS: dict[RowFormat, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "sharegpt": ("conversations", "system"),
    "messages": ("messages", "system"),
    "prompt_completion": ("prompt", "completion", "system", "system_prompt"),
    "trl": ("prompt", "completion", "system", "system_prompt"),
    "prompt_response": ("prompt", "completion", "response", "system", "system_prompt"),
    "text_pair": ("text", "label", "prompt", "completion"),
    "vertex": ("contents", "systemInstruction", "system"),
}
# Readers look for turns and for alpaca first, so a column of that name would be taken for the format.
_TAKEN_FIRST = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "contents")
_ALWAYS = ("source", "chosen", "rejected", "label")
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def write_format(
    path: Path,
    rows: Sequence[Row | PreferenceRow],
    form: RowFormat | PreferenceOutFormat,
    *,
    prompt_format: Literal["plain", "chat"] = "chat",
) -> None:
    """Write rows as JSON lines in a format.

    Args:
        path: target file, written whole or not at all.
        rows: ordinary rows for a row format, preference rows for `pairs` and `kto`.
        form: `trl` is prompt and completion as lists of turns; `prompt_completion` and `prompt_response` are
            texts where every row has one user turn, else lists; `text_pair` is `text` and `label`.
        prompt_format: for `pairs` and `kto`: `plain` writes prompts and answers as texts.

    Raises `DataError` for rows that the format cannot hold, and for a column whose name it needs itself.
    """
    preferences = [row for row in rows if isinstance(row, PreferenceRow)]
    ordinary = [row for row in rows if isinstance(row, Row)]
    if form == "pairs" or form == "kto":
        if ordinary:
            raise DataError(f"the format {form} holds preferences, and these rows have one answer each")
        write = write_trl_pairs if form == "pairs" else write_trl_kto
        write(path, preferences, prompt_format)
        return
    if preferences:
        raise DataError(f"the format {form} cannot hold preferences", hint="use pairs or kto")
    columns = colliding_columns(ordinary, form)
    if columns:
        raise DataError(
            f"the format {form} cannot carry the columns {', '.join(columns)}: it uses the names itself",
            hint="leave them out, or use another format",
        )
    write_lines(path, _records(ordinary, form))


def colliding_columns(rows: Sequence[Row], form: RowFormat) -> tuple[str, ...]:
    """Return the rows' other columns that would be read as part of the format."""
    taken = {*_COLUMNS[form], *_TAKEN_FIRST, *_ALWAYS}
    if form not in ("alpaca", "sharegpt", "messages", "vertex"):
        taken |= {"instruction", "input", "history"}
    return tuple(sorted({name for row in rows for name in row.meta} & taken))


def _records(rows: Sequence[Row], form: RowFormat) -> Iterator[dict[str, Any]]:
    as_text = form != "trl" and all(_is_one_turn(row) for row in rows)
    # Readers of tables want the same columns in every record.
    has_source = any(row.source is not None for row in rows)
    has_system = any(row.messages[0].role == "system" for row in rows)
    has_history = any(sum(turn.role == "user" for turn in row.messages) > 1 for row in rows)
    optional: dict[str, Any] = {
        **({"system": ""} if has_system else {}),
        **({"history": []} if has_history else {}),
    }
    for number, row in enumerate(rows, start=1):
        try:
            record = _record(row, form, as_text=as_text)
        except _CannotHold as error:
            raise DataError(
                f"row {number} does not fit the format {form}",
                problems=(
                    Problem(f"row {number}", None, str(error), "data.format", "use messages or sharegpt"),
                ),
            ) from None
        if has_source:
            record["source"] = row.source
        if form == "alpaca":
            record = {**optional, **record}
        yield {**record, **row.meta}


class _CannotHold(Exception):
    """A row has something that the format has no place for."""


def _record(row: Row, form: RowFormat, *, as_text: bool) -> dict[str, Any]:
    match form:
        case "alpaca":
            return _alpaca(row)
        case "sharegpt":
            return {"conversations": _sharegpt(row)}
        case "messages":
            return {"messages": _turns(row.messages)}
        case "vertex":
            return _vertex(row)
        case "text_pair":
            if not _is_one_turn(row):
                raise _CannotHold("a pair of texts has one user turn and one answer")
            return {"text": row.prompt_text, "label": row.completion}
        case "prompt_completion" | "trl" | "prompt_response":
            answer = "response" if form == "prompt_response" else "completion"
            if as_text:
                return {"prompt": row.prompt_text, answer: row.completion}
            return {"prompt": _turns(row.prompt), answer: _turns(row.messages[-1:])}


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in messages]


def _is_one_turn(row: Row) -> bool:
    return len(row.messages) == 2 and row.messages[0].role == "user"


def _alpaca(row: Row) -> dict[str, Any]:
    """Return instruction and output; earlier turns become pairs, which tool turns are not."""
    turns = list(row.prompt)
    system = turns.pop(0).content if turns[0].role == "system" else None
    if [turn.role for turn in turns] != (["user", "assistant"] * len(turns))[: len(turns)] or not turns:
        raise _CannotHold("alpaca holds turns of user and assistant in turn, after at most one system turn")
    pairs = [[turns[at].content, turns[at + 1].content] for at in range(0, len(turns) - 1, 2)]
    record: dict[str, Any] = {"instruction": turns[-1].content, "input": "", "output": row.completion}
    if system is not None:
        record["system"] = system
    if pairs:
        record["history"] = pairs
    return record


def _sharegpt(row: Row) -> list[dict[str, str]]:
    """Return the turns; an assistant turn that a tool answers is a call, as LLaMA-Factory names it."""
    turns: list[dict[str, str]] = []
    for at, turn in enumerate(row.messages):
        is_call = (
            turn.role == "assistant"
            and row.messages[at + 1 : at + 2] != ()
            and (row.messages[at + 1].role == "tool")
        )
        turns.append({"from": "function_call" if is_call else _SPEAKERS[turn.role], "value": turn.content})
    return turns


def _vertex(row: Row) -> dict[str, Any]:
    """Return `contents` as Vertex AI tuning reads them; its tool turns are objects, which rows are not."""
    turns = list(row.messages)
    record: dict[str, Any] = {}
    if turns[0].role == "system":
        record["systemInstruction"] = {"role": "system", "parts": [{"text": turns.pop(0).content}]}
    if any(turn.role in ("system", "tool") for turn in turns):
        raise _CannotHold("Vertex holds turns of user and model after at most one system instruction")
    record["contents"] = [
        {"role": "model" if turn.role == "assistant" else "user", "parts": [{"text": turn.content}]}
        for turn in turns
    ]
    return record
