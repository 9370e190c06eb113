"""Scoring rules: a table of real forms, strictness, and properties over arbitrary text."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdagent_ft.answers.json_values import NotStrictJson, parse_strict
from rdagent_ft.answers.number_answers import gold_number, number_text, stated_number, whole_number
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.rows import RuleName
from rdagent_ft.evaluation.scorers import MAX_ANSWER_CHARS, choose_scorer, score_answer

GOLD_JSON = '{"a": 1}'
SCORERS: tuple[RuleName, ...] = get_args(RuleName)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16 - 3 - 4 = 9, and 9 * 2 = 18\n#### 18", 18),
        ("#### 18\n\nQuestion: what next?\n#### 20", 18),
        ("so we get \\boxed{42}.", 42),
        ("first \\boxed{1}, no: \\boxed{2}", 2),
        ("\\boxed{\\frac{3}{4}}", Fraction(3, 4)),
        ("\\boxed{-\\dfrac{1}{2}}", Fraction(-1, 2)),
        ("the answer is 1,234,567.", 1234567),
        ("it costs $18.50", Fraction(37, 2)),
        ("a loss of -$5", -5),
        ("a loss of $-5", -5),
        ("50% of them", 50),
        ("70\\%", 70),
        ("3/4 of a cup", Fraction(3, 4)),
        ("answer: .5", Fraction(1, 2)),
        ("10-3", 3),
        ("\u22127", -7),
        ("$336^\\circ$", 336),
        ("10,\\!080", 10080),
        ("1 + 1 = 2. Done", 2),
        ("it is 5.0", 5),
        ("the 5th", 5),
        ("1/0", None),
        ("none of these", None),
        ("", None),
        ("x2", None),
        ("9" * 61, None),
        ("\\boxed{no number} 7", None),
        ("####", None),
    ],
)
def test_stated_number(text: str, number: int | Fraction | None) -> None:
    assert stated_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("  -1,000 ", -1000),
        ("$12.50", Fraction(25, 2)),
        ("25%", 25),
        ("3/8", Fraction(3, 8)),
        ("\\frac{14}{3}", Fraction(14, 3)),
        ("70.", 70),
        ("5.4 \\text{ cents}", Fraction(27, 5)),
        ("Steps: 1, 2, 3\n#### 2,125", 2125),
        ("thus \\boxed{073}", 73),
        ("3 apples", None),
        ("1, 2", None),
        ("2\\sqrt{3}", None),
        ("(1,2)", None),
        ("", None),
    ],
)
def test_gold_number(text: str, number: int | Fraction | None) -> None:
    assert gold_number(text) == number


@given(st.integers(-(10**15), 10**15), st.integers(0, 6))
def test_decimal_numbers_are_found_exactly(digits: int, places: int) -> None:
    expected = Fraction(digits, 10**places)
    sign, body = ("-" if digits < 0 else ""), f"{abs(digits):0{places + 1}d}"
    text = sign + (f"{body[:-places]}.{body[-places:]}" if places else body)
    assert whole_number(text) == expected
    assert stated_number(f"We think that the answer is {text}.") == expected
    assert score_answer("numeric_match", f"so\n#### {text}", text).score == 1.0
    whole, _, part = text.lstrip("-").partition(".")
    grouped = f"{sign}{int(whole):,}" + (f".{part}" if part else "")
    assert whole_number(grouped) == expected


@given(st.fractions(max_denominator=10**6))
@example(Fraction(10**27 * 2 + 1, 2))
@example(Fraction(-1, 1000))
def test_number_text_is_read_back(value: Fraction) -> None:
    assert whole_number(number_text(value)) == value


def test_close_is_not_equal() -> None:
    assert score_answer("numeric_match", "0.3333", "1/3").score == 0.0
    assert score_answer("numeric_match", "0.30000000000000004", "0.3").score == 0.0
    assert score_answer("numeric_match", "2/4", "0.5").score == 1.0


def test_bad_reference_is_unscored_and_bad_answer_is_wrong() -> None:
    unscored = score_answer("numeric_match", "5", "five")
    assert (unscored.score, unscored.unscored_reason) == (None, "reference answer holds no number")
    wrong = score_answer("numeric_match", "five", "5")
    assert (wrong.score, wrong.extracted, wrong.unscored_reason) == (0.0, None, None)
    assert score_answer("json_match", "{}", "{'a': 1}").score is None
    assert score_answer("json_match", "{'a': 1}", "{}").score == 0.0


@pytest.mark.parametrize(
    ("prediction", "gold", "score"),
    [
        ('{"a":1,"b":[true,null]}', '{"b": [true, null], "a": 1.0}', 1.0),
        ('{"a":10e-1}', '{"a":1}', 1.0),
        ('{"a":-0}', '{"a":0}', 1.0),
        ('{"a":0.1}', '{"a":0.10}', 1.0),
        ('{"a":0.30000000000000004}', '{"a":0.3}', 0.0),
        ('{"a":true}', '{"a":1}', 0.0),
        ('{"a":"1"}', '{"a":1}', 0.0),
        ("[1,2]", "[2,1]", 0.0),
        ('{"a":1,"a":1}', '{"a":1}', 0.0),
        ('{"a":NaN}', '{"a":1}', 0.0),
        ('{"a":1} ', ' {"a":1}\n', 1.0),
        ('Sure! {"a":1}', '{"a":1}', 0.0),
        ('```json\n{"a":1}\n```', '{"a":1}', 0.0),
        ('{"a":1}{"a":1}', '{"a":1}', 0.0),
        ('{"a":1,}', '{"a":1}', 0.0),
        ("", '{"a":1}', 0.0),
        ('{"a":1e999999999}', '{"a":1}', 0.0),
        ("[" * 100_000, "[]", 0.0),
        ('{"a":' + "9" * 10_000 + "}", '{"a":1}', 0.0),
    ],
)
def test_json_match(prediction: str, gold: str, score: float) -> None:
    assert score_answer("json_match", prediction, gold).score == score


@given(JSON)
def test_json_equals_itself_in_any_writing(value: Any) -> None:
    gold = json.dumps(value)
    for written in (gold, json.dumps(value, indent=2, ensure_ascii=False), json.dumps(value, sort_keys=True)):
        assert score_answer("json_match", written, gold).score == 1.0


@given(JSON, JSON)
def test_json_match_is_equality(a: Any, b: Any) -> None:
    def typed(value: Any) -> Any:
        """Python takes True for 1; JSON does not."""
        match value:
            case bool():
                return ("bool", value)
            case list():
                return [typed(member) for member in value]
            case dict():
                return {key: typed(member) for key, member in value.items()}
            case _:
                return value

    expected = float(typed(a) == typed(b))
    assert score_answer("json_match", json.dumps(a), json.dumps(b)).score == expected


@given(st.text(max_size=300))
def test_strict_json_is_never_more_than_json(text: str) -> None:
    try:
        parse_strict(text)
    except NotStrictJson:
        return
    json.loads(text)


@pytest.mark.parametrize(
    ("prediction", "gold", "score"),
    [
        (" card_arrival\n", "card_arrival", 1.0),
        ("two  words", "two words", 1.0),
        ("Card_arrival", "card_arrival", 0.0),
        ("card_arrival.", "card_arrival", 0.0),
        ("", "card_arrival", 0.0),
    ],
)
def test_exact_match(prediction: str, gold: str, score: float) -> None:
    assert score_answer("exact_match", prediction, gold).score == score


def test_token_f1() -> None:
    assert score_answer("token_f1", "The cat, the hat!", "the cat").score == pytest.approx(2 * 2 / 6)
    assert score_answer("token_f1", "dog", "cat").score == 0.0
    assert score_answer("token_f1", "...", "").score == 1.0
    assert score_answer("token_f1", "", "cat").score == 0.0


@given(st.text(max_size=400), st.text(max_size=60))
def test_any_text_gets_a_score(prediction: str, gold: str) -> None:
    for scorer in SCORERS:
        found = score_answer(scorer, prediction, gold)
        assert (found.score is None) == (found.unscored_reason is not None)
        assert found.score is None or 0.0 <= found.score <= 1.0
        if found.score is None:
            # Whether an item can be scored depends on its reference alone.
            assert score_answer(scorer, "another answer", gold).score is None


@given(st.text(max_size=60))
def test_the_reference_itself_is_right(gold: str) -> None:
    for scorer in SCORERS:
        assert score_answer(scorer, gold, gold).score in (None, 1.0)


def test_runaway_answers_are_wrong_and_quick() -> None:
    for text in (
        "1," * 90_000,
        "1 " * 90_000,
        "{" * 180_000,
        "\\boxed{" * 25_000,
        "#" * 180_000,
        "-" * 180_000,
    ):
        for scorer in SCORERS:
            gold = {"json_match": GOLD_JSON, "choice_match": "B"}.get(scorer, "77")
            assert score_answer(scorer, text, gold).score == 0.0
            assert score_answer(scorer, text * 3, gold).score == 0.0
    assert score_answer("exact_match", "a", "a" * (MAX_ANSWER_CHARS + 1)).score is None


def test_choice_by_the_references() -> None:
    assert choose_scorer(['{"a": 1}', "[]"] * 10)[0] == "json_match"
    assert choose_scorer(["1", "2/3", "so\n#### 4", "\\boxed{7}"])[0] == "numeric_match"
    assert choose_scorer(["card_arrival", "top_up_failed", "12"])[0] == "exact_match"
    name, reason = choose_scorer(["a long answer in free text, with many words and of no fixed form"] * 5)
    assert name == "token_f1"
    assert "weak proxy" in reason
    # 95 % is enough, 94 % is not.
    assert choose_scorer(["7"] * 95 + ["a"] * 5)[0] == "numeric_match"
    assert choose_scorer(["7"] * 94 + ["a"] * 6)[0] == "exact_match"
    with pytest.raises(DataError, match="no reference answers"):
        choose_scorer([])


@pytest.mark.real_data
def test_every_gsm8k_reference_holds_its_number(shared_data: Path) -> None:
    records = [json.loads(line) for line in (shared_data / "gsm8k" / "test.jsonl").read_text().splitlines()]
    golds = [record["answer"] for record in records]
    assert len(golds) == 1319
    assert choose_scorer(golds)[0] == "numeric_match"
    for gold in golds:
        expected = Fraction(gold.rpartition("####")[2].strip().replace(",", ""))
        assert gold_number(gold) == stated_number(gold) == expected
        assert score_answer("numeric_match", gold, gold).score == 1.0


@pytest.mark.real_data
def test_banking77_labels_get_exact_match(shared_data: Path) -> None:
    with (shared_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as stream:
        labels = [record["category"] for record in csv.DictReader(stream)]
    assert choose_scorer(labels)[0] == "exact_match"
