"""How a model behaves apart from being right: empty, cut off, looping, refusing, unreadable answers.

A gain that comes with ten times as many cut-off answers is another finding than a gain. Rates are
reported and compared; they decide nothing but whether a benchmark's result can be used at all. The
language of answers is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.rows import SampleRow, ScorerName
from rdagent_ft.evaluation.scorers import MAX_ANSWER_CHARS, words
from rdagent_ft.values import Frozen

Trait = Literal["empty", "truncated", "repeated", "no_answer", "refused"]
Level = Literal["ok", "warn", "invalid"]
TRAITS: tuple[Trait, ...] = get_args(Trait)

WARN_ABOVE: dict[Trait, float] = {
    "empty": 0.05, "truncated": 0.10, "repeated": 0.10, "no_answer": 0.20, "refused": 0.10,
}  # fmt: skip
"""Shares above which a person should look."""

INVALID_ABOVE: dict[Trait, float] = {"empty": 0.50, "truncated": 0.30}
"""Shares above which the score says more about the limit or the template than about the model."""

EXTRACTS: frozenset[ScorerName] = frozenset({"numeric_match", "choice_match", "math_match", "json_match"})
"""Scorers that take something out of an answer, and can fail to."""

REPEATED_SHARE = 0.5
REPEATED_MIN_WORDS = 20
_REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am)(?: very| so| really)? sorry|I(?:['’]m| am) (?:not able|unable)"
    r"|I (?:can(?:not|['’]t)|won['’]t)"
    r"|I must (?:decline|refuse)|as an AI(?: language)? model)\b",
    re.IGNORECASE,
)
_REFUSAL_CHARS = 200


class Behaviour(Frozen):
    """One model's behaviour on one benchmark split.

    Attributes:
        n: answers looked at; `rates` are shares of them. Failed requests are not among them.
        rates: trait -> share. `truncated` counts known finish reasons only; `no_answer` is 0 for
            scorers that extract nothing.
        mean_chars: mean length in characters.
        mean_tokens: mean number of generated tokens, None when some are unknown.
        levels: trait -> `warn` or `invalid`, only those that are not `ok`.
    """

    benchmark: str
    split: str
    n: int
    rates: dict[Trait, float]
    mean_chars: float
    mean_tokens: float | None
    levels: dict[Trait, Level] = {}

    @property
    def level(self) -> Level:
        """The worst level."""
        found = set(self.levels.values())
        return "invalid" if "invalid" in found else "warn" if found else "ok"


class BehaviourChange(Frozen):
    """Tuned against base: differences of shares, and the ratio of mean lengths (None from empty)."""

    benchmark: str
    split: str
    rates: dict[Trait, float]
    length_ratio: float | None


def behaviour(rows: Sequence[SampleRow], scorer: ScorerName) -> Behaviour:
    """Return the behaviour of one model on one split. Raises `JobError` without an answer."""
    # A row without score and text is a request that failed, not an empty answer.
    answered = [row for row in rows if row.score is not None or row.prediction]
    if not answered:
        raise JobError("there is no answer to describe")
    tests: dict[Trait, Callable[[SampleRow], bool]] = {
        "empty": lambda row: not row.prediction.strip(),
        "truncated": lambda row: row.finish_reason == "length",
        "repeated": lambda row: repeats_itself(row.prediction),
        "no_answer": lambda row: scorer in EXTRACTS and row.score is not None and row.extracted is None,
        "refused": lambda row: _REFUSAL.search(row.prediction[:_REFUSAL_CHARS]) is not None,
    }
    n = len(answered)
    rates: dict[Trait, float] = {trait: sum(map(tests[trait], answered)) / n for trait in TRAITS}
    tokens = [row.n_tokens for row in answered if row.n_tokens is not None]
    return Behaviour(
        benchmark=answered[0].benchmark,
        split=answered[0].split,
        n=n,
        rates=rates,
        mean_chars=sum(len(row.prediction) for row in answered) / n,
        mean_tokens=sum(tokens) / n if len(tokens) == n else None,
        levels={trait: level for trait in TRAITS if (level := _level(trait, rates[trait])) != "ok"},
    )


def behaviour_change(base: Behaviour, tuned: Behaviour) -> BehaviourChange:
    """Return tuned - base. Raises `JobError` for two different benchmarks."""
    if (base.benchmark, base.split) != (tuned.benchmark, tuned.split):
        raise JobError(f"{base.benchmark} and {tuned.benchmark} are different benchmarks or splits")
    return BehaviourChange(
        benchmark=base.benchmark,
        split=base.split,
        rates={trait: tuned.rates[trait] - base.rates[trait] for trait in TRAITS},
        length_ratio=tuned.mean_chars / base.mean_chars if base.mean_chars else None,
    )


def repeats_itself(text: str) -> bool:
    """Return whether over half of the text's 4-word sequences occurred before in it.

    Texts under 20 words never do. Of a runaway generation the first 200,000 characters are read.
    """
    found = words(text[:MAX_ANSWER_CHARS])
    if len(found) < REPEATED_MIN_WORDS:
        return False
    grams = [tuple(found[start : start + 4]) for start in range(len(found) - 3)]
    return 1 - len(set(grams)) / len(grams) > REPEATED_SHARE


def _level(trait: Trait, share: float) -> Level:
    if share > INVALID_ABOVE.get(trait, 1.0):
        return "invalid"
    return "warn" if share > WARN_ABOVE[trait] else "ok"
