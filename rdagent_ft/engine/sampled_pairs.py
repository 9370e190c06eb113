"""Preference rows from a model's own scored samples of training prompts.

Right and wrong are told apart by the task's scorer, so no judge and no person is asked. Samples that
could not be scored are left out, never counted as wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rdagent_ft.data.preferences import PreferenceRow, make_preference
from rdagent_ft.data.rows import Row
from rdagent_ft.evaluation.rows import SampleRow

RIGHT = 1.0
"""The score from which on a sample counts as right; what lies between 0 and 1 is neither."""


class Samples(NamedTuple):
    """One prompt's distinct samples, in the order in which they were drawn."""

    right: tuple[str, ...]
    wrong: tuple[str, ...]


def split_samples(samples: Iterable[SampleRow]) -> dict[str, Samples]:
    """Return item id -> its right and wrong samples; what was cut off at the length limit is wrong."""
    right: dict[str, dict[str, None]] = defaultdict(dict)
    wrong: dict[str, dict[str, None]] = defaultdict(dict)
    for sample in sorted(samples, key=lambda row: (row.item_id, row.repeat)):
        if sample.score is None or not sample.prediction.strip():
            continue
        if sample.score >= RIGHT:
            right[sample.item_id][sample.prediction] = None
        elif sample.score == 0.0:
            wrong[sample.item_id][sample.prediction] = None
    ids = dict.fromkeys((*right, *wrong))
    return {item: Samples(tuple(right[item]), tuple(wrong[item])) for item in ids}


def pairs_from_samples(rows: Sequence[Row], samples: Iterable[SampleRow]) -> list[PreferenceRow]:
    """Return pairs of a right and a wrong answer to one prompt, in the order of `rows`.

    Each wrong sample is paired once: with a right sample of the same prompt, taken in turn, or with the
    gold answer where none is right. A prompt whose samples are all right gives nothing to learn.
    """
    found = split_samples(samples)
    pairs: list[PreferenceRow] = []
    for row in _distinct(rows):
        mine = found.get(row.item_id)
        if mine is None:
            continue
        chosen = mine.right or (row.completion,)
        for place, wrong in enumerate(mine.wrong):
            good = chosen[place % len(chosen)]
            if good.strip() != wrong.strip():
                pairs.append(_row(row, good, wrong))
    return pairs


def labelled_from_samples(rows: Sequence[Row], samples: Iterable[SampleRow]) -> list[PreferenceRow]:
    """Return single answers marked good or bad: the samples, and the gold answer where none is right."""
    found = split_samples(samples)
    labelled: list[PreferenceRow] = []
    for row in _distinct(rows):
        mine = found.get(row.item_id)
        if mine is None:
            continue
        labelled += [_row(row, good, None) for good in mine.right or (row.completion,)]
        labelled += [_row(row, None, wrong) for wrong in mine.wrong]
    return labelled


def _distinct(rows: Sequence[Row]) -> list[Row]:
    return list({row.item_id: row for row in rows}.values())


def _row(row: Row, chosen: str | None, rejected: str | None) -> PreferenceRow:
    return make_preference(row.prompt, chosen, rejected, source=row.source)
