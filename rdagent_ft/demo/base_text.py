"""Generated text that the demo's base model is pre-trained on. Pure and seeded.

It shares the task's words and shows JSON of other shapes, but never a route plan and never which
request belongs to which route: the base must learn language here, and the task only by tuning.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from rdagent_ft.demo.router_phrases import (
    ACTIONS,
    HANDOFF_CLAUSES,
    LOG_PARTS,
    MODIFIERS,
    OPENERS,
    PLAIN_CLAUSES,
    SLOTS,
)
from rdagent_ft.demo.router_task import ROUTES, fill

_REPLIES = ("Of course.", "Not today, sorry.", "Sure, give me a moment.", "Is that still open?", "Done.",
            "I will do it on {day}.", "Ask {name}.", "Which one do you mean?")  # fmt: skip
_REPORTS = ("{name} asked us to {core}.", "Yesterday {name} had to {core}, which took {p} hours.",
            "On {day} {team} will {core}.", "In {place} they often {core}.",
            "{name} forgot to {core} because of {topic}.")  # fmt: skip


BLOCK_CHARS = 180


def base_documents(n: int, seed: int) -> list[str]:
    """Return `n` short documents of mixed kinds, equal for equal arguments."""
    rng = random.Random(f"base-text-{seed}")
    kinds: tuple[Callable[[random.Random], str], ...] = (_report, _dialogue, _record, _sum, _letter, _log)
    weights = (30, 20, 20, 10, 15, 5)
    return [rng.choices(kinds, weights=weights)[0](rng) for _ in range(n)]


def text_blocks(n_documents: int, seed: int) -> list[str]:
    """Return the documents joined to blocks of similar length, so that little padding is trained."""
    blocks: list[str] = []
    block = ""
    for document in base_documents(n_documents, seed):
        block = f"{block}\n\n{document}" if block else document
        if len(block) >= BLOCK_CHARS:
            blocks.append(block)
            block = ""
    return blocks + [block] * bool(block)


def _core(rng: random.Random) -> str:
    core = fill(rng.choice(rng.choice(ACTIONS).cores), rng)
    if rng.random() < 0.3:
        core += " " + fill(rng.choice(rng.choice(MODIFIERS).endings), rng)
    return core


def _report(rng: random.Random) -> str:
    """Two sentences in which people do what requests ask for."""
    sentences: list[str] = []
    for _ in range(2):
        template = rng.choice(_REPORTS).replace("{core}", "\0")
        sentences.append(fill(template, rng).replace("\0", _core(rng)))
    return " ".join(sentences)


def _dialogue(rng: random.Random) -> str:
    """A request and a small reply that says nothing about its kind."""
    asker, other = rng.sample(SLOTS["name"], 2)
    request = fill(rng.choice(OPENERS), rng) + _core(rng)
    return f"{asker}: {request[0].upper()}{request[1:]}.\n{other}: {fill(rng.choice(_REPLIES), rng)}"


def _record(rng: random.Random) -> str:
    """One JSON record with the task's words as random values, in shapes that are not plans."""
    tools = sorted({tool for action in ACTIONS for tool in action.tools} | {m.tool for m in MODIFIERS})
    some = rng.sample(tools, rng.randint(0, 3))
    flag = rng.random() < 0.5
    name, place, topic = (rng.choice(SLOTS[slot]) for slot in ("name", "place", "topic"))
    shapes: tuple[dict[str, object], ...] = (
        {"name": name, "tools": some, "active": flag},
        {"city": place, "route": rng.choice(SLOTS["place"]), "stops": rng.randint(1, 9)},
        {"handoff": flag, "owner": name, "tags": rng.sample(ROUTES, 2)},
        {"agent": rng.choice(SLOTS["name"]), "topic": topic, "done": flag},
        {"label": rng.choice(ROUTES), "count": rng.randint(1, 99), "items": some},
    )
    return json.dumps(rng.choice(shapes), separators=(",", ":"))


def _sum(rng: random.Random) -> str:
    """A true sentence of arithmetic."""
    a, b = rng.randint(1, 99), rng.randint(1, 99)
    unit = rng.choice(SLOTS["unit"])
    return f"{a} {unit} and {b} {unit} are {a + b} {unit}, and {a} + {b} = {a + b}."


def _letter(rng: random.Random) -> str:
    """Clauses of both kinds beside each other, so that neither marks anything."""
    clauses = [fill(rng.choice(HANDOFF_CLAUSES + PLAIN_CLAUSES), rng) for _ in range(3)]
    return " ".join(clause[0].upper() + clause[1:] + "." for clause in clauses)


def _log(rng: random.Random) -> str:
    return "\n".join(fill(rng.choice(LOG_PARTS), rng) for _ in range(5))
