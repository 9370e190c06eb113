"""Base against tuned, blind and in both orders: a win counts only when both orders agree, else it is a tie.

Length is watched, because judges like long answers: a win that is gone among pairs of like length is
flagged. Answers that are equal are ties and cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from rdagent_ft.evaluation.judge.judge import Judge, health_of, verdict_of_reply
from rdagent_ft.evaluation.judge.replies import PairReply
from rdagent_ft.evaluation.judge.sides import item_rank
from rdagent_ft.evaluation.judge.texts import visible_text
from rdagent_ft.evaluation.judge.values import JudgeHealth, Opinion, Question, UnscoredReason
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.statistics import compare_scores
from rdagent_ft.values import Frozen

LONGER_RATIO = 1.3
MATCHED_RATIO = 1.2
MIN_MATCHED_PAIRS = 10
Place = Literal["first", "second", "tie"]
Winner = Literal["tuned", "base", "tie"]


class AnswerPair(Frozen):
    """One instruction with both models' answers. `cluster` as in `SampleRow`."""

    item_id: str
    instruction: str
    base: str
    tuned: str
    cluster: str | None = None


class PairOutcome(Frozen):
    """What became of one pair.

    Attributes:
        winner: None when an order has no verdict.
        unscored: why there is none.
        flipped: the two orders named different winners; None where one of them is missing or not asked.
        n_first: verdicts that named the answer shown first, of `n_decisive` that were no tie.
    """

    item_id: str
    winner: Winner | None
    unscored: UnscoredReason | None = None
    flipped: bool | None = None
    n_first: int = 0
    n_decisive: int = 0
    base_chars: int
    tuned_chars: int


class PairwiseResult(Frozen):
    """All pairs of one benchmark.

    Attributes:
        comparison: share of the tuned model's wins (a tie is a half) against the base model's; its delta
            is wins minus losses over pairs. None when no pair has a winner.
        flip_rate, first_position_rate: of this very job; None where nothing was asked.
        length_ratio: mean visible length, tuned over base; None when base says nothing.
        matched_win_rate: the tuned model's share among the `n_matched` pairs of like length.
        length_flag: why the win may be only length; None when there is no reason.
    """

    outcomes: tuple[PairOutcome, ...]
    n_wins: int
    n_losses: int
    n_ties: int
    win_rate: float | None
    comparison: Comparison | None
    flip_rate: float | None
    first_position_rate: float | None
    length_ratio: float | None
    matched_win_rate: float | None
    n_matched: int
    length_flag: str | None
    health: JudgeHealth


class Ordered(NamedTuple):
    """Both orders of two answers: the places that each verdict named, or None without one."""

    opinions: tuple[Opinion, Opinion]
    places: tuple[Place | None, Place | None]


def judge_pairs(
    pairs: Sequence[AnswerPair], judge: Judge, *, benchmark: str, split: str, seed: int, margin: float
) -> PairwiseResult:
    """Ask about every pair in both orders. Costs two requests a pair.

    `seed` decides by each item's hash which order is asked first. `margin` as in `statistics.compare`.
    """
    shown = [(visible_text(pair.base), visible_text(pair.tuned)) for pair in pairs]
    asked = [n for n, (base, tuned) in enumerate(shown) if base != tuned]
    base_first = [int(item_rank(pair.item_id, seed), 16) % 2 == 0 for pair in pairs]
    texts: list[tuple[str, str, str]] = []
    for n in asked:
        base, tuned = shown[n]
        texts.append((pairs[n].instruction, *((base, tuned) if base_first[n] else (tuned, base))))
    ordered = ask_both_orders(texts, judge)
    by_pair = dict(zip(asked, ordered, strict=True))
    outcomes = tuple(_outcome(pair, shown[n], base_first[n], by_pair.get(n)) for n, pair in enumerate(pairs))
    health = health_of([opinion for both in ordered for opinion in both.opinions])
    return _result(pairs, outcomes, health, benchmark, split, margin)


def ask_both_orders(texts: Sequence[tuple[str, str, str]], judge: Judge) -> list[Ordered]:
    """Ask about each (instruction, one answer, other answer), shown in this order and the other one."""
    questions = [
        question
        for instruction, one, other in texts
        for question in (pair_question(instruction, one, other), pair_question(instruction, other, one))
    ]
    opinions = judge.ask(questions)
    both = [(opinions[n], opinions[n + 1]) for n in range(0, len(opinions), 2)]
    return [Ordered(two, (_place(two[0]), _place(two[1]))) for two in both]


