"""Near-duplicate groups: what joins, what does not, and that order and number formats do not matter."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.rows import Message, Row, make_row

RowMaker = Callable[..., Row]
WORDS = [f"word{index}" for index in range(50)]


def one(prompt: str, completion: str) -> Row:
    return make_row((Message(role="user", content=prompt), Message(role="assistant", content=completion)))


def together(left: Row, right: Row) -> bool:
    clusters = near_duplicate_clusters([left, right])
    return clusters[left.item_id] == clusters[right.item_id]


def test_case_and_spaces_do_not_separate() -> None:
    assert together(one("Hello  there", "A b"), one("hello there\n", "a B "))


def test_digits_separate_short_rows() -> None:
    assert not together(one("2 + 2", "4"), one("2 + 3", "5"))


def test_one_changed_word_in_a_long_row_joins_but_a_rewritten_half_does_not() -> None:
    words = WORDS[:40]
    base = one(" ".join(words), "yes")
    changed = one(" ".join([*words[:20], "other", *words[21:]]), "yes")
    half = one(" ".join([*words[:20], *(word[::-1] for word in words[20:])]), "yes")
    assert together(base, changed)
    assert not together(base, half)


def test_scripts_without_spaces_are_compared_by_character() -> None:
    text = "请把这份报告在明天早上九点之前发送给财务部门的同事并抄送给我"
    assert together(one(text, "好的"), one(text.replace("九", "八"), "好的"))


def test_the_same_prompt_with_another_answer_stays_together() -> None:
    assert together(one("What is 2 + 2?", "four"), one("what is 2 + 2?", "5"))


def test_a_prompt_common_to_the_dataset_joins_nothing() -> None:
    rows = [one("Write a line.", f"line number {index} {WORDS[index % 50]}") for index in range(100)]
    assert len(set(near_duplicate_clusters(rows).values())) == 100


def test_chains_join_as_a_whole() -> None:
    words = list(WORDS[:45])
    rows: list[Row] = []
    for step in range(6):
        words[step * 7] = f"new{step}"
        rows.append(one(" ".join(words), "yes"))
    assert not together(rows[0], rows[-1])
    assert len(set(near_duplicate_clusters(rows).values())) == 1


def test_numbers_start_at_zero_and_follow_the_smallest_item_id() -> None:
    rows = [one(f"prompt {index}", f"answer {index}") for index in range(20)]
    clusters = near_duplicate_clusters([*rows, *rows])
    assert [clusters[item_id] for item_id in sorted(clusters)] == list(range(20))
    assert near_duplicate_clusters([]) == {}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        near_duplicate_clusters([], threshold=threshold)


def jaccard(left: Row, right: Row) -> float:
    sets: list[set[tuple[str, ...]]] = []
    for row in (left, right):
        words = f"{row.prompt_text} {row.completion}".lower().split()
        sets.append({tuple(words[start : start + 3]) for start in range(len(words) - 2)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n_changed=st.integers(0, 8), n_rows=st.integers(2, 40))
def test_pairs_well_above_the_threshold_join_and_groups_hold_only_linked_rows(
    seed: int, n_changed: int, n_rows: int
) -> None:
    rng = random.Random(seed)
    rows: list[Row] = []
    base = [rng.choice(WORDS) for _ in range(60)]
    for _ in range(n_rows):
        words = list(base) if rng.random() < 0.7 else [rng.choice(WORDS) for _ in range(60)]
        for _ in range(n_changed):
            words[rng.randrange(60)] = rng.choice(WORDS)
        rows.append(one(" ".join(words), "done"))
    clusters = near_duplicate_clusters(rows)
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert near_duplicate_clusters(shuffled) == clusters
    linked: dict[str, bool] = {}
    for left, right in itertools.combinations({row.item_id: row for row in rows}.values(), 2):
        similarity = jaccard(left, right)
        same = clusters[left.item_id] == clusters[right.item_id]
        assert same or similarity < 0.9
        for row in (left, right):
            linked[row.item_id] = linked.get(row.item_id, False) or (same and similarity >= 0.8)
    sizes = list(clusters.values())
    assert all(linked.get(item_id, False) for item_id, n in clusters.items() if sizes.count(n) > 1)
