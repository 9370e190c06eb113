"""The demo's generator: the same for everyone, learnable, balanced, and flawed as promised."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.demo.base_text import base_documents, text_blocks
from rdagent_ft.demo.build import N_ITEMS, SEED
from rdagent_ft.demo.flaws import (
    CRAWL_REPEATS,
    LONG_SHARE,
    NOISE_SHARE,
    NOISY_SOURCE,
    SOURCE_SHARES,
    DemoRow,
    shuffled_labels,
    with_flaws,
)
from rdagent_ft.demo.router_phrases import ACTIONS, MODIFIERS
from rdagent_ft.demo.router_task import (
    PLAN_KEYS,
    ROUTES,
    NearDuplicateFilter,
    RouterItem,
    chance_level,
    plan_json,
    router_items,
    word_trigrams,
)


@pytest.fixture(scope="module")
def items() -> list[RouterItem]:
    return router_items(N_ITEMS, SEED)


@pytest.fixture(scope="module")
def rows(items: list[RouterItem]) -> list[DemoRow]:
    return with_flaws(items, SEED)


def jaccard(one: str, other: str) -> float:
    a, b = word_trigrams(one), word_trigrams(other)
    return len(a & b) / len(a | b)


def test_at_least_4000_distinct_requests(items: list[RouterItem]) -> None:
    assert len({" ".join(item.request.lower().split()) for item in items}) == N_ITEMS >= 4_000


def test_equal_arguments_give_equal_items_and_another_seed_gives_others() -> None:
    assert router_items(300, 3) == router_items(300, 3)
    shared = {i.request for i in router_items(300, 3)} & {i.request for i in router_items(300, 4)}
    assert len(shared) < 10


def test_routes_and_actions_are_balanced(items: list[RouterItem]) -> None:
    routes = Counter(json.loads(item.plan)["route"] for item in items)
    assert set(routes) == set(ROUTES)
    assert max(routes.values()) - min(routes.values()) <= 1
    actions = Counter(item.action for item in items)
    assert len(actions) == len(ACTIONS)
    assert max(actions.values()) - min(actions.values()) <= 1


def test_plans_are_canonical_and_follow_their_action(items: list[RouterItem]) -> None:
    actions = {action.name: action for action in ACTIONS}
    extra = {modifier.tool for modifier in MODIFIERS}
    for item in items:
        plan = json.loads(item.plan)
        assert tuple(plan) == PLAN_KEYS
        assert item.plan == plan_json(plan["route"], plan["tools"], plan["handoff"])
        action = actions[item.action]
        n_own = len(action.tools)
        assert plan["route"] == action.route
        assert tuple(plan["tools"][:n_own]) == action.tools
        assert len(plan["tools"]) <= n_own + 1
        assert set(plan["tools"][n_own:]) <= extra
        assert isinstance(plan["handoff"], bool)


def test_a_person_takes_over_in_about_a_quarter(items: list[RouterItem]) -> None:
    share = sum(json.loads(item.plan)["handoff"] for item in items) / len(items)
    assert 0.22 < share < 0.28


def test_one_fixed_answer_scores_little(items: list[RouterItem]) -> None:
    assert chance_level([item.plan for item in items]) < 0.04
    assert chance_level([]) == 0.0


def test_no_slot_is_left_open(rows: list[DemoRow]) -> None:
    assert not [row.prompt for row in rows if "{" in row.prompt or "}" in row.prompt]


def test_no_two_requests_are_near_duplicates(items: list[RouterItem]) -> None:
    grams = [word_trigrams(item.request) for item in items]
    for place in range(100):
        one = grams[place]
        assert all(len(one & other) < 0.6 * len(one | other) for other in grams[place + 1 :])


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(" ".join), max_size=12))
@settings(max_examples=200, deadline=None)
def test_the_filter_keeps_exactly_what_is_far_from_all_kept(texts: list[str]) -> None:
    near = NearDuplicateFilter(0.6)
    kept: list[str] = []
    for text in texts:
        expected = all(jaccard(text, other) < 0.6 for other in kept)
        assert near.add(text) == expected
        if expected:
            kept.append(text)


def test_items_can_be_made_apart_from_a_dataset(items: list[RouterItem]) -> None:
    requests = [item.request for item in items[:1000]]
    for item in router_items(60, 99, apart_from=requests):
        assert all(jaccard(item.request, request) < 0.6 for request in requests)


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdagent_ft.demo.router_task.MAX_JACCARD", 0.02)
    with pytest.raises(ValueError, match="no new request"):
        router_items(500, 1)


def test_flaws_have_the_stated_shares(rows: list[DemoRow]) -> None:
    distinct = {row.prompt: row for row in rows}.values()
    assert len(distinct) == N_ITEMS
    for source, share in SOURCE_SHARES.items():
        assert abs(sum(row.source == source for row in distinct) / N_ITEMS - share) < 0.02
    noisy = [row for row in distinct if row.source == NOISY_SOURCE]
    assert abs(sum(row.wrong for row in noisy) / len(noisy) - NOISE_SHARE) < 0.05
    assert 0.035 < sum(row.wrong for row in distinct) / N_ITEMS < 0.06
    assert abs(sum(row.long for row in distinct) / N_ITEMS - LONG_SHARE) < 0.004
    assert 0.06 < len(rows) / N_ITEMS - 1 < 0.15


def test_wrong_answers_come_from_the_noisy_source_only(rows: list[DemoRow], items: list[RouterItem]) -> None:
    plans = {item.request: item.plan for item in items}
    for row in rows:
        right = row.completion == plans[row.prompt.split("\n")[0]]
        assert right != row.wrong
        assert row.source == NOISY_SOURCE or right


def test_copies_are_exact_and_mostly_of_the_noisy_source(rows: list[DemoRow]) -> None:
    counts = Counter(row.prompt for row in rows)
    copied = [row for row in rows if counts[row.prompt] > 1]
    assert len({(row.prompt, row.completion, row.source) for row in rows}) == N_ITEMS
    assert sum(row.source == NOISY_SOURCE for row in copied) > len(copied) / 2
    assert max(counts.values()) == CRAWL_REPEATS[1] + 1


def test_over_long_rows_are_several_times_longer(rows: list[DemoRow]) -> None:
    short = sorted(len(row.prompt) for row in rows if not row.long)
    assert min(len(row.prompt) for row in rows if row.long) > 2 * short[-1]


def test_nearly_all_answers_are_json(rows: list[DemoRow]) -> None:
    def parses(text: str) -> bool:
        try:
            return isinstance(json.loads(text), dict)
        except json.JSONDecodeError:
            return False

    bad = [row for row in rows if not parses(row.completion)]
    assert 0 < len(bad) < 0.01 * len(rows)
    assert all(row.wrong for row in bad)


def test_shuffling_keeps_the_answers_and_breaks_the_link(items: list[RouterItem]) -> None:
    shuffled = shuffled_labels(items, SEED)
    assert Counter(i.plan for i in shuffled) == Counter(i.plan for i in items)
    assert [i.request for i in shuffled] == [i.request for i in items]
    same = sum(a.plan == b.plan for a, b in zip(items, shuffled, strict=True))
    assert same < 0.04 * len(items)


def test_base_text_never_shows_a_plan() -> None:
    documents = base_documents(3_000, 1)
    assert documents == base_documents(3_000, 1)
    for document in documents:
        for line in document.splitlines():
            if line.startswith("{"):
                assert len(set(PLAN_KEYS) & set(json.loads(line))) <= 1
    assert "\n\n".join(documents) == "\n\n".join(text_blocks(3_000, 1))


def test_base_text_never_puts_an_answer_after_a_request() -> None:
    for document in base_documents(3_000, 2):
        lines = document.splitlines()
        assert len(lines) == 1 or not any(line.startswith("{") for line in lines)
