"""Preference data: which of two answers is better, or whether one answer is good.

Reads pairs (`chosen`, `rejected` as text, one turn or whole conversations), answers with a label of true or
false (KTO), and two answers with the number of the better one (LLMBar). What cannot teach anything, such
as two equal answers, is dropped and counted. Writing is in `preference_write.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import model_validator

from rdagent_ft.data.near_duplicates import normalise, word_grams
from rdagent_ft.data.preference_columns import (
    PreferenceFormat,
    PreferenceMapping,
    map_preference_columns,
)
from rdagent_ft.data.read import MAX_DROPPED_SHARE, records_of, too_many_dropped
from rdagent_ft.data.records import Record
from rdagent_ft.data.rows import DatasetSource, Message, Row, make_row
from rdagent_ft.data.turns import (
    Unusable,
    check_turns,
    check_unicode,
    conversation,
    is_nan,
    is_turn_list,
    row_of,
    text_of,
    turns_of,
)
from rdagent_ft.errors import DataError
from rdagent_ft.values import Frozen, content_hash

NEAR_EQUAL = 0.9
"""Share of common word 3-grams (Jaccard) from which two answers teach little of which is better."""

LENGTH_BIAS = 0.75
"""Share of pairs with the longer answer on one side from which length alone predicts the choice."""

MIN_PAIRS_FOR_BIAS = 20
KTO_BALANCE = (1.0, 4 / 3)
"""Bounds of (weight x good rows) / (weight x bad rows). Source: Ethayarajh et al. 2024, arXiv 2402.01306."""

_N_EXAMPLES = 3
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class PreferenceRow(Frozen):
    """One judgement about answers to a prompt.

    Attributes:
        item_id: 16 hex digits over prompt and answers.
        prompt: all turns before the answer; the last one is not the assistant's.
        chosen: the better (or a good) answer; None where only a bad one is known.
        rejected: the worse (or a bad) answer; None where only a good one is known.
        source: where the row came from inside the dataset.
    """

    item_id: str
    prompt: tuple[Message, ...]
    chosen: str | None
    rejected: str | None
    source: str | None = None

    @model_validator(mode="after")
    def _has_prompt_and_answer(self) -> PreferenceRow:
        if not self.prompt or self.prompt[-1].role == "assistant":
            raise ValueError("the prompt must end with a turn that is not the assistant's")
        if self.chosen is None and self.rejected is None:
            raise ValueError("one of chosen and rejected must be given")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected are equal")
        return self

    @property
    def is_pair(self) -> bool:
        """Whether both answers are known."""
        return self.chosen is not None and self.rejected is not None

    def as_row(self) -> Row:
        """Return prompt and the better known answer as an ordinary row, for checks that read rows."""
        answer = self.chosen if self.chosen is not None else self.rejected
        return make_row((*self.prompt, Message(role="assistant", content=answer or "")), source=self.source)


class PreferenceReport(Frozen):
    """What reading preference data found.

    Attributes:
        format: `pairs`, `judged` (two answers and a number) or `kto` (one answer and true or false).
        mapping: canonical field -> column.
        n_read, n_rows: records in the files, rows kept.
        n_pairs, n_good, n_bad: rows with both answers, with a good one only, with a bad one only.
        dropped: reason -> count; `examples`: reason -> up to three places.
        n_repeated: rows beyond the first of equal ones.
        n_contradicting: pairs whose answers stand the other way round elsewhere; rows with one answer that
            is called good and bad.
        n_near_equal: pairs whose answers are nearly the same words.
        share_chosen_longer: share of the pairs of unequal length whose chosen answer is the longer one.
        notes: what a person should know.
    """

    format: PreferenceFormat
    mapping: dict[str, str]
    n_read: int
    n_rows: int
    n_pairs: int
    n_good: int
    n_bad: int
    dropped: dict[str, int] = {}
    examples: dict[str, tuple[str, ...]] = {}
    n_repeated: int = 0
    n_contradicting: int = 0
    n_near_equal: int = 0
    share_chosen_longer: float | None = None
    notes: tuple[str, ...] = ()


def make_preference(
    prompt: Sequence[Message], chosen: str | None, rejected: str | None, source: str | None = None
) -> PreferenceRow:
    """Return a preference row with its content id. Raises `pydantic.ValidationError` on equal answers."""
    item_id = content_hash([[[turn.role, turn.content] for turn in prompt], chosen, rejected], n_chars=16)
    return PreferenceRow(
        item_id=item_id, prompt=tuple(prompt), chosen=chosen, rejected=rejected, source=source
    )


def read_preferences(
    source: DatasetSource, columns: dict[str, str] | None = None
) -> tuple[list[PreferenceRow], PreferenceReport]:
    """Return all preference rows of `source` in file order, and what reading found.

    Args:
        source: from `resolve_dataset`.
        columns: canonical field (`prompt`, `messages`, `chosen`, `rejected`, `completion`, `label`, `first`,
            `second`, `system`, `input`, `source`) -> column; overrides the guess.

    Raises `DataError` for a malformed line, unusable columns, no records, or more than half of the records
    dropped; `PreflightError` for parquet without pyarrow.
    """
    records = [record for ref in source.files for record in records_of(Path(ref.path))]
    if not records:
        raise DataError(f"dataset {source.name!r} holds no rows")
    mapping = map_preference_columns(records, columns)
    rows: list[PreferenceRow] = []
    dropped: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for record in records:
        try:
            rows.append(preference_of(record, mapping))
        except Unusable as error:
            dropped[str(error)] += 1
            if len(places := examples.setdefault(str(error), [])) < _N_EXAMPLES:
                places.append(record.place)
    if len(records) - len(rows) > MAX_DROPPED_SHARE * len(records):
        raise too_many_dropped(len(records), dropped, examples, mapping.format, mapping.fields)
    found = PreferenceReport(
        format=mapping.format,
        mapping=mapping.fields,
        n_read=len(records),
        dropped=dict(dropped.most_common()),
        examples={reason: tuple(places) for reason, places in examples.items()},
        notes=(*source.notes, *mapping.notes),
        **_counts(rows),
    )
    return rows, found.model_copy(update={"notes": (*found.notes, *_warnings(found))})


def preference_of(record: Record, mapping: PreferenceMapping) -> PreferenceRow:
    """Return the preference row of one record. Raises `Unusable` with the reason."""
    if record.problem is not None:
        raise Unusable(record.problem)
    columns, fields = record.columns, mapping.fields
    source = columns.get(fields["source"]) if "source" in fields else None
    shown = None if source is None or is_nan(source) else text_of(source, "source")
    if mapping.format == "kto":
        row = row_of(columns, {name: column for name, column in fields.items() if name != "label"})
        is_good = _boolean(columns.get(fields["label"]))
        answer = row.completion
        return make_preference(row.prompt, answer if is_good else None, None if is_good else answer, shown)
    prompt, chosen, rejected = _pair(columns, mapping)
    if chosen == rejected:
        raise Unusable("chosen and rejected are equal")
    for answer in (chosen, rejected):
        check_turns((*prompt, Message(role="assistant", content=answer)))
    check_unicode([*(turn.content for turn in prompt), chosen, rejected, shown or ""])
    return make_preference(prompt, chosen, rejected, shown)


def _pair(columns: dict[str, Any], mapping: PreferenceMapping) -> tuple[tuple[Message, ...], str, str]:
    """Return prompt, chosen and rejected of one record."""
    fields = mapping.fields
    prompt = _prompt(columns, fields)
    if mapping.format == "judged":
        first, second = (_answer(columns.get(fields[name]), name) for name in ("first", "second"))
        better = columns.get(fields["label"])
        if str(better) not in ("1", "2"):
            raise Unusable("the label is not 1 or 2")
        answers = (first, second) if str(better) == "1" else (second, first)
    else:
        answers = tuple(_answer(columns.get(fields[name]), name) for name in ("chosen", "rejected"))
    (*lead, chosen), (*other, rejected) = answers
    if lead != other:
        raise Unusable("the conversations of chosen and rejected differ before their last turn")
    if lead and prompt and lead[-len(prompt) :] != list(prompt):
        raise Unusable("the conversations do not continue the prompt")
    prompt = tuple(lead) or prompt
    if not prompt:
        raise Unusable("no prompt")
    return prompt, chosen.content, rejected.content


def _prompt(columns: dict[str, Any], fields: dict[str, str]) -> tuple[Message, ...]:
    """Return the prompt's turns; none where the answers carry it."""
    used = {
        name: column
        for name, column in fields.items()
        if name in ("prompt", "messages", "system", "input", "history")
    }
    return conversation(columns, used) if "prompt" in used or "messages" in used else ()


