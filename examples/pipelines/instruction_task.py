"""Generated instructions whose answers can be checked: rows, preference pairs, and items of a benchmark.

Pure and seeded. They stand in for a chat dataset, for preference data and for IFEval where no data may be
shipped. Items use words that neither rows nor pairs use.
"""

from __future__ import annotations

import random
from collections.abc import Callable

WORDS = ("anchor", "bridge", "candle", "desert", "engine", "forest", "garden", "harbor", "island", "jacket",
         "kettle", "ladder", "mirror", "needle", "orange", "pocket", "quarry", "ribbon", "saddle", "temple",
         "valley", "window", "yellow", "basket", "cotton", "dragon", "button", "hammer", "insect", "jungle",
         "kitten", "lemon", "meadow", "napkin", "oyster", "pepper")  # fmt: skip
HELD_OUT_WORDS = ("umbra", "violin", "walnut", "zebra", "acorn", "blanket", "cactus", "dolphin", "emerald",
                  "falcon", "glacier", "horizon")  # fmt: skip
_CHATTER = (
    "Sure! Here you go: {}",
    "{} I hope that helps!",
    "Of course. The answer is {}.",
    "Well, {} I think.",
)


def instruction_rows(n: int, seed: int) -> list[dict[str, str]]:
    """Return `n` distinct rows {prompt, completion}."""
    return [{"prompt": prompt, "completion": answer} for prompt, answer in _tasks(n, f"rows-{seed}", WORDS)]


def instruction_pairs(n: int, seed: int) -> list[dict[str, str]]:
    """Return `n` distinct pairs {prompt, chosen, rejected}.

    The rejected answer is wrong, cut, or says more than was asked for.
    """
    rng = random.Random(f"rejected-{seed}")
    return [
        {"prompt": prompt, "chosen": answer, "rejected": _rejected(answer, rng)}
        for prompt, answer in _tasks(n, f"pairs-{seed}", WORDS)
    ]


def instruction_items(n: int, seed: int) -> list[dict[str, str]]:
    """Return `n` items {id, prompt, answer} of a benchmark of one's own."""
    tasks = _tasks(n, f"items-{seed}", HELD_OUT_WORDS)
    return [
        {"id": f"own-{i}", "prompt": prompt, "answer": answer} for i, (prompt, answer) in enumerate(tasks)
    ]


def _tasks(n: int, seed: str, words: tuple[str, ...]) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    kinds: tuple[Callable[[random.Random, tuple[str, ...]], tuple[str, str]], ...] = (
        _capitals, _twice, _first, _last, _count, _join, _sorted,
    )  # fmt: skip
    found: dict[str, str] = {}
    for _ in range(200 * n):
        if len(found) == n:
            return list(found.items())
        prompt, answer = rng.choice(kinds)(rng, words)
        found[prompt] = answer
    raise ValueError(f"only {len(found)} different instructions")


def _rejected(answer: str, rng: random.Random) -> str:
    """Return a worse answer: with chatter, in the wrong case, or cut. Length alone does not tell it apart."""
    kind = rng.choice(("chatter", "case", "cut", "cut"))
    if kind == "case" and answer.swapcase() != answer:
        return answer.swapcase()
    if kind == "cut" and len(answer) > 3:
        return answer[: rng.randint(1, len(answer) // 2)]
    return rng.choice(_CHATTER).format(answer)


def _capitals(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    one, two = rng.sample(words, 2)
    return f"Write the words {one} and {two} in capital letters, and nothing else.", f"{one} {two}".upper()


def _twice(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    one, two = rng.sample(words, 2)
    return f"Repeat the word {one} twice, and do not mention {two}.", f"{one} {one}"


def _first(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    some = rng.sample(words, 4)
    return f"Answer with the first of these words only: {', '.join(some)}.", some[0]


def _last(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    some = rng.sample(words, 4)
    return f"Which of these words comes last? {', '.join(some)}. Answer with one word.", some[-1]


def _count(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    some = rng.sample(words, rng.randint(2, 5))
    return f"How many words are these: {' '.join(some)}? Answer with digits.", str(len(some))


def _join(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    one, two = rng.sample(words, 2)
    return f"Join {one} and {two} with a hyphen. Use no other sign.", f"{one}-{two}"


def _sorted(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    some = rng.sample(words, 3)
    return f"Sort alphabetically, with commas between: {' '.join(some)}.", ", ".join(sorted(some))
