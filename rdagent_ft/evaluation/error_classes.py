"""What kind of error an answer is, by rule: the facts that a planner may see about dev items.

The sentences carry counts and key names of JSON references only, never the text of a question, a
reference or an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rdagent_ft.answers.json_values import NotStrictJson, canonical, json_in_other_text, parse_strict
from rdagent_ft.answers.number_answers import all_numbers, gold_number
from rdagent_ft.answers.plain_text import collapse
from rdagent_ft.evaluation.behaviour import repeats_itself
from rdagent_ft.evaluation.ifeval_answers import read_gold
from rdagent_ft.evaluation.rows import SampleRow, ScorerName
from rdagent_ft.evaluation.scorers import MAX_ANSWER_CHARS, words

GOOD_SHARE = 0.5
"""An answer with at least this token F1, or this rating by a judge, is not counted as an error."""

MAX_FACTS = 8

_KEY_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,40}")
_INSTRUCTION = re.compile(r"[a-z_]{1,40}:[a-z0-9_]{1,40}")
_MEANING = {
    "empty": "are empty",
    "truncated": "are cut off at the generation limit",
    "invalid_json": "are not valid JSON",
    "extra_text": "hold the answer's form with other text around it",
    "wrong_type": "are JSON of another type than the reference",
    "extra_key": "have keys that the reference has not",
    "no_number": "state no number",
    "no_letter": "state no option letter",
    "no_maths": "state nothing that can be read as mathematics",
    "code_timeout": "hold a program that does not end in time",
    "code_memory": "hold a program that takes too much memory",
    "tests_failed": "hold a program that does not pass its tests",
    "low_rating": "are rated low by the judge",
    "off_by_format": "hold the right answer in a form that the scorer does not take",
    "wrong_answer": "are well formed and wrong",
    "case_only": "differ from the reference in upper and lower case only",
    "repeated": "repeat themselves",
}


def error_class(scorer: ScorerName, row: SampleRow) -> str | None:
    """Return the class of the row's error, or None when it is right, good enough or unscored.

    Classes: empty, repeated, truncated, invalid_json, extra_text, missing_key:<k>, wrong_value:<k>,
    extra_key, wrong_type, no_number, no_letter, no_maths, off_by_format, case_only,
    not_followed:<instruction>, code_timeout, code_memory, tests_failed, low_rating, wrong_answer. The
    first that fits wins: what ended the answer early comes before what is wrong in it.
    """
    if row.score is None or row.score >= (GOOD_SHARE if scorer in ("token_f1", "rubric") else 1.0):
        return None
    text = row.prediction.strip()
    if not text:
        return "empty"
    if len(text) > MAX_ANSWER_CHARS or repeats_itself(text):
        return "repeated"
    if row.finish_reason == "length":
        return "truncated"
    match scorer:
        case "json_match":
            return _json_class(text, row.gold)
        case "numeric_match":
            return _number_class(row)
        case "exact_match":
            return _label_class(text, row.gold)
        case "choice_match":
            return "no_letter" if row.extracted is None else "wrong_answer"
        case "math_match":
            return "no_maths" if row.extracted is None else "wrong_answer"
        case "ifeval":
            return _instruction_class(row)
        case "code_pass":
            return {"timeout": "code_timeout", "memory": "code_memory"}.get(
                row.extracted or "", "tests_failed"
            )
        case "rubric":
            return "low_rating"
        case "token_f1":
            return "wrong_answer"


def count_errors(scorer: ScorerName, rows: Sequence[SampleRow]) -> dict[str, int]:
    """Return error class -> count, most frequent first, then by name."""
    counts = Counter(found for row in rows if (found := error_class(scorer, row)) is not None)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def error_facts(counts: Mapping[str, int], n: int, scorer: ScorerName) -> tuple[str, ...]:
    """Return at most 8 sentences on the most frequent errors among `n` scored dev answers."""
    if n <= 0:
        return ()
    n_wrong = sum(counts.values())
    if n_wrong == 0:
        return (f"all {n} dev answers pass ({scorer})",)
    facts = [f"{n_wrong} of {n} dev answers are wrong ({scorer})"]
    for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: MAX_FACTS - 1]:
        facts.append(f"{count / n:.0%} of dev answers ({count} of {n}) {_meaning(name)} [{name}]")
    return tuple(facts)


def _meaning(name: str) -> str:
    kind, _, key = name.partition(":")
    if kind == "missing_key":
        return f"lack the key `{key}`"
    if kind == "not_followed":
        return f"do not follow the instruction `{key}`"
    if kind == "wrong_value":
        return f"have a wrong value for the key `{key}`"
    return _MEANING.get(kind, "are wrong")


def _json_class(text: str, gold: str) -> str:
    try:
        value = parse_strict(text)
    except NotStrictJson:
        return "extra_text" if json_in_other_text(text) else "invalid_json"
    try:
        expected = parse_strict(gold)
    except NotStrictJson:
        return "wrong_answer"
    if canonical(value)[0] != canonical(expected)[0]:
        return "wrong_type"
    if not isinstance(expected, dict):
        return "wrong_answer"
    wanted, found = cast(dict[str, Any], expected), cast(dict[str, Any], value)
    for key in wanted:
        if key not in found:
            return f"missing_key:{_safe_key(key)}"
    for key in wanted:
        if canonical(found[key]) != canonical(wanted[key]):
            return f"wrong_value:{_safe_key(key)}"
    return "extra_key"


def _number_class(row: SampleRow) -> str:
    if row.extracted is None and not all_numbers(row.prediction):
        return "no_number"
    return "off_by_format" if gold_number(row.gold) in all_numbers(row.prediction) else "wrong_answer"


def _instruction_class(row: SampleRow) -> str:
    """Return the first instruction that was not followed; its public name carries no item text."""
    gold = read_gold(row.gold)
    names = gold.instruction_id_list if gold is not None else ()
    for name, bit in zip(names, row.parts.get("inst_strict", ()), strict=False):
        if bit < 1 and _INSTRUCTION.fullmatch(name):
            return f"not_followed:{name}"
    return "wrong_answer"


def _label_class(text: str, gold: str) -> str:
    answer, expected = collapse(text), collapse(gold)
    if answer.casefold() == expected.casefold():
        return "case_only"
    if words(answer) == words(expected):
        return "off_by_format"
    if expected and re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", answer):
        return "extra_text"
    return "wrong_answer"


def _safe_key(key: str) -> str:
    """Return the key when it reads like a name; another one may carry content of the item."""
    return key if _KEY_NAME.fullmatch(key) else "<other>"
