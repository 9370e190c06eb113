"""`math_match`: is the stated answer equal to the reference as mathematics? By math-verify, in children.

Each pair has a hard limit, because an answer can be a tower of powers. Covers neither proofs nor units.
What a model wrote can only cost the model: an answer that hangs or kills the checker scores 0, while a
reference that cannot be read leaves the item unscored.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from rdagent_ft.errors import PreflightError, Problem
from rdagent_ft.evaluation.scorers import MAX_ANSWER_CHARS, Scored
from rdagent_ft.execution.line_worker import LineReply, ask_all

ITEM_LIMIT_S = 10.0
MODULE = "rdagent_ft.answers.math_job"

READ_CHARS = 20_000
"""The end of an answer that is read: the final answer stands there, and parsing is not linear."""


def math_problems() -> list[Problem]:
    """Return what is missing for `math_match`."""
    if find_spec("math_verify") is not None:
        return []
    return [
        Problem(
            key="scorer",
            value="math_match",
            rule="needs the package math-verify, which is not installed here",
            problem_class="benchmark.package",
            fix="pip install 'math-verify==0.9.0' 'latex2sympy2_extended[antlr4_13_2]'",
        )
    ]


def score_math(pairs: Sequence[tuple[str, str]], *, limit_s: float = ITEM_LIMIT_S) -> list[Scored]:
    """Return the scores of (prediction, gold) pairs, in order.

    Raises `PreflightError` without math-verify, `JobError` when a scoring process cannot start.
    """
    problems = math_problems()
    if problems:
        raise PreflightError("mathematical answers cannot be scored here", problems=tuple(problems))
    golds = list(dict.fromkeys(gold for _, gold in pairs))
    checked = ask_all(MODULE, [{"gold": gold} for gold in golds], limit_s=limit_s)
    readable = {
        gold: reply.outcome == "answered" and reply.value.get("gold_ok") is True
        for gold, reply in zip(golds, checked, strict=True)
    }
    asked = [n for n, (prediction, gold) in enumerate(pairs) if readable[gold] and _worth_asking(prediction)]
    requests = [{"gold": pairs[n][1], "answer": pairs[n][0][-READ_CHARS:]} for n in asked]
    replies = dict(zip(asked, ask_all(MODULE, requests, limit_s=limit_s), strict=True))
    return [_scored(readable[gold], replies.get(n)) for n, (_, gold) in enumerate(pairs)]


def _worth_asking(prediction: str) -> bool:
    return bool(prediction.strip()) and len(prediction) <= MAX_ANSWER_CHARS


def _scored(gold_ok: bool, reply: LineReply | None) -> Scored:
    if not gold_ok:
        return Scored(score=None, unscored_reason="reference answer cannot be read as mathematics")
    if reply is None:
        return Scored(score=0.0)
    parsed = reply.value.get("parsed")
    return Scored(
        score=float(reply.value.get("equal") is True), extracted=parsed if isinstance(parsed, str) else None
    )
