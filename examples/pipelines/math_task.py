"""Generated word problems of one or two steps, with the steps and the number as the answer. Pure and seeded.

For the example pipelines only: they stand in for MathX or GSM8K where no data may be shipped. They teach the
form of an answer, not mathematics.
"""

from __future__ import annotations

import random

NAMES = ("Ada", "Ben", "Clara", "David", "Emma", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Liam",
         "Mona", "Nils", "Olga", "Paul", "Rosa", "Sven", "Tara", "Uwe")  # fmt: skip
THINGS = ("apples", "books", "cards", "coins", "cups", "eggs", "flowers", "keys", "letters", "marbles",
          "nails", "pears", "pens", "plates", "shells", "stamps", "stones", "tickets")  # fmt: skip
PLACES = ("at the market", "in the garden", "at school", "on the train", "in the kitchen", "by the lake",
          "at the station", "in the attic", "at work", "on the beach")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def math_rows(n: int, seed: int, *, largest: int = 60) -> list[dict[str, str]]:
    """Return `n` distinct rows {question, answer, source}; an answer ends with `#### NUMBER`.

    `largest` bounds the numbers of a problem; products and totals are larger. Raises `ValueError` when the
    templates cannot make so many different problems.
    """
    rng = random.Random(f"math-{seed}")
    rows: dict[str, dict[str, str]] = {}
    for _ in range(50 * n):
        if len(rows) == n:
            return list(rows.values())
        kind = rng.choice((_sum, _difference, _product, _two_steps))
        question, steps, number = kind(rng, largest)
        rows[question] = {
            "question": question,
            "answer": f"{steps}\n#### {number}",
            "source": kind.__name__[1:],
        }
    raise ValueError(f"only {len(rows)} different problems with numbers up to {largest}")


def _sum(rng: random.Random, largest: int) -> tuple[str, str, int]:
    a, b = rng.randint(2, largest), rng.randint(2, largest)
    who, other = rng.sample(NAMES, 2)
    things, place, day = rng.choice(THINGS), rng.choice(PLACES), rng.choice(DAYS)
    question = f"On {day} {who} finds {a} {things} {place}, and {other} brings {b} more. How many are there?"
    return question, f"{a} + {b} = {a + b}", a + b


def _difference(rng: random.Random, largest: int) -> tuple[str, str, int]:
    small, large = sorted(rng.sample(range(2, largest + 1), 2))
    who, other = rng.sample(NAMES, 2)
    things, place = rng.choice(THINGS), rng.choice(PLACES)
    question = f"{who} has {large} {things} {place} and gives {small} of them to {other}. How many are left?"
    return question, f"{large} - {small} = {large - small}", large - small


def _product(rng: random.Random, largest: int) -> tuple[str, str, int]:
    boxes, each = rng.randint(2, min(9, largest)), rng.randint(2, largest)
    who, things, day = rng.choice(NAMES), rng.choice(THINGS), rng.choice(DAYS)
    question = f"Until {day} {who} packs {boxes} boxes with {each} {things} each. How many {things} is that?"
    return question, f"{boxes} * {each} = {boxes * each}", boxes * each


def _two_steps(rng: random.Random, largest: int) -> tuple[str, str, int]:
    boxes, each = rng.randint(2, min(9, largest)), rng.randint(2, largest)
    lost = rng.randint(1, boxes * each - 1)
    who, things, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    question = (
        f"{who} buys {boxes} bags of {each} {things} and loses {lost} {place}. How many does {who} keep?"
    )
    total = boxes * each
    return question, f"{boxes} * {each} = {total}\n{total} - {lost} = {total - lost}", total - lost
