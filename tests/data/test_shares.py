"""Parts of given shares: exact sizes, groups in one place, labels spread, order of the file irrelevant."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.data.shares import Item, assign_parts, parse_shares
from rdagent_ft.errors import UserError

THREE = parse_shares("0.85/0.10/0.05")


def test_the_router_dataset_has_its_published_sizes() -> None:
    items = [Item(f"row {number}", number) for number in range(8_189)]
    assert Counter(assign_parts(items, THREE, seed=42)) == {"train": 6_962, "validation": 818, "test": 409}


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc")), min_size=20, max_size=80),
    seed=st.integers(0, 5),
)
def test_groups_stay_together_and_no_part_is_too_large(groups: list[tuple[int, str]], seed: int) -> None:
    items = [
        Item(f"{number}.{copy}", number, label)
        for number, (size, label) in enumerate(groups)
        for copy in range(size)
    ]
    parts = assign_parts(items, THREE, seed=seed)
    of_group: dict[int, set[str]] = {}
    for item, part in zip(items, parts, strict=True):
        of_group.setdefault(item.group, set()).add(part)
    assert all(len(found) == 1 for found in of_group.values())
    sizes = Counter(parts)
    assert sizes["validation"] <= 0.10 * len(items)
    assert sizes["test"] <= 0.05 * len(items)
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    again = assign_parts([items[at] for at in order], THREE, seed=seed)
    assert [parts[at] for at in order] == again


def test_labels_have_their_share_in_every_part() -> None:
    items = [Item(str(number), number, "rare" if number % 10 == 0 else "common") for number in range(2_000)]
    parts = assign_parts(items, THREE, seed=1)
    counts = Counter((part, item.stratum) for part, item in zip(parts, items, strict=True))
    assert (counts["validation", "rare"], counts["test", "rare"]) == (20, 10)
    assert parts != assign_parts(items, THREE, seed=2)


def test_a_group_that_would_fill_a_part_trains() -> None:
    items = [Item(str(number), 0 if number < 30 else number) for number in range(200)]
    for seed in range(10):
        assert set(assign_parts(items, parse_shares("0.5/0.5"), seed=seed)[:30]) == {"train"}


@pytest.mark.parametrize(
    "text", ["", "1", "0.9", "0.9/0.2", "1/0", "0.5/0.3/0.1/0.1", "a/b", "0.9/-0.1/0.2", "1/0/0"]
)
def test_shares_must_add_up(text: str) -> None:
    with pytest.raises(UserError, match="not two or three shares"):
        parse_shares(text)


def test_shares_are_exact() -> None:
    assert list(parse_shares("0.7/0.2/0.1")) == ["train", "validation", "test"]
    assert list(parse_shares(" 0.9 / 0.1 ")) == ["train", "validation"]
