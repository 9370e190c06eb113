"""Generated programming tasks with a solution and its tests. Pure and seeded.

The columns are those of instruction data for code: `instruction`, `output`, `code`, `entry_point`, `testcase`
(a list of assertions). For the example pipelines only: a dozen small families with numbers drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple


class _Family(NamedTuple):
    """One kind of task; `{k}` and `{m}` are drawn, `solve` gives the expected values of its tests."""

    name: str
    ask: str
    body: str
    argument: str
    cases: tuple[Any, ...]
    solve: Callable[[Any, int, int], Any]


_NUMBERS = ([1, 2, 3], [], [7, -4, 10, 0], [5, 5, 12])
_TEXTS = ("tree", "", "Programming", "one two")
_INTEGERS = (0, 1, 9, -3, 40)
_FAMILIES = (
    _Family("add", "returns the number x plus {k}", "return x + {k}", "x", _INTEGERS, lambda x, k, m: x + k),
    _Family("scale", "multiplies x by {k} and subtracts {m}", "return x * {k} - {m}", "x", _INTEGERS,
            lambda x, k, m: x * k - m),
    _Family("rest", "returns what is left of x divided by {k}", "return x % {k}", "x", _INTEGERS,
            lambda x, k, m: x % k),
    _Family("limit", "returns x, but never more than {k}", "return min(x, {k})", "x", _INTEGERS,
            lambda x, k, m: min(x, k)),
    _Family("is_multiple", "says whether x is a multiple of {k}", "return x % {k} == 0", "x", _INTEGERS,
            lambda x, k, m: x % k == 0),
    _Family("total", "returns the sum of a list of numbers, plus {k}", "return sum(numbers) + {k}", "numbers",
            _NUMBERS, lambda x, k, m: sum(x) + k),
    _Family("larger", "keeps the numbers of a list that are larger than {k}",
            "return [n for n in numbers if n > {k}]", "numbers", _NUMBERS,
            lambda x, k, m: [n for n in x if n > k]),
    _Family("shifted", "adds {k} to each number of a list", "return [n + {k} for n in numbers]", "numbers",
            _NUMBERS, lambda x, k, m: [n + k for n in x]),
    _Family("repeat", "repeats a text {k} times", "return text * {k}", "text", _TEXTS, lambda x, k, m: x * k),
    _Family("start", "returns the first {k} letters of a text", "return text[:{k}]", "text", _TEXTS,
            lambda x, k, m: x[:k]),
    _Family("is_long", "says whether a text has more than {k} letters", "return len(text) > {k}", "text",
            _TEXTS, lambda x, k, m: len(x) > k),
)  # fmt: skip
_OPENERS = ("Write a Python function", "Please write a function", "I need a Python function",
            "Implement a function", "Give me a function")  # fmt: skip
_ENDS = (
    "",
    " Keep it short.",
    " No imports, please.",
    " It must not print anything.",
    " It is for a small tool.",
)


def code_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Return `n` distinct rows. Raises `ValueError` when the families cannot make so many."""
    rng = random.Random(f"code-{seed}")
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(50 * n):
        if len(rows) == n:
            return list(rows.values())
        row = _row(rng.choice(_FAMILIES), rng)
        rows[row["instruction"]] = row
    raise ValueError(f"only {len(rows)} different tasks")


def _row(family: _Family, rng: random.Random) -> dict[str, Any]:
    k, m = rng.randint(2, 30), rng.randint(2, 30)
    name = f"{family.name}_{k}" if rng.random() < 0.5 else family.name
    ask = family.ask.format(k=k, m=m)
    code = f"def {name}({family.argument}):\n    {family.body.format(k=k, m=m)}\n"
    tests = [f"assert {name}({case!r}) == {family.solve(case, k, m)!r}" for case in family.cases]
    return {
        "instruction": f"{rng.choice(_OPENERS)} `{name}({family.argument})` that {ask}.{rng.choice(_ENDS)}",
        "output": f"```python\n{code}```",
        "code": code,
        "entry_point": name,
        "testcase": tests,
    }
