"""Which columns of a preference dataset mean what: pairs, labelled answers, or two answers and a verdict.

A guess is never silent, as in `columns.py`, whose alias table the prompt side shares. Reads no values
beyond the first records; the rows are made in `preferences.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rdagent_ft.data.columns import MESSAGES, PROMPTS, SYSTEMS, all_columns, check_chosen, map_columns
from rdagent_ft.data.records import Record
from rdagent_ft.data.turns import is_turn_list
from rdagent_ft.errors import DataError

PreferenceFormat = Literal["pairs", "judged", "kto"]

CHOSEN = ("chosen", "chosen_response")
REJECTED = ("rejected", "rejected_response")
JUDGED = (("output_1", "output_2"), ("response_1", "response_2"), ("answer_1", "answer_2"))
LABELS = ("label", "kto_tag")
FIELDS = (
    "prompt", "messages", "system", "input", "history", "source", "chosen", "rejected", "first", "second",
    "completion", "label",
)  # fmt: skip
_PAIR_FIELDS = frozenset({"chosen", "rejected"})
_HINT = "say which columns to use, e.g. --columns prompt=question,chosen=good,rejected=bad"


class PreferenceMapping(NamedTuple):
    """How a record becomes a preference row. `fields` is canonical field -> column."""

    format: PreferenceFormat
    fields: dict[str, str]
    notes: tuple[str, ...]


def preference_format(
    records: Sequence[Record], chosen: dict[str, str] | None = None
) -> PreferenceFormat | None:
    """Return which kind of preference data the records are, None where they are none.

    `chosen`: canonical field -> column, as typed. Labelled answers need a column of booleans; a column
    `label` with other values is a class label, not a preference.
    """
    present, given = all_columns(records), chosen or {}
    if _PAIR_FIELDS & given.keys():
        return "pairs"
    if _first(CHOSEN, present) and _first(REJECTED, present):
        # `completion=chosen` asks for ordinary rows with the chosen answers.
        return None if set(given.values()) & {*CHOSEN, *REJECTED} else "pairs"
    if {"first", "second"} & given.keys() or _judged(present):
        return "judged"
    label = given.get("label") or _first(LABELS, present)
    if label is None or label in {column for field, column in given.items() if field != "label"}:
        return None
    values = [record.columns[label] for record in records if record.columns.get(label) is not None]
    is_boolean = bool(values) and all(isinstance(value, bool) for value in values)
    return "kto" if is_boolean or "label" in given else None


def map_preference_columns(
    records: Sequence[Record], chosen: dict[str, str] | None = None
) -> PreferenceMapping:
    """Return the mapping for these records; `chosen` (canonical field -> column) overrides the guess.

    Raises `DataError` that shows the columns when the records are no preference data, when a chosen
    column does not exist, or when nothing gives the prompt.
    """
    present, given = all_columns(records), dict(chosen or {})
    check_chosen(given, present, FIELDS)
    kind = preference_format(records, given)
    if kind is None:
        raise DataError(
            f"these are no preference rows: the dataset has {', '.join(present[:20]) or 'no columns'}",
            hint="give chosen and rejected, or a completion with a label of true or false; " + _HINT,
        )
    if kind == "kto":
        return _labelled(records, given, present)
    fields = dict(given)
    if kind == "pairs":
        _fill(fields, "chosen", CHOSEN, present)
        _fill(fields, "rejected", REJECTED, present)
        missing = [field for field in ("chosen", "rejected") if field not in fields]
    else:
        names = _judged(present) or ("", "")
        fields = {**{"first": names[0], "second": names[1]}, **fields}
        _fill(fields, "label", LABELS, present)
        missing = [field for field in ("first", "second", "label") if not fields.get(field)]
    if missing:
        raise DataError(f"no column for {' and '.join(missing)} among {', '.join(present[:20])}", hint=_HINT)
    _add_prompt(records, fields, present)
    return PreferenceMapping(kind, fields, _notes(fields, present))


def _labelled(
    records: Sequence[Record], given: dict[str, str], present: tuple[str, ...]
) -> PreferenceMapping:
    """Return the mapping of answers with a label; without the label they are ordinary rows."""
    label = given.pop("label", None) or _first(LABELS, present)
    assert label is not None
    others = [
        Record(place, {name: value for name, value in columns.items() if name != label}, problem)
        for place, columns, problem in records
    ]
    mapping = map_columns(others, given)
    return PreferenceMapping("kto", {**mapping.fields, "label": label}, mapping.notes)


def _add_prompt(records: Sequence[Record], fields: dict[str, str], present: tuple[str, ...]) -> None:
    """Put the prompt's columns into `fields`; none is needed where the answers are conversations."""
    free = [column for column in present if column not in fields.values()]
    if "prompt" not in fields and "messages" not in fields:
        turns = next((name for name in MESSAGES if name in free and _has_turns(records, name)), None)
        names = ("prompt", *(alias for aliases in PROMPTS.values() for alias in aliases))
        text = next((name for name in names if name in free), None)
        # A column `prompt` beside a list of turns: the turns are one of the conversations.
        if turns is not None and text != "prompt":
            fields["messages"] = turns
        elif text is not None:
            fields["prompt"] = text
        elif not _has_turns(records, fields.get("chosen", "")):
            raise DataError(f"no column gives the prompt among {', '.join(present[:20])}", hint=_HINT)
    if fields.get("prompt") == "instruction" and "input" in free:
        fields.setdefault("input", "input")
    for field, names in (("system", SYSTEMS), ("history", ("history",)), ("source", ("source",))):
        _fill(fields, field, tuple(name for name in names if name in free), present)


def _fill(fields: dict[str, str], field: str, names: tuple[str, ...], present: tuple[str, ...]) -> None:
    if field not in fields and (found := _first(names, present)) is not None:
        fields[field] = found


def _first(names: tuple[str, ...], present: Sequence[str]) -> str | None:
    return next((name for name in names if name in present), None)


def _judged(present: tuple[str, ...]) -> tuple[str, str] | None:
    return next((pair for pair in JUDGED if set(pair) <= set(present)), None)


def _has_turns(records: Sequence[Record], column: str) -> bool:
    values: list[Any] = [record.columns.get(column) for record in records[:1000]]
    return any(is_turn_list(value) for value in values)


def _notes(fields: dict[str, str], present: tuple[str, ...]) -> tuple[str, ...]:
    unseen = [column for column in present if column not in fields.values()]
    return (f"columns that are not kept: {', '.join(unseen[:12])}",) if unseen else ()