def _answer(value: Any, name: str) -> list[Message]:
    """Return an answer as turns, of which the last is the assistant's."""
    if is_turn_list(value):
        turns = turns_of(value)
    elif isinstance(value, dict) and is_turn_list([value]):
        turns = turns_of([cast("dict[str, Any]", value)])
    else:
        turns = [Message(role="assistant", content=text_of(value, name))]
    if turns[-1].role != "assistant":
        raise Unusable(f"the last turn of {name} is not the assistant's")
    if not turns[-1].content.strip():
        raise Unusable(f"empty {name}")
    return turns


def _boolean(value: Any) -> bool:
    """Return a label of true or false in the spellings of JSON and CSV."""
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise Unusable("the label is not true or false")
    return text in _TRUE


def _counts(rows: Sequence[PreferenceRow]) -> dict[str, Any]:
    """Return the report's numbers about the rows that were kept."""
    pairs = [(row.chosen or "", row.rejected or "") for row in rows if row.is_pair]
    longer = [len(chosen) > len(rejected) for chosen, rejected in pairs if len(chosen) != len(rejected)]
    known = {(row.prompt, row.chosen, row.rejected) for row in rows}
    swapped = sum((prompt, rejected, chosen) in known for prompt, chosen, rejected in known)
    return {
        "n_rows": len(rows),
        "n_pairs": len(pairs),
        "n_good": sum(row.rejected is None for row in rows),
        "n_bad": sum(row.chosen is None for row in rows),
        "n_repeated": len(rows) - len({row.item_id for row in rows}),
        "n_contradicting": swapped // 2,
        "n_near_equal": sum(_nearly_equal(chosen, rejected) for chosen, rejected in pairs),
        "share_chosen_longer": round(sum(longer) / len(longer), 4) if longer else None,
    }


