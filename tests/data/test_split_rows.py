"""Splits: disjoint, independent of order, stable under growth, bounded, and refused when too small."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.rows import SPLIT_NAMES, Message, Row, SplitName, make_row
from rdagent_ft.data.split import split_rows
from rdagent_ft.errors import DataError

BOUNDS = {"dev_items": 200, "val_items": 500, "test_items": 1000}


def some_rows(n_rows: int, start: int = 0, source: str | None = None) -> list[Row]:
    return [
        make_row(
            (Message(role="user", content=f"item {index}"), Message(role="assistant", content=f"a{index}")),
            source=source,
        )
        for index in range(start, start + n_rows)
    ]


def own_clusters(rows: list[Row]) -> dict[str, int]:
    return {item_id: number for number, item_id in enumerate(sorted({row.item_id for row in rows}))}


def place_of(splits: dict[SplitName, list[Row]]) -> dict[str, SplitName]:
    return {row.item_id: name for name in SPLIT_NAMES for row in splits[name]}


@settings(max_examples=25, deadline=None)
@given(
    n_rows=st.integers(200, 900),
    n_groups=st.integers(150, 900),
    n_repeats=st.integers(0, 100),
    seed=st.integers(0, 2**31 - 1),
)
def test_splits_are_a_partition_that_keeps_groups_together(
    n_rows: int, n_groups: int, n_repeats: int, seed: int
) -> None:
    rows = some_rows(n_rows)
    rng = random.Random(seed)
    clusters = {row.item_id: rng.randrange(n_groups) for row in rows}
    repeated = rows + rng.sample(rows, n_repeats)
    try:
        splits = split_rows(repeated, clusters, seed=seed, **BOUNDS)
    except DataError:
        return
    places: dict[int, set[SplitName]] = {}
    for name in SPLIT_NAMES:
        for row in splits[name]:
            places.setdefault(clusters[row.item_id], set()).add(name)
    assert all(len(names) == 1 for names in places.values())
    assert set(place_of(splits)) == set(clusters)
    for name in ("dev", "val", "test"):
        ids = [row.item_id for row in splits[name]]
        assert len(ids) == len(set(ids)) >= 20
        assert len(ids) <= BOUNDS[f"{name}_items"]
    n_distinct = sum(len({row.item_id for row in splits[name]}) for name in SPLIT_NAMES)
    assert n_distinct == n_rows
    n_train = sum(1 for row in repeated if place_of(splits)[row.item_id] == "train")
    assert len(splits["train"]) == n_train
    shuffled = list(repeated)
    rng.shuffle(shuffled)
    again = split_rows(shuffled, clusters, seed=seed, **BOUNDS)
    assert {name: [row.item_id for row in part] for name, part in again.items()} == {
        name: [row.item_id for row in part] for name, part in splits.items()
    }


def test_added_rows_do_not_move_the_others() -> None:
    before = some_rows(1500)
    after = before + some_rows(700, start=1500)
    first = place_of(split_rows(before, own_clusters(before), seed=7, **BOUNDS))
    second = place_of(split_rows(after, own_clusters(after), seed=7, **BOUNDS))
    assert {item_id: second[item_id] for item_id in first} == first


def test_shares_are_met_and_the_seed_changes_the_choice() -> None:
    rows = some_rows(4000)
    splits = split_rows(rows, own_clusters(rows), seed=1, dev_items=4000, val_items=4000, test_items=4000)
    sizes = {name: len(part) / 4000 for name, part in splits.items()}
    assert sizes == pytest.approx({"train": 0.65, "dev": 0.05, "val": 0.15, "test": 0.15}, abs=0.02)
    other = split_rows(rows, own_clusters(rows), seed=2, dev_items=4000, val_items=4000, test_items=4000)
    assert place_of(other) != place_of(splits)


def test_bounds_hold_and_the_surplus_trains() -> None:
    rows = some_rows(4000)
    splits = split_rows(rows, own_clusters(rows), seed=1, dev_items=20, val_items=30, test_items=40)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 3910, "dev": 20, "val": 30, "test": 40,
    }  # fmt: skip


def test_a_raised_bound_keeps_the_items_that_were_in() -> None:
    rows = some_rows(4000)
    small = split_rows(rows, own_clusters(rows), seed=1, dev_items=20, val_items=30, test_items=40)
    large = split_rows(rows, own_clusters(rows), seed=1, dev_items=50, val_items=60, test_items=80)
    for name in ("dev", "val", "test"):
        assert {row.item_id for row in small[name]} <= {row.item_id for row in large[name]}


def test_a_prefix_of_a_split_is_a_random_sample() -> None:
    rows = some_rows(4000)
    test = split_rows(rows, own_clusters(rows), seed=1, **BOUNDS)["test"]
    numbers = [int(row.prompt_text.split()[1]) for row in test]
    assert numbers != sorted(numbers)
    assert sum(numbers[:100]) / 100 == pytest.approx(2000, abs=400)


@pytest.mark.parametrize("n_rows", [120, 150, 300])
@pytest.mark.parametrize("seed", range(5))
def test_a_small_dataset_is_topped_up_to_the_minimum(seed: int, n_rows: int) -> None:
    rows = some_rows(n_rows)
    splits = split_rows(rows, own_clusters(rows), seed=seed, **BOUNDS)
    assert all(len(splits[name]) >= 20 for name in SPLIT_NAMES)
    assert len(splits["train"]) >= n_rows / 2


def test_too_few_rows_say_how_many_are_needed() -> None:
    rows = some_rows(60)
    with pytest.raises(DataError, match="60 distinct items") as caught:
        split_rows(rows, own_clusters(rows), seed=1, **BOUNDS)
    assert "about 120 rows" in caught.value.render()


def test_rows_that_are_all_alike_are_refused() -> None:
    rows = some_rows(500)
    with pytest.raises(DataError, match="in 1 groups of near-duplicates"):
        split_rows(rows, dict.fromkeys((row.item_id for row in rows), 0), seed=1, **BOUNDS)


def test_a_giant_group_trains() -> None:
    rows = some_rows(1000)
    clusters = own_clusters(rows)
    giant = {row.item_id for row in rows[:200]}
    clusters |= dict.fromkeys(giant, -1)
    for seed in range(6):
        splits = split_rows(rows, clusters, seed=seed, **BOUNDS)
        assert giant <= {row.item_id for row in splits["train"]}


def test_repeats_train_but_are_scored_once() -> None:
    rows = some_rows(600)
    copies = some_rows(600, source="web")
    splits = split_rows(rows + copies, own_clusters(rows), seed=3, **BOUNDS)
    assert len(splits["train"]) == 2 * len({row.item_id for row in splits["train"]})
    assert len(splits["test"]) == len({row.item_id for row in splits["test"]})


def test_splits_of_near_duplicates_share_no_text() -> None:
    rng = random.Random(0)
    rows: list[Row] = []
    for index in range(300):
        words = [f"w{rng.randrange(500)}" for _ in range(30)]
        for _ in range(2):
            words[rng.randrange(30)] = f"v{index}"
            turns = (
                Message(role="user", content=" ".join(words)),
                Message(role="assistant", content="yes, of course"),
            )
            rows.append(make_row(turns))
    clusters = near_duplicate_clusters(rows)
    assert len(set(clusters.values())) < 450
    places = place_of(split_rows(rows, clusters, seed=1, **BOUNDS))
    by_cluster: dict[int, set[SplitName]] = {}
    for item_id, number in clusters.items():
        by_cluster.setdefault(number, set()).add(places[item_id])
    assert all(len(names) == 1 for names in by_cluster.values())
