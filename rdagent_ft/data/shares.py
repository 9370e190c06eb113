"""Cut items into parts of given shares: 0.85/0.10/0.05, 0.9/0.1. Groups stay together, labels are spread.

For data that leaves the program (`rdagent-ft data prepare`, `data split`); the splits of a run are made by
`split.py`, whose test split is sealed. The order of a file does not matter. Reads and writes no files.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from rdagent_ft.data.split import MAX_GROUP_SHARE
from rdagent_ft.errors import UserError

PartName = Literal["train", "validation", "test"]
PART_NAMES: tuple[PartName, ...] = ("train", "validation", "test")


class Item(NamedTuple):
    """One thing to place. Items with the same `key` are copies; `stratum` is what is spread, e.g. a label."""

    key: str
    group: int
    stratum: str = ""


class _Group(NamedTuple):
    order: str
    indices: tuple[int, ...]


def parse_shares(text: str) -> dict[PartName, Fraction]:
    """Return part -> share of `0.85/0.10/0.05` (train, validation, test) or `0.9/0.1` (train, validation).

    Raises `UserError` unless there are two or three numbers above 0 whose sum is 1.
    """
    try:
        shares = [Fraction(part.strip()) for part in text.split("/")]
    except (ValueError, ZeroDivisionError):
        shares = []
    if len(shares) not in (2, 3) or min(shares) <= 0 or sum(shares) != 1:
        raise UserError(
            f"--split {text!r} is not two or three shares that add up to 1",
            hint="0.85/0.10/0.05 is train, validation and test; 0.9/0.1 is train and validation",
        )
    return dict(zip(PART_NAMES, shares, strict=False))


def assign_parts(items: Sequence[Item], shares: Mapping[PartName, Fraction], *, seed: int) -> list[PartName]:
    """Return the part of every item, in order.

    Sizes: every part but train has the whole number of items at or below its share; train has the rest.
    A part may come out smaller where groups do not fit. Within a stratum the groups are taken in the order
    of a hash of seed and smallest key, so each stratum has its share in every part, rounded by largest
    remainders. A group with more than 5 % of the items trains, as in `split.py`.
    """
    parts: list[PartName] = ["train"] * len(items)
    limit = max(1, math.floor(MAX_GROUP_SHARE * len(items)))
    strata = _strata(items, seed)
    sizes = {name: sum(len(group.indices) for group in groups) for name, groups in strata.items()}
    placed: set[int] = set()
    for part, share in shares.items():
        if part == "train":
            continue
        total = math.floor(share * len(items))
        quotas = _quotas(sizes, share, total)
        missing = total
        # First each stratum its quota, then what did not fit from anywhere.
        for bound in (quotas, dict.fromkeys(strata, total)):
            for name, groups in strata.items():
                open_ = min(bound[name], missing)
                for group in groups:
                    n_items = len(group.indices)
                    if n_items > min(open_, limit) or group.indices[0] in placed:
                        continue
                    for index in group.indices:
                        parts[index] = part
                    placed.add(group.indices[0])
                    open_ -= n_items
                    missing -= n_items
    return parts


def unit_order(seed: int, key: str) -> str:
    """Return a sort key that depends on seed and `key` alone: any prefix of the order is a random sample."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _strata(items: Sequence[Item], seed: int) -> dict[str, list[_Group]]:
    """Return stratum -> its groups in hash order; a group belongs to the stratum of its smallest key."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        members[item.group].append(index)
    strata: dict[str, list[_Group]] = defaultdict(list)
    for indices in members.values():
        first = min(indices, key=lambda index: (items[index].key, index))
        strata[items[first].stratum].append(_Group(unit_order(seed, items[first].key), tuple(indices)))
    return {name: sorted(strata[name]) for name in sorted(strata)}


def _quotas(sizes: Mapping[str, int], share: Fraction, total: int) -> dict[str, int]:
    """Return whole numbers near share x size whose sum is `total`, by largest remainders."""
    exact = {name: share * size for name, size in sizes.items()}
    quotas = {name: math.floor(value) for name, value in exact.items()}
    by_rest = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_rest[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas
