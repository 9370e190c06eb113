"""Cut a dataset into train, dev, val and test: by content, never by position.

A group of near-duplicates goes to one split as a whole, chosen by a hash of its smallest item id and
the seed. So the order of a file does not matter, and rows that are added later do not move the others
(as long as no bound is hit and there are 400 items). Reads and writes no files.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rdagent_ft.data.rows import Row, SplitName
from rdagent_ft.errors import DataError

# Shares of the distinct items. The remaining 65 % train.
SHARES: dict[SplitName, float] = {"test": 0.15, "val": 0.15, "dev": 0.05}
MIN_ITEMS = 20
MIN_TRAIN_ITEMS = 20
# A larger group would dominate an evaluation split with items that are not independent: it trains.
MAX_GROUP_SHARE = 0.05


class _Group(NamedTuple):
    """One cluster: its place in [0, 1) and the ids of its distinct items."""

    place: float
    item_ids: tuple[str, ...]


def split_rows(
    rows: Iterable[Row],
    clusters: Mapping[str, int],
    *,
    seed: int,
    dev_items: int,
    val_items: int,
    test_items: int,
) -> dict[SplitName, list[Row]]:
    """Return the four splits. Evaluation splits hold each item once; train keeps repeats.

    Args:
        rows: all rows of the dataset.
        clusters: item_id -> cluster number, from `near_duplicate_clusters`.
        seed: changes which clusters go where.
        dev_items, val_items, test_items: upper bounds; clusters beyond a bound train.

    Within a split, rows are ordered by a hash, so any prefix is a random sample. Raises `DataError`
    that says how many rows are needed when a split would have fewer than 20 items.
    """
    by_item: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_item[row.item_id].append(row)
    groups = _groups(by_item, clusters, seed)
    given: dict[SplitName, int] = {"test": test_items, "val": val_items, "dev": dev_items}
    bounds = _bounds(given, n_items=len(by_item))
    chosen = _assign(groups, bounds, n_items=len(by_item))
    _top_up(groups, chosen, bounds, n_items=len(by_item))
    _check_sizes(chosen, n_items=len(by_item), n_groups=len(groups))
    held_out: dict[str, SplitName] = {
        item_id: name for name, taken in chosen.items() for group in taken for item_id in group.item_ids
    }
    splits: dict[SplitName, list[Row]] = {"train": [], "dev": [], "val": [], "test": []}
    for item_id in sorted(by_item, key=lambda item_id: (_unit_hash(f"{seed}:order:{item_id}"), item_id)):
        copies = sorted(by_item[item_id], key=lambda row: row.source or "")
        name: SplitName = held_out.get(item_id, "train")
        splits[name] += copies if name == "train" else copies[:1]
    return splits


def _groups(item_ids: Iterable[str], clusters: Mapping[str, int], seed: int) -> list[_Group]:
    """Return all clusters, ordered by their place in [0, 1)."""
    members: dict[int, list[str]] = defaultdict(list)
    for item_id in item_ids:
        members[clusters[item_id]].append(item_id)
    groups = [_Group(_unit_hash(f"{seed}:{min(ids)}"), tuple(sorted(ids))) for ids in members.values()]
    return sorted(groups)


def _bounds(given: dict[SplitName, int], n_items: int) -> dict[SplitName, int]:
    """Return the upper bounds; below 400 items the shares are bounds too, so that enough rows train.

    400 items is where the smallest share reaches the minimum by itself.
    """
    if n_items * min(SHARES.values()) >= MIN_ITEMS:
        return given
    return {
        name: min(given[name], max(MIN_ITEMS, math.ceil(share * n_items))) for name, share in SHARES.items()
    }


def _assign(
    groups: list[_Group], bounds: dict[SplitName, int], n_items: int
) -> dict[SplitName, list[_Group]]:
    """Give each split the groups in its interval of [0, 1), up to its bound."""
    chosen: dict[SplitName, list[_Group]] = {name: [] for name in SHARES}
    sizes = dict.fromkeys(SHARES, 0)
    for group in groups:
        name = _split_at(group.place)
        if name is None or _is_too_large(group, n_items):
            continue
        if sizes[name] + len(group.item_ids) <= bounds[name]:
            chosen[name].append(group)
            sizes[name] += len(group.item_ids)
    return chosen


def _split_at(place: float) -> SplitName | None:
    """Return the evaluation split whose interval holds `place`; None is train."""
    start = 0.0
    for name, share in SHARES.items():
        start += share
        if place < start:
            return name
    return None


def _is_too_large(group: _Group, n_items: int) -> bool:
    return len(group.item_ids) > max(1, math.floor(MAX_GROUP_SHARE * n_items))


def _top_up(
    groups: list[_Group], chosen: dict[SplitName, list[_Group]], bounds: dict[SplitName, int], n_items: int
) -> None:
    """Move groups from train into splits below the minimum, from the far end of the hash order.

    Only a small dataset needs it (5 % of 400 rows are 20 dev items). Train keeps at least half.
    """
    taken = {group.item_ids for part in chosen.values() for group in part}
    spare = [group for group in groups if group.item_ids not in taken and not _is_too_large(group, n_items)]
    n_train = n_items - sum(len(ids) for ids in taken)
    for name in SHARES:
        size = sum(len(group.item_ids) for group in chosen[name])
        while size < MIN_ITEMS and spare:
            group = spare.pop()
            n_group = len(group.item_ids)
            if size + n_group > bounds[name] or n_train - n_group < n_items / 2:
                continue
            chosen[name].append(group)
            size += n_group
            n_train -= n_group


def _check_sizes(chosen: dict[SplitName, list[_Group]], n_items: int, n_groups: int) -> None:
    sizes = {name: sum(len(group.item_ids) for group in part) for name, part in chosen.items()}
    n_train = n_items - sum(sizes.values())
    small = [f"{name} {size}" for name, size in sizes.items() if size < MIN_ITEMS]
    if n_train < MIN_TRAIN_ITEMS:
        small.append(f"train {n_train}")
    if small:
        needed = 2 * len(SHARES) * MIN_ITEMS
        raise DataError(
            f"too few rows to train and to judge: {n_items} distinct items in {n_groups} groups of "
            f"near-duplicates give {', '.join(small)} (at least {MIN_ITEMS} each)",
            hint=f"about {needed} rows that differ are needed; {2 * needed} or more give useful intervals",
        )


def _unit_hash(text: str) -> float:
    """Return a number in [0, 1) that depends on `text` alone: 53 bits of its SHA-256."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53