def pair_question(instruction: str, first: str, second: str) -> Question:
    """Return the request which of two answers is better."""
    return Question(
        prompt="judge_pairwise",
        texts=(
            ("instruction", visible_text(instruction)),
            ("first answer", visible_text(first)),
            ("second answer", visible_text(second)),
        ),
        reply=PairReply,
    )


def _place(opinion: Opinion) -> Place | None:
    verdict = verdict_of_reply(opinion)
    return verdict if verdict in ("first", "second", "tie") else None


def _outcome(
    pair: AnswerPair, shown: tuple[str, str], base_first: bool, ordered: Ordered | None
) -> PairOutcome:
    facts = {"item_id": pair.item_id, "base_chars": len(shown[0]), "tuned_chars": len(shown[1])}
    if ordered is None:  # equal answers
        return PairOutcome.model_validate({**facts, "winner": "tie"})
    places = ordered.places
    given = [place for place in places if place is not None]
    counts = {
        "n_first": sum(place == "first" for place in given),
        "n_decisive": sum(place != "tie" for place in given),
    }
    reason = next((o.unscored for o in ordered.opinions if o.unscored is not None), None)
    if len(given) < 2:
        return PairOutcome.model_validate({**facts, **counts, "winner": None, "unscored": reason})
    one: Winner = "base" if base_first else "tuned"
    other: Winner = "tuned" if base_first else "base"
    winners = [{"first": one, "second": other, "tie": "tie"}[given[0]],
               {"first": other, "second": one, "tie": "tie"}[given[1]]]  # fmt: skip
    is_same = winners[0] == winners[1]
    winner = winners[0] if is_same else "tie"
    return PairOutcome.model_validate({**facts, **counts, "winner": winner, "flipped": not is_same})


def _result(
    pairs: Sequence[AnswerPair], outcomes: tuple[PairOutcome, ...], health: JudgeHealth,
    benchmark: str, split: str, margin: float,
) -> PairwiseResult:  # fmt: skip
    scored = [(pair, out) for pair, out in zip(pairs, outcomes, strict=True) if out.winner is not None]
    shares = [_tuned_share(out) for _, out in scored]
    has_clusters = any(pair.cluster is not None for pair, _ in scored)
    clusters = [pair.cluster or pair.item_id for pair, _ in scored] if has_clusters else None
    comparison = None
    if scored:
        comparison = compare_scores(
            [1.0 - share for share in shares], shares, clusters,
            benchmark=benchmark, split=split, margin=margin,
        )  # fmt: skip
    matched = [_tuned_share(out) for _, out in scored if _is_matched(out)]
    win_rate, matched_rate = _mean(shares), _mean(matched)
    ratio = _length_ratio(outcomes)
    flips = [out.flipped for out in outcomes if out.flipped is not None]
    n_decisive = sum(out.n_decisive for out in outcomes)
    return PairwiseResult(
        outcomes=outcomes,
        n_wins=sum(out.winner == "tuned" for out in outcomes),
        n_losses=sum(out.winner == "base" for out in outcomes),
        n_ties=sum(out.winner == "tie" for out in outcomes),
        win_rate=win_rate,
        comparison=comparison,
        flip_rate=sum(flips) / len(flips) if flips else None,
        first_position_rate=sum(out.n_first for out in outcomes) / n_decisive if n_decisive else None,
        length_ratio=ratio,
        matched_win_rate=matched_rate,
        n_matched=len(matched),
        length_flag=_length_flag(win_rate, ratio, matched_rate, len(matched)),
        health=health,
    )


def _length_flag(
    win_rate: float | None, ratio: float | None, matched_rate: float | None, n_matched: int
) -> str | None:
    if win_rate is None or ratio is None or win_rate <= 0.5 or ratio <= LONGER_RATIO:
        return None
    longer = f"the tuned model's answers are {ratio:.2f} times as long"
    if matched_rate is None or n_matched < MIN_MATCHED_PAIRS:
        return f"{longer}, and only {n_matched} pairs of like length are there to show that it is not length"
    if matched_rate <= 0.5:
        return f"{longer}, and among {n_matched} pairs of like length it wins {matched_rate:.0%}"
    return None


def _length_ratio(outcomes: Sequence[PairOutcome]) -> float | None:
    base = sum(out.base_chars for out in outcomes)
    return sum(out.tuned_chars for out in outcomes) / base if base else None


def _is_matched(outcome: PairOutcome) -> bool:
    low, high = sorted((outcome.base_chars, outcome.tuned_chars))
    return high <= MATCHED_RATIO * low


def _tuned_share(outcome: PairOutcome) -> float:
    return {"tuned": 1.0, "base": 0.0, "tie": 0.5}[outcome.winner or "tie"]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
