"""The reward `math`: equal as mathematics, by math-verify in children (`answers.math_job`).

math-verify stops itself by signals, which only work in a main thread, and some answers hang it all the
same: hence a process, with a limit for each answer. An answer that hangs or kills it scores 0; a gold
answer that cannot be read as mathematics makes the reward not apply.
"""

from __future__ import annotations

from collections.abc import Callable

from rdagent_ft.execution.line_worker import LineChildren
from rdagent_ft.training.rewards.limited import require_package
from rdagent_ft.training.rewards.reward import Batch, Score

MODULE = "rdagent_ft.answers.math_job"
ITEM_LIMIT_S = 10.0
READ_CHARS = 20_000
"""The end of an answer that is read: the final answer stands there, and parsing is not linear."""

MAX_REMEMBERED = 100_000
N_WORKERS = 2
INSTALL = "pip install 'math-verify==0.9.0' 'latex2sympy2_extended[antlr4_13_2]'"


def math_score(*, limit_s: float = ITEM_LIMIT_S) -> Callable[[Batch], list[Score]]:
    """Return the `score` of a `math` reward. Raises `PreflightError` without math-verify."""
    require_package("math_verify", "math", INSTALL)
    children = LineChildren(MODULE, limit_s=limit_s, n_workers=N_WORKERS)
    readable: dict[str, bool] = {}

    def read_golds(golds: list[str]) -> None:
        if len(readable) > MAX_REMEMBERED:
            readable.clear()
        new = [gold for gold in dict.fromkeys(golds) if gold not in readable]
        for gold, reply in zip(new, children.ask([{"gold": gold} for gold in new]), strict=True):
            readable[gold] = reply.outcome == "answered" and reply.value.get("gold_ok") is True

    def score(batch: Batch) -> list[Score]:
        golds = batch.golds()
        read_golds([gold for gold in golds if gold is not None])
        pairs = [
            (answer[-READ_CHARS:], gold) if gold is not None and readable[gold] else None
            for answer, gold in zip(batch.answers(), golds, strict=True)
        ]
        asked = list(dict.fromkeys(pair for pair in pairs if pair is not None and pair[0].strip()))
        replies = children.ask([{"gold": gold, "answer": answer} for answer, gold in asked])
        equal = {pair: reply.value.get("equal") is True for pair, reply in zip(asked, replies, strict=True)}
        return [None if pair is None else float(equal.get(pair, False)) for pair in pairs]

    return score