def _nearly_equal(one: str, other: str) -> bool:
    one, other = normalise(one), normalise(other)
    if one == other:
        return True
    left, right = word_grams(one), word_grams(other)
    return bool(left and right) and len(left & right) >= NEAR_EQUAL * len(left | right)


def _warnings(report: PreferenceReport) -> list[str]:
    """Return what may spoil a training on these rows, with the numbers."""
    notes: list[str] = []
    share = report.share_chosen_longer
    if share is not None and report.n_pairs >= MIN_PAIRS_FOR_BIAS:
        if share >= LENGTH_BIAS:
            notes.append(f"length bias: chosen is the longer answer in {share:.0%} of the pairs")
        elif share <= 1 - LENGTH_BIAS:
            notes.append(f"length bias: rejected is the longer answer in {1 - share:.0%} of the pairs")
    if report.n_near_equal:
        notes.append(f"{report.n_near_equal} pairs of nearly equal answers teach little")
    if report.n_contradicting:
        notes.append(f"{report.n_contradicting} judgements contradict another one")
    if report.n_good and report.n_bad:
        low, high = KTO_BALANCE
        ratio = report.n_good / report.n_bad
        if not low <= ratio <= high:
            notes.append(
                f"{report.n_good} good and {report.n_bad} bad answers: for KTO set the weights so that "
                f"desirable_weight x {report.n_good} is 1 to 1.33 times undesirable_weight x {report.n_bad}"
            )
    elif (report.n_good or report.n_bad) and not report.n_pairs:
        notes.append(f"all answers are {'good' if report.n_good else 'bad'}: there is nothing to prefer")
    return notes
