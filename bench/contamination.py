"""The contamination check beside what a user would write instead: time, memory, and what is found.

    python -m bench.contamination [--rows N] [--items N] [--seed N] [--json]

Synthetic texts with the word frequencies of language (Zipf), so that it runs anywhere and the truth is
known: some rows leak an item in one of five ways, every row and item carries the same instruction of 20
words, and 100 rows hold 15 words of an item, which is no leak by the rule of half an item. Each method runs
in a process of its own on the same texts:

- `ours`: `rdagent_ft.data.contamination.find_overlaps`;
- `sets`: the usual script: 13-grams of the items in a set of plain Python, without those of more than five
  items; a row that holds any of them leaks. Words in lower case without punctuation;
- `minhash`: datasketch MinHash LSH over word 5-grams, threshold 0.5, 128 permutations.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from typing import Any, NamedTuple

from bench.methods import Document, command_line, new_document, run_methods, show, timed

METHODS = ("ours", "sets", "minhash")
KINDS = ("copied", "inside a longer row", "half of it", "short question", "answers sampled 20 times")
N_LEAKS_PER_KIND = 100
N_SAMPLES = 20
ROW_WORDS = 120
ITEM_WORDS = 50
INSTRUCTION = " ".join(f"always{n}" for n in range(20))


class World(NamedTuple):
    """Texts and the truth: rows that leak, by kind, with their item."""

    rows: list[str]
    items: list[str]
    leaks: dict[str, set[tuple[int, int]]]
    innocent: set[int]


def make_world(n_rows: int, n_items: int, seed: int) -> World:
    """Return rows and items. Innocent rows share 15 words with an item, or only the instruction."""
    rng = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(50_000)]
    weights = [1 / (n + 3) for n in range(len(vocabulary))]
    pool = iter(rng.choices(vocabulary, weights, k=n_rows * ROW_WORDS + n_items * ITEM_WORDS + 1_000_000))

    def text(n_words: int) -> str:
        return " ".join(next(pool) for _ in range(n_words))

    plain_items = [text(ITEM_WORDS if n % 10 else rng.randint(8, 12)) for n in range(n_items)]
    items = [f"{item}\n{INSTRUCTION}" for item in plain_items]
    rows = [f"{INSTRUCTION}\n{text(ROW_WORDS)}" for _ in range(n_rows)]
    order = rng.sample(range(n_rows), n_rows)
    long = iter(rng.sample([n for n in range(n_items) if n % 10], 5 * N_LEAKS_PER_KIND))
    short = iter(rng.sample(range(0, n_items, 10), N_LEAKS_PER_KIND))
    leaks: dict[str, set[tuple[int, int]]] = {kind: set() for kind in KINDS}
    for kind in KINDS:
        sampled = kind == KINDS[4]
        for _ in range(N_LEAKS_PER_KIND // (N_SAMPLES if sampled else 1)):
            item = next(short) if kind == KINDS[3] else next(long)
            for _ in range(N_SAMPLES if sampled else 1):
                row = order.pop()
                rows[row] = _leak(kind, plain_items[item], text)
                leaks[kind].add((row, item))
    innocent = set(order)
    for row in order[:N_LEAKS_PER_KIND]:
        shared = plain_items[next(long)].split()[:15]
        rows[row] = f"{rows[row]} {' '.join(shared)} {text(20)}"
    return World(rows, items, leaks, innocent)


def _leak(kind: str, item: str, text: Any) -> str:
    words = item.split()
    if kind == KINDS[0]:
        return ", ".join(words).upper() + "?"
    if kind == KINDS[2]:
        return f"{text(30)} {' '.join(words[:35])} {text(30)}"
    if kind == KINDS[3]:
        return f"{INSTRUCTION}\n{item.title()}?"
    return f"{text(40)} {item} {text(40)}"


def ours(world: World) -> set[int]:
    """The check of this package; only it names the items."""
    from rdagent_ft.data.contamination import find_overlaps
    from rdagent_ft.data.eval_items import EvalItem
    from rdagent_ft.data.whole_overlap import Document

    items = [EvalItem(str(n), "items", item, "") for n, item in enumerate(world.items)]
    found = find_overlaps([Document((row,), "") for row in world.rows], items)
    named = {(overlap.document, overlap.item) for overlap in found if overlap.is_leak}
    planted = set().union(*world.leaks.values())
    return {row for row, item in named if (row, item) in planted or row in world.innocent}


def sets(world: World) -> set[int]:
    """Any 13-gram shared with at most five items, in a dictionary of tuples."""
    n_items: Counter[tuple[str, ...]] = Counter()
    for item in world.items:
        words = re.findall(r"\w+", item.lower())
        n_items.update({tuple(words[at : at + 13]) for at in range(len(words) - 12)})
    known = {gram for gram, n in n_items.items() if n <= 5}
    found: set[int] = set()
    for number, row in enumerate(world.rows):
        words = re.findall(r"\w+", row.lower())
        if any(tuple(words[at : at + 13]) in known for at in range(len(words) - 12)):
            found.add(number)
    return found


def minhash(world: World) -> set[int]:
    """Similar as wholes, by MinHash LSH."""
    from datasketch import MinHash, MinHashLSH

    def signature(text: str) -> Any:
        words = re.findall(r"\w+", text.lower())
        made = MinHash(num_perm=128, seed=1)
        made.update_batch([" ".join(words[at : at + 5]).encode() for at in range(max(1, len(words) - 4))])
        return made

    index = MinHashLSH(threshold=0.5, num_perm=128)
    for number, item in enumerate(world.items):
        index.insert(number, signature(item))
    return {number for number, row in enumerate(world.rows) if index.query(signature(row))}


def run_method(method: str, n_rows: int, n_items: int, seed: int) -> Document:
    """Run one method in this process; return seconds, memory above that of the texts, what it found."""
    world = make_world(n_rows, n_items, seed)
    check = {"ours": ours, "sets": sets, "minhash": minhash}[method]
    done = timed(lambda: check(world))
    return {
        "seconds": round(done.seconds, 2),
        "extra_memory_mib": round(done.extra_memory_mib),
        "found": {
            kind: f"{len({row for row, _ in pairs} & done.found)} of {len(pairs)}"
            for kind, pairs in world.leaks.items()
        },
        "innocent_rows_flagged": len(done.found & world.innocent),
    }


def measure(n_rows: int, n_items: int, seed: int) -> Document:
    """Run all methods, one after another, each in its own process."""
    document = new_document(n_rows=n_rows, n_items=n_items, seed=seed)
    options = ("--rows", n_rows, "--items", n_items, "--seed", seed)
    run_methods(document, "bench.contamination", METHODS, *options)
    return document


def main() -> None:
    """Parse the command line and print the document."""
    arguments = command_line(__doc__, METHODS, rows=10_000, items=20_000, seed=1).parse_args()
    if arguments.method:
        print(json.dumps(run_method(arguments.method, arguments.rows, arguments.items, arguments.seed)))
        return
    document = measure(arguments.rows, arguments.items, arguments.seed)
    show(document, as_json=arguments.json, line=_line)


def _line(result: Document) -> str:
    found = ", ".join(f"{kind} {found}" for kind, found in result["found"].items())
    costs = f"{result['seconds']} s, {result['extra_memory_mib']} MiB"
    return f"{costs}; {found}; {result['innocent_rows_flagged']} innocent rows flagged"


if __name__ == "__main__":
    main()
