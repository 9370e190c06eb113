"""The run's preference dataset: found, read and cleaned of evaluation items before a run begins.

Preference pairs are training data like any other: a pair whose prompt with either answer repeats an item
on which a score of the run rests is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rdagent_ft.data.contamination import held_out_copies, item_of
from rdagent_ft.data.preferences import PreferenceRow, read_preferences
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import DatasetSource, Message, Row, SplitName, make_row
from rdagent_ft.engine.steps.held_out import HELD_OUT
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.benchmarks import compared_item
from rdagent_ft.settings import Settings


class Preferences(NamedTuple):
    """The pairs that may be trained on, where they came from, and lines for the user."""

    source: DatasetSource
    rows: list[PreferenceRow]
    n_copies: int
    notes: tuple[str, ...]


def gather_preferences(
    name: str, settings: Settings, splits: Mapping[SplitName, Sequence[Row]],
    benchmarks: Mapping[str, Sequence[Row]],
) -> Preferences:  # fmt: skip
    """Return the pairs of the dataset that `name` means, without copies of evaluation items.

    Raises `UserError` for an unknown name and `DataError` for a dataset without usable pairs.
    """
    source = resolve_dataset(name, settings.file_path)
    rows, report = read_preferences(source)
    items = [item_of(row, split) for split in HELD_OUT for row in splits[split]]
    items += [compared_item(row, label) for label, found in benchmarks.items() for row in found]
    answers = [_answered(row, answer) for row in rows for answer in (row.chosen, row.rejected) if answer]
    copies = held_out_copies(answers, items, splits["train"])
    kept = [
        row
        for row in rows
        if not any(
            _answered(row, answer).item_id in copies for answer in (row.chosen, row.rejected) if answer
        )
    ]
    if not kept:
        raise DataError(f"every preference row of {name!r} repeats an evaluation item")
    notes = [*report.notes]
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept):,} preference rows were left out: they repeat evaluation items")
    return Preferences(source, kept, len(rows) - len(kept), tuple(notes))


def _answered(row: PreferenceRow, answer: str) -> Row:
    return make_row((*row.prompt, Message(role="assistant", content=answer)))
