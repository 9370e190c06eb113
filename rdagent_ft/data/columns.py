"""Which column means what: one alias table, the detection of the format, and what a person overrides.

A guess is never silent: every second candidate and every column that the model does not see becomes
a note, and preference pairs are refused because SFT would train on both answers or on none.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, NoReturn, cast

from rdagent_ft.data.records import Record
from rdagent_ft.errors import DataError, Problem

Format = Literal["alpaca", "sharegpt", "messages", "prompt_completion", "question_answer"]

# The first present alias wins, in this order. Only exact lower-case names: a column that merely looks
# similar (`Question` beside `Body`) may hold half of the task.
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "contents")
PROMPTS: dict[Format, tuple[str, ...]] = {
    "alpaca": ("instruction",),
    "prompt_completion": ("prompt", "inputs", "user_prompt", "user", "input"),
    "question_answer": ("question", "problem", "query"),
}
COMPLETIONS: dict[Format, tuple[str, ...]] = {
    "alpaca": ("output", "response", "completion", "answer"),
    "prompt_completion": ("completion", "response", "output", "targets", "target", "assistant", "answer"),
    "question_answer": ("answer", "solution", "generated_solution", "response", "output", "completion"),
}
SYSTEMS = ("system", "system_prompt", "systemInstruction", "system_instruction")
FIELDS = ("prompt", "completion", "system", "input", "history", "messages", "source")
_HINT = "say which columns to use, e.g. --columns prompt=text,completion=category"


class ColumnMapping(NamedTuple):
    """How a record becomes a row. `fields` is canonical field -> column."""

    format: Format
    fields: dict[str, str]
    notes: tuple[str, ...]


def map_columns(records: Sequence[Record], chosen: dict[str, str] | None = None) -> ColumnMapping:
    """Return the mapping for these records; `chosen` (canonical field -> column) overrides the guess.

    Raises `DataError` that shows the columns when nothing usable is there, when a chosen column does
    not exist, or when the rows are preference pairs.
    """
    present = all_columns(records)
    chosen = chosen or {}
    check_chosen(chosen, present)
    found = _detect(records, [column for column in present if column not in chosen.values()], chosen)
    if found is None:
        _refuse(present)
    kind, fields, notes = found
    if "source" not in fields and "source" in present and "source" not in fields.values():
        fields["source"] = "source"
    if "chosen" in present and "rejected" in present and not {"chosen", "rejected"} & set(fields.values()):
        _refuse_preferences(fields)
    unseen = [column for column in present if column not in fields.values()]
    if unseen:
        notes.append(f"columns that the model does not see: {', '.join(unseen[:12])}")
    if "tools" in unseen:
        notes.append("tool definitions are not shown to the model; --columns system=tools shows them")
    return ColumnMapping(kind, fields, tuple(notes))


def all_columns(records: Sequence[Record]) -> tuple[str, ...]:
    """Return every column that some record has, in order of first appearance."""
    return tuple(dict.fromkeys(column for record in records for column in record.columns))


def _detect(
    records: Sequence[Record], free: list[str], chosen: dict[str, str]
) -> tuple[Format, dict[str, str], list[str]] | None:
    """Return format, fields and notes; a chosen column takes the place of the guessed one."""
    turns = chosen.get("messages")
    if turns is None and "prompt" not in chosen:
        turns = next((name for name in MESSAGES if name in free and _turn_keys(records, name)), None)
    if turns is not None:
        keys = _turn_keys(records, turns)
        if keys is None:
            raise DataError(f"the column {turns!r} holds no list of turns", hint=_HINT)
        kind: Format = "sharegpt" if keys == "from" else "messages"
        return kind, {**_optional(free, ("system",)), **chosen, "messages": turns}, []
    if "prompt" in chosen and "completion" in chosen:
        return "prompt_completion", dict(chosen), []
    for guess, prompts in PROMPTS.items():
        prompt = chosen.get("prompt") or next((name for name in prompts if name in free), None)
        answers = [name for name in COMPLETIONS[guess] if name in free and name != prompt]
        completion = chosen.get("completion") or (answers[0] if answers else None)
        if prompt is None or completion is None:
            continue
        optional = ("system", "input", "history") if guess == "alpaca" else ("system",)
        notes: list[str] = []
        if "completion" not in chosen and len(answers) > 1:
            others = " or ".join(f"--columns completion={name}" for name in answers[1:])
            notes.append(f"the answer is taken from `{completion}`; {others} takes another column")
        fields = {"prompt": prompt, "completion": completion}
        kind = "prompt_completion" if "prompt" in chosen else guess
        return kind, {**_optional(free, optional), **chosen, **fields}, notes
    return None


def _optional(free: list[str], wanted: tuple[str, ...]) -> dict[str, str]:
    """Return those of the optional fields whose column is present."""
    aliases = {"system": SYSTEMS, "input": ("input",), "history": ("history",)}
    found = {field: next((name for name in aliases[field] if name in free), None) for field in wanted}
    return {field: name for field, name in found.items() if name is not None}


def _turn_keys(records: Sequence[Record], column: str) -> Literal["role", "from"] | None:
    """Return how the turns in a column name their speaker, from the first records that have any."""
    for record in records[:1000]:
        value = record.columns.get(column)
        if isinstance(value, list) and value:
            first = cast("list[Any]", value)[0]
            if isinstance(first, dict):
                if "role" in first:
                    return "role"
                if "from" in first:
                    return "from"
    return None


def check_chosen(chosen: dict[str, str], present: tuple[str, ...], fields: tuple[str, ...] = FIELDS) -> None:
    """Raise `DataError` with every unknown field and every absent column at once."""
    problems: list[Problem] = []
    for field, column in chosen.items():
        if field not in fields:
            fix = f"use one of {', '.join(fields)}"
            problems.append(Problem(f"--columns {field}", column, "unknown field", "data.columns", fix))
        elif column not in present:
            near = difflib.get_close_matches(column, present, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(present[:20])}"
            problems.append(Problem(f"--columns {field}", column, "no such column", "data.columns", fix))
    if problems:
        raise DataError("--columns does not fit the dataset", problems=tuple(problems))


def _refuse(present: tuple[str, ...]) -> NoReturn:
    shown = ", ".join(present[:20]) or "none"
    if {"chosen", "rejected"} <= set(present):
        prompt = next((name for names in PROMPTS.values() for name in names if name in present), None)
        _refuse_preferences({} if prompt is None else {"prompt": prompt})
    if present == ("text",):
        raise DataError(
            "the dataset has only the column text: there is no prompt and no answer to train on",
            hint="give rows with a prompt and a completion",
        )
    first, second = (*present, "PROMPT", "ANSWER")[:2] if len(present) > 1 else ("PROMPT", "ANSWER")
    raise DataError(
        f"no usable columns: the dataset has {shown}",
        hint=f"say which column is the prompt and which the answer, "
        f"e.g. --columns prompt={first},completion={second}",
    )


def _refuse_preferences(fields: dict[str, str]) -> NoReturn:
    prompt = fields.get("messages") or fields.get("prompt")
    way = "--columns messages=chosen"
    if "messages" in fields:
        way = f"--columns messages={prompt},completion=chosen"
    elif prompt is not None:
        way = f"--columns prompt={prompt},completion=chosen"
    raise DataError(
        "the dataset holds preference pairs (chosen, rejected), which SFT cannot use as they are",
        hint=f"to train on the chosen answers only: {way}",
    )
