"""Apply a recipe's data mix to the train split. In this order: select, think, length, deduplicate, weigh,
shuffle, cap.

Pure and seeded: the same rows and mix give the same list. Every row that is left out, changed or repeated
is counted with its reason. Tokenisation and truncation come later, in the trainer.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rdagent_ft.data.near_duplicates import normalised_text
from rdagent_ft.data.rows import Row
from rdagent_ft.data.select import select_rows
from rdagent_ft.data.think import think_rows
from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.values import Frozen

Measure = Callable[[Sequence[Row]], Mapping[str, int]]
"""Rows -> item_id -> number. Called once and only when the mix needs it, with the rows as they are then."""


class MixResult(Frozen):
    """The rows to train on, in training order, and how they came about.

    `dropped` names rows left out, `changed` rows with another answer, `repeated` copies that weights added:
    rows out = rows in - dropped + repeated.
    """

    rows: tuple[Row, ...]
    dropped: dict[str, int] = {}
    changed: dict[str, int] = {}
    repeated: dict[str, int] = {}


def build_mix(rows: Sequence[Row], mix: DataMix, *, clusters: Measure, n_tokens: Measure) -> MixResult:
    """Return the rows that `mix` asks for. Its script and its teacher have done their work before.

    Args:
        rows: the train split.
        mix: what to keep.
        clusters: near-duplicate cluster of each row; asked for `dedupe="near"`.
        n_tokens: prompt + completion tokens of each row; asked when `max_row_tokens` is set.

    Raises `RecipeError` for a source or column that no row has, and when nothing is left.
    """
    selected = select_rows(rows, mix)
    thought = think_rows(selected.rows, mix)
    dropped, repeated = Counter(selected.dropped) + Counter(thought.dropped), Counter[str]()
    kept = _short_enough(thought.rows, mix, n_tokens, dropped)
    kept = _deduplicated(kept, mix, clusters, dropped)
    kept = _weighted(kept, mix, dropped, repeated)
    random.Random(mix.shuffle_seed).shuffle(kept)
    kept = _capped(kept, mix, dropped)
    if mix.max_items is not None and len(kept) > mix.max_items:
        dropped["max_items"] = len(kept) - mix.max_items
        kept = kept[: mix.max_items]
    if not kept:
        shares = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        problem = Problem(
            "data", None, f"no row is left ({shares})", "data.empty_after_filter", "filter less"
        )
        raise RecipeError("the data mix leaves nothing to train on", problems=(problem,))
    return MixResult(
        rows=tuple(kept), dropped=dict(dropped), changed=thought.changed, repeated=dict(repeated)
    )


def _short_enough(rows: list[Row], mix: DataMix, n_tokens: Measure, dropped: Counter[str]) -> list[Row]:
    """Leave out over-long rows, before deduplication, so that none of them stands for its group."""
    if mix.max_row_tokens is None:
        return rows
    lengths = n_tokens(rows)
    kept = [row for row in rows if lengths[row.item_id] <= mix.max_row_tokens]
    _count(dropped, "max_row_tokens", len(rows) - len(kept))
    return kept


def _deduplicated(rows: list[Row], mix: DataMix, clusters: Measure, dropped: Counter[str]) -> list[Row]:
    if mix.dedupe == "none":
        return rows
    groups = clusters(rows) if mix.dedupe == "near" else None
    first: dict[str | int, Row] = {}
    for row in rows:
        first.setdefault(normalised_text(row) if groups is None else groups[row.item_id], row)
    _count(dropped, f"{mix.dedupe} duplicate", len(rows) - len(first))
    return list(first.values())


def _weighted(rows: list[Row], mix: DataMix, dropped: Counter[str], repeated: Counter[str]) -> list[Row]:
    """Repeat or thin out the rows of weighted sources.

    Of n rows with weight w, n * w are used, rounded and at least one: every row as often as w has whole
    parts, and for the rest rows that the seed draws, no row twice.
    """
    if mix.source_weights is None:
        return rows
    times: dict[int, int] = {}
    for entry in mix.source_weights:
        places = [place for place, row in enumerate(rows) if row.source == entry.source]
        if not places:
            continue
        wanted = max(1, math.floor(len(places) * entry.weight + 0.5))
        whole, rest = divmod(wanted, len(places))
        draw = random.Random(f"{mix.shuffle_seed}:{entry.source}")
        drawn = set(draw.sample(places, rest))
        times |= {place: whole + (place in drawn) for place in places}
        _count(dropped, f"weight of source {entry.source}", len(places) - wanted)
        _count(repeated, f"weight of source {entry.source}", wanted - len(places))
    return [row for place, row in enumerate(rows) for _ in range(times.get(place, 1))]


def _capped(rows: list[Row], mix: DataMix, dropped: Counter[str]) -> list[Row]:
    """Leave out what comes after the cap of a source in the shuffled order."""
    left = {entry.source: entry.max_items for entry in mix.source_caps or ()}
    kept: list[Row] = []
    for row in rows:
        if row.source in left:
            left[row.source] -= 1
            if left[row.source] < 0:
                dropped[f"cap of source {row.source}"] += 1
                continue
        kept.append(row)
    return kept


def _count(counts: Counter[str], reason: str, number: int) -> None:
    """Count only what happened: a reason with 0 rows is none."""
    if number > 0:
        counts[reason] += number
