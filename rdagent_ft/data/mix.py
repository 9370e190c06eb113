"""Apply a recipe's data mix to the train split: leave out, deduplicate, shuffle, cap. In this order.

Pure and seeded: the same rows and mix give the same list. Tokenisation and truncation come later, in
the trainer.
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from rdagent_ft.data.near_duplicates import normalised_text
from rdagent_ft.data.rows import Row
from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.values import Frozen


class MixResult(Frozen):
    """The rows to train on, in training order, and reason -> number of rows left out."""

    rows: tuple[Row, ...]
    dropped: dict[str, int] = {}


def build_mix(
    rows: Sequence[Row], mix: DataMix, *, clusters: Mapping[str, int], n_tokens: Mapping[str, int]
) -> MixResult:
    """Return the rows that `mix` asks for.

    Args:
        rows: the train split.
        mix: what to keep.
        clusters: item_id -> near-duplicate cluster; read for `dedupe="near"` only.
        n_tokens: item_id -> prompt + completion tokens; read when `max_row_tokens` is set.

    Raises `RecipeError` for a source that no row has, and when nothing is left.
    """
    _check_sources(rows, mix)
    dropped: Counter[str] = Counter()
    kept: list[Row] = []
    seen: set[str | int] = set()
    for row in rows:
        reason = _reason_to_drop(row, mix, seen, clusters, n_tokens)
        if reason is None:
            kept.append(row)
        else:
            dropped[reason] += 1
    random.Random(mix.shuffle_seed).shuffle(kept)
    if mix.max_items is not None and len(kept) > mix.max_items:
        dropped["max_items"] = len(kept) - mix.max_items
        kept = kept[: mix.max_items]
    if not kept:
        shares = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        problem = Problem(
            "data", None, f"no row is left ({shares})", "data.empty_after_filter", "filter less"
        )
        raise RecipeError("the data mix leaves nothing to train on", problems=(problem,))
    return MixResult(rows=tuple(kept), dropped=dict(dropped))


def _reason_to_drop(
    row: Row,
    mix: DataMix,
    seen: set[str | int],
    clusters: Mapping[str, int],
    n_tokens: Mapping[str, int],
) -> str | None:
    """Return why the row is left out, or None; remembers in `seen` what the next rows may repeat.

    Length comes before deduplication, so that an over-long row never stands for its group.
    """
    if row.source is not None and row.source in mix.exclude_sources:
        return f"source {row.source}"
    if mix.max_row_tokens is not None and n_tokens[row.item_id] > mix.max_row_tokens:
        return "max_row_tokens"
    if mix.dedupe == "none":
        return None
    key = clusters[row.item_id] if mix.dedupe == "near" else normalised_text(row)
    if key in seen:
        return f"{mix.dedupe} duplicate"
    seen.add(key)
    return None


def _check_sources(rows: Sequence[Row], mix: DataMix) -> None:
    known = sorted({row.source for row in rows if row.source is not None})
    problems: list[Problem] = []
    for name in mix.exclude_sources:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = (
                f"did you mean {near[0]!r}?" if near else f"known sources: {', '.join(known[:20]) or 'none'}"
            )
            rule = "no row has this source"
            problems.append(Problem("data.exclude_sources", name, rule, "data.unknown_source", fix))
    if problems:
        raise RecipeError(
            f"unknown data source; the dataset has {', '.join(known[:20]) or 'no sources'}",
            problems=tuple(problems),
        )
