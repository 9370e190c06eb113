"""Part of set-up: leave training rows out that repeat an item on which a score of the run will rest.

The split keeps whole groups of near-duplicates apart; this check finds what it cannot see: items inside
longer rows, other formatting, long common parts, and the items of reported benchmarks. Every pair is
named in `data/contamination.json`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rdagent_ft.data.contamination import Overlap, document_of, find_overlaps, item_of
from rdagent_ft.data.decontaminate import pair_of
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.near_duplicates import normalise
from rdagent_ft.data.rows import Row, SplitName
from rdagent_ft.data.split import MIN_TRAIN_ITEMS
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.benchmarks import compared_item

REPORT_NAME = "contamination.json"
"""In the run's `data` folder."""

_HELD_OUT: tuple[SplitName, ...] = ("dev", "val", "test")


class LeakCheck(NamedTuple):
    """The rows that may be trained, and the record of those that may not.

    Attributes:
        train: the train split without leaks.
        n_dropped: how many rows leaked.
        notices: one line a source of items with leaks.
        report: the document for `data/contamination.json`.
    """

    train: list[Row]
    n_dropped: int
    notices: tuple[str, ...]
    report: dict[str, Any]


def drop_leaks(
    splits: Mapping[SplitName, Sequence[Row]], benchmarks: Mapping[str, Sequence[Row]]
) -> LeakCheck:
    """Return the train split without the rows that repeat items of the other splits or of benchmarks.

    Args:
        splits: all four splits.
        benchmarks: name -> items of every other benchmark that the run reports.

    Raises `DataError` when too few rows would be left to train on.
    """
    train = list(splits["train"])
    own = _own_items(splits)
    other = [compared_item(row, name) for name, rows in benchmarks.items() for row in rows]
    documents = [document_of(row) for row in train]
    # In one dataset, templates of few rows are common: there, more than five prompts make one.
    found = [
        *((overlap, own) for overlap in find_overlaps(documents, own, max_template_share=0.0)),
        *((overlap, other) for overlap in find_overlaps(documents, other)),
    ]
    leaks = {overlap.document for overlap, _ in found if overlap.is_leak}
    if len(train) - len(leaks) < MIN_TRAIN_ITEMS:
        raise DataError(
            f"{len(leaks)} of {len(train)} training rows repeat evaluation items; too few are left",
            hint="`rdagent-ft data decontaminate` lists rows of a file that repeat benchmark items",
        )
    pairs = [(overlap, items[overlap.item]) for overlap, items in found]
    return LeakCheck(
        train=[row for number, row in enumerate(train) if number not in leaks],
        n_dropped=len(leaks),
        notices=_notices(pairs),
        report=_report(train, pairs, n_items=len(own) + len(other), n_dropped=len(leaks)),
    )


def _own_items(splits: Mapping[SplitName, Sequence[Row]]) -> list[EvalItem]:
    """Return the held-out items, but for those that ask what train asks too.

    The split lets only an instruction common to the dataset stand in two splits.
    """
    asked = {normalise(row.prompt_text) for row in splits["train"]}
    return [
        item_of(row, name)
        for name in _HELD_OUT
        for row in splits[name]
        if normalise(row.prompt_text) not in asked
    ]


def _notices(pairs: Sequence[tuple[Overlap, EvalItem]]) -> tuple[str, ...]:
    rows: dict[str, set[int]] = defaultdict(set)
    items: dict[str, set[str]] = defaultdict(set)
    for overlap, item in pairs:
        if overlap.is_leak:
            # The splits are taken together: a figure of its own would tell something about test.
            source = "dev, val or test" if item.source in _HELD_OUT else item.source
            rows[source].add(overlap.document)
            items[source].add(item.item_id)
    return tuple(
        f"{len(rows[source]):,} training rows were left out: they repeat {len(items[source]):,} items of "
        f"{source} (data/{REPORT_NAME} names them)"
        for source in rows
    )


def _report(
    train: Sequence[Row], pairs: Sequence[tuple[Overlap, EvalItem]], *, n_items: int, n_dropped: int
) -> dict[str, Any]:
    """Return every pair with its reason, and which items have a near copy in what is trained."""
    near: dict[str, set[str]] = defaultdict(set)
    leaks = {overlap.document for overlap, _ in pairs if overlap.is_leak}
    for overlap, item in pairs:
        if overlap.document not in leaks:
            near[item.source].add(item.item_id)
    shown = [
        (
            overlap,
            pair_of(overlap, train[overlap.document].item_id, document_of(train[overlap.document]), item),
        )
        for overlap, item in pairs
    ]
    return {
        "schema_version": 1,
        "n_train_rows": len(train),
        "n_items": n_items,
        "n_dropped": n_dropped,
        "reasons": dict(Counter(overlap.reason for overlap, _ in pairs)),
        "leaks": [pair.model_dump() for overlap, pair in shown if overlap.is_leak],
        "near": [pair.model_dump() for overlap, pair in shown if not overlap.is_leak],
        "near_items": {source: sorted(item_ids) for source, item_ids in near.items()},
    }
