"""Base and tuned treated alike: the same order of questions, the same choice of items, the same losses.

A verdict that one side lacks is taken from the other side too; else the side whose hard items fell out
would look better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.values import sha256_text

T = TypeVar("T")
OTHER_SIDE = "judge: the other side has no verdict"


def item_rank(item_id: str, seed: int) -> str:
    """Return a text that orders items at random, but always in the same way for a seed."""
    return sha256_text(f"{seed}\n{item_id}")


def question_of(questions: Mapping[str, str], item_id: str) -> str:
    """Return the text of an item's question. Raises `JobError` when the caller left it out."""
    text = questions.get(item_id)
    if text is None:
        raise JobError(f"the judge was given no question text for item {item_id}")
    return text


def interleaved(*sides: Sequence[T]) -> list[T]:
    """Return base 0, tuned 0, base 1, tuned 1, …: what ends early ends for both sides at one place."""
    missing = object()
    return [x for x in chain.from_iterable(zip_longest(*sides, fillvalue=missing)) if x is not missing]  # pyright: ignore[reportReturnType]


def without_half_pairs(
    base: Sequence[SampleRow], tuned: Sequence[SampleRow]
) -> tuple[tuple[SampleRow, ...], tuple[SampleRow, ...], int]:
    """Return both sides with a row unscored where the other one's is, and how many rows lost their score."""
    left_without = {(row.item_id, row.repeat) for row in base if row.score is None}
    right_without = {(row.item_id, row.repeat) for row in tuned if row.score is None}
    new_base = tuple(_unscored_in(row, right_without) for row in base)
    new_tuned = tuple(_unscored_in(row, left_without) for row in tuned)
    return new_base, new_tuned, len(left_without ^ right_without)


def _unscored_in(row: SampleRow, keys: set[tuple[str, int]]) -> SampleRow:
    if row.score is None or (row.item_id, row.repeat) not in keys:
        return row
    return row.model_copy(update={"score": None, "unscored_reason": OTHER_SIDE, "parts": {}})
