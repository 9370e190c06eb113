"""The rules that turn an answer into a score, and the choice of the rule by the reference answers.

All means are computed from these scores. Nothing here calls a model, evaluates text, or takes longer
than linear time in its input. Mathematics (`math_answers`), instructions (`ifeval_answers`), code and
judges are scored elsewhere.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from rdagent_ft.answers.json_values import NotStrictJson, canonical, compact, parse_strict
from rdagent_ft.answers.number_answers import gold_number, number_text, stated_number
from rdagent_ft.answers.plain_text import collapse
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.choice_answers import gold_letter, stated_letter
from rdagent_ft.evaluation.rows import RuleName
from rdagent_ft.values import Frozen

SCORERS_VERSION = 1
"""Raised when any answer may get another score than before: cached scores then count no more."""

MAX_ANSWER_CHARS = 200_000
"""A longer answer is a runaway generation: wrong, and not read."""

MAX_EXTRACTED_CHARS = 2_000
CHOICE_SHARE = 0.95
"""A rule is chosen when it fits this share of the reference answers."""

LABEL_MAX_CHARS = 60
"""Reference answers whose 95th percentile is at most this long are labels."""

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))


class Scored(Frozen):
    """One answer's score.

    Attributes:
        score: 0..1, or None when the item cannot be scored.
        extracted: what was compared, capped at 2,000 characters; None when nothing could be taken.
        unscored_reason: why `score` is None: the reference answer, never the model's.
        parts: further measures of this answer, as in `SampleRow.parts`.
    """

    score: float | None
    extracted: str | None = None
    unscored_reason: str | None = None
    parts: dict[str, tuple[float, ...]] = {}


def choose_scorer(golds: Sequence[str]) -> tuple[RuleName, str]:
    """Return the rule that fits the reference answers, and why in one sentence.

    Raises `DataError` when there are none.
    """
    if not golds:
        raise DataError("there are no reference answers to choose a scorer from")
    n = len(golds)
    n_json = sum(map(_is_json_structure, golds))
    if n_json >= CHOICE_SHARE * n:
        return "json_match", f"{n_json / n:.0%} of {n} reference answers are JSON objects or arrays"
    n_numbers = sum(gold_number(gold) is not None for gold in golds)
    if n_numbers >= CHOICE_SHARE * n:
        return "numeric_match", f"{n_numbers / n:.0%} of {n} reference answers are or end in a number"
    lengths = sorted(len(gold.strip()) for gold in golds)
    p95 = lengths[min(n - 1, int(0.95 * n))]
    if p95 <= LABEL_MAX_CHARS:
        return "exact_match", f"95 % of {n} reference answers have at most {p95} characters: labels"
    return (
        "token_f1",
        f"the reference answers are free text (95th percentile {p95} characters): the share of words in "
        "common is a weak proxy of quality, so read its gains with care",
    )


def score_answer(scorer: RuleName, prediction: str, gold: str) -> Scored:
    """Score one answer by the named rule.

    - exact_match: equal after strip and with runs of whitespace as one space; case counts.
    - json_match: the whole answer is one strict JSON value equal to the reference.
    - numeric_match: the stated number equals the reference number exactly.
    - token_f1: F1 of the bags of lower-case words without punctuation.
    - choice_match: the letter that the answer states last is the reference letter.

    Only a bad reference answer leaves an item unscored; whatever a model writes gets a score.
    """
    if len(gold) > MAX_ANSWER_CHARS:
        return Scored(score=None, unscored_reason=f"reference answer over {MAX_ANSWER_CHARS} characters")
    if len(prediction) > MAX_ANSWER_CHARS:
        return _score_nothing(scorer, gold)
    match scorer:
        case "exact_match":
            answer = collapse(prediction)
            return _result(answer == collapse(gold), answer)
        case "json_match":
            return _score_json(prediction, gold)
        case "numeric_match":
            return _score_number(prediction, gold)
        case "token_f1":
            return _score_tokens(prediction, gold)
        case "choice_match":
            return _score_choice(prediction, gold)


def words(text: str) -> list[str]:
    """Return the lower-case words of the text; ASCII punctuation separates."""
    return text.casefold().translate(_PUNCTUATION).split()


def _score_nothing(scorer: RuleName, gold: str) -> Scored:
    """Return the score of an answer that is not read: 0, unless the item has no usable reference."""
    empty = score_answer(scorer, "", gold)
    return empty if empty.score is None else Scored(score=0.0)


def _score_json(prediction: str, gold: str) -> Scored:
    try:
        expected = canonical(parse_strict(gold))
    except NotStrictJson as error:
        return Scored(score=None, unscored_reason=f"reference answer is not strict JSON: {error}")
    try:
        value = parse_strict(prediction)
    except NotStrictJson:
        return Scored(score=0.0)
    return _result(canonical(value) == expected, compact(value))


def _score_number(prediction: str, gold: str) -> Scored:
    expected = gold_number(gold)
    if expected is None:
        return Scored(score=None, unscored_reason="reference answer holds no number")
    value = stated_number(prediction)
    return Scored(score=0.0) if value is None else _result(value == expected, number_text(value))


def _score_choice(prediction: str, gold: str) -> Scored:
    expected = gold_letter(gold)
    if expected is None:
        return Scored(score=None, unscored_reason="reference answer is no letter from A to J")
    letter = stated_letter(prediction)
    return Scored(score=0.0) if letter is None else _result(letter == expected, letter)


def _score_tokens(prediction: str, gold: str) -> Scored:
    expected, found = words(gold), words(prediction)
    extracted = _capped(" ".join(found))
    if not expected or not found:
        return Scored(score=float(expected == found), extracted=extracted)
    n_common = sum((Counter(expected) & Counter(found)).values())
    return Scored(score=2 * n_common / (len(expected) + len(found)), extracted=extracted)


def _result(correct: bool, extracted: str) -> Scored:
    return Scored(score=float(correct), extracted=_capped(extracted))


def _capped(text: str) -> str:
    return text[:MAX_EXTRACTED_CHARS]


def _is_json_structure(gold: str) -> bool:
    try:
        return isinstance(parse_strict(gold), (dict, list))
    except NotStrictJson:
        return False
