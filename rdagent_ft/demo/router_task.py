"""The demo's task: a user request in, one strict JSON route plan out. Pure and seeded.

In the spirit of a router agent that reads a request and names the agent, its tools and whether a
person must take over. Items are distinct and no two are near duplicates (word 3-grams), so that a
split by near-duplicate groups stays balanced. Flaws are planted elsewhere (`flaws.py`).
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable

from rdagent_ft.demo.router_phrases import (
    ACTIONS,
    HANDOFF_CLAUSES,
    MODIFIERS,
    OPENERS,
    PLAIN_CLAUSES,
    SLOTS,
    Action,
)
from rdagent_ft.values import Frozen, sha256_text

ROUTES = ("math", "code", "search", "data", "writing", "calendar", "chat")
PLAN_KEYS = ("route", "tools", "handoff")
MODIFIER_SHARE = 0.45
HANDOFF_SHARE = 0.25
PLAIN_CLAUSE_SHARE = 0.40
# Requests at or above this word-3-gram Jaccard are not both kept. Well under the 0.8 at which the
# data layer groups rows, because MinHash estimates scatter by about 0.05.
MAX_JACCARD = 0.6
_MAX_TRIES_PER_ITEM = 200


class RouterItem(Frozen):
    """One request with its plan. `plan` is the canonical JSON text that a model must answer."""

    request: str
    plan: str
    action: str


def router_items(n: int, seed: int, *, apart_from: Iterable[str] = ()) -> list[RouterItem]:
    """Return `n` distinct items, the routes balanced to within one item, actions within a route too.

    Equal arguments give equal lists. No item is a near duplicate of another or of a request in
    `apart_from`. Raises `ValueError` when the phrases cannot make `n` items that differ enough.
    """
    rng = random.Random(f"router-{seed}")
    by_route = {route: [a for a in ACTIONS if a.route == route] for route in ROUTES}
    kept = NearDuplicateFilter(MAX_JACCARD)
    for request in apart_from:
        kept.add(request)
    items: list[RouterItem] = []
    for index in range(n):
        route_actions = by_route[ROUTES[index % len(ROUTES)]]
        action = route_actions[index // len(ROUTES) % len(route_actions)]
        for _ in range(_MAX_TRIES_PER_ITEM):
            item = _one_item(action, rng)
            if kept.add(item.request):
                items.append(item)
                break
        else:
            raise ValueError(f"no new request found for action {action.name!r} after {len(items)} items")
    rng.shuffle(items)
    return items


def plan_json(route: str, tools: Iterable[str], handoff: bool) -> str:
    """Return the plan as strict JSON in the task's key order, without spaces."""
    plan = {"route": route, "tools": list(tools), "handoff": handoff}
    return json.dumps(plan, separators=(",", ":"))


def chance_level(plans: list[str]) -> float:
    """Return the share of the commonest plan: what always giving one answer would score."""
    return max(Counter(plans).values()) / len(plans) if plans else 0.0


def fill(template: str, rng: random.Random) -> str:
    """Return `template` with every slot filled at random.

    Numeric slots: n is 21..980, m 11..95, p 2..10, year 1950..2025. `var` is one letter throughout;
    `lang2` differs from `lang`.
    """
    variable = rng.choice(SLOTS["var"])
    languages = rng.sample(SLOTS["lang"], 2)

    def value(match: re.Match[str]) -> str:
        slot = match.group(1)
        if slot in _NUMBERS:
            return str(rng.randint(*_NUMBERS[slot]))
        fixed = {"var": variable, "lang": languages[0], "lang2": languages[1]}
        return fixed[slot] if slot in fixed else rng.choice(SLOTS[slot])

    return _SLOT.sub(value, template)


_SLOT = re.compile(r"\{([a-z0-9]+)\}")
_NUMBERS = {"n": (21, 980), "m": (11, 95), "p": (2, 10), "year": (1950, 2025)}


def _one_item(action: Action, rng: random.Random) -> RouterItem:
    """Return a random item of one action: opener, core, wish at the end, clause before or after."""
    tools = list(action.tools)
    core = fill(rng.choice(action.cores), rng)
    if rng.random() < MODIFIER_SHARE:
        modifier = rng.choice(MODIFIERS)
        tools.append(modifier.tool)
        core = f"{core} {fill(rng.choice(modifier.endings), rng)}"
    request = fill(rng.choice(OPENERS), rng) + core
    draw = rng.random()
    handoff = draw < HANDOFF_SHARE
    if handoff or draw < HANDOFF_SHARE + PLAIN_CLAUSE_SHARE:
        clause = fill(rng.choice(HANDOFF_CLAUSES if handoff else PLAIN_CLAUSES), rng)
        first, second = (request, clause) if rng.random() < 0.6 else (clause, request)
        request = f"{_capital(first)}. {_capital(second)}"
    request = _capital(request) + "."
    if rng.random() < 0.15:
        request = request.lower().rstrip(".")
    return RouterItem(request=request, plan=plan_json(action.route, tools, handoff), action=action.name)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def word_trigrams(text: str) -> frozenset[str]:
    """Return the set of word 3-grams of the lower-cased text; a shorter text is its own gram."""
    words = re.findall(r"[^\W_]+", text.lower())
    if len(words) < 3:
        return frozenset({" ".join(words)})
    return frozenset(" ".join(words[i : i + 3]) for i in range(len(words) - 2))


class NearDuplicateFilter:
    """Keeps texts whose word-3-gram Jaccard to every kept one is under a threshold. Exact.

    Prefix filter: two sets of Jaccard >= t share a gram among the first n - ceil(t n) + 1 of either
    in any fixed order, so only those prefixes are looked up (the order here is by hash).
    Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins" (ICDE 2006).
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._grams: list[frozenset[str]] = []
        self._by_prefix_gram: dict[str, list[int]] = {}

    def add(self, text: str) -> bool:
        """Keep `text` and return True, or return False when a kept one is too near."""
        grams = word_trigrams(text)
        ordered = sorted(grams, key=sha256_text)
        prefix = ordered[: len(ordered) - math.ceil(self._threshold * len(ordered)) + 1]
        near = {index for gram in prefix for index in self._by_prefix_gram.get(gram, ())}
        for index in near:
            shared = len(grams & self._grams[index])
            if shared >= self._threshold * (len(grams) + len(self._grams[index]) - shared):
                return False
        for gram in prefix:
            self._by_prefix_gram.setdefault(gram, []).append(len(self._grams))
        self._grams.append(grams)
        return True
