"""Classes of errors, and that facts carry no text of items."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from evaluation_rows import rows_of
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.evaluation.error_classes import count_errors, error_class, error_facts
from rdagent_ft.evaluation.rows import RuleName, SampleRow, ScorerName
from rdagent_ft.evaluation.scorers import score_answer

GOLD = '{"route": "billing", "steps": ["a"], "n": 2}'
IFEVAL_GOLD = '{"key": 1, "prompt": "p", "instruction_id_list": ["a:one", "b:two"], "kwargs": [{}, {}]}'
LOOP = "and then we go on " * 20


def answered(scorer: RuleName, prediction: str, gold: str, finish: str = "stop") -> SampleRow:
    scored = score_answer(scorer, prediction, gold)
    (row,) = rows_of(
        [scored.score],
        prediction=prediction,
        gold=gold,
        extracted=scored.extracted,
        finish_reason=finish,
    )
    return row


@pytest.mark.parametrize(
    ("scorer", "prediction", "gold", "expected"),
    [
        ("json_match", GOLD, GOLD, None),
        ("json_match", "  ", GOLD, "empty"),
        ("json_match", LOOP, GOLD, "repeated"),
        ("json_match", '{"route": "bil', GOLD, "invalid_json"),
        ("json_match", f"Here you are: {GOLD}", GOLD, "extra_text"),
        ("json_match", f"{GOLD} done", GOLD, "extra_text"),
        ("json_match", '{"route": "billing", "route": "billing"}', GOLD, "invalid_json"),
        ("json_match", '{"route": "billing", "n": 2}', GOLD, "missing_key:steps"),
        ("json_match", '{"route": "other", "steps": ["a"], "n": 2}', GOLD, "wrong_value:route"),
        ("json_match", '{"route": "billing", "steps": ["a"], "n": 2, "secret": 1}', GOLD, "extra_key"),
        ("json_match", "[1]", GOLD, "wrong_type"),
        ("json_match", "[1]", "[2]", "wrong_answer"),
        ("json_match", '{"x": 1}', '{"a long question: why?": 1}', "missing_key:<other>"),
        ("json_match", GOLD, "not json", None),
        ("numeric_match", "I cannot say", "5", "no_number"),
        ("numeric_match", "the answer is 5 because 2 + 3", "5", "off_by_format"),
        ("numeric_match", "#### 6", "5", "wrong_answer"),
        ("exact_match", "Card_Arrival", "card_arrival", "case_only"),
        ("exact_match", '"card_arrival".', "card_arrival", "off_by_format"),
        ("exact_match", "card_arrival is the label", "card_arrival", "extra_text"),
        ("exact_match", "card_linking", "card_arrival", "wrong_answer"),
        ("token_f1", "dog", "cat", "wrong_answer"),
        ("token_f1", "the cat", "cat", None),
        ("choice_match", "A dog", "A", "no_letter"),
        ("choice_match", "Answer: B", "A", "wrong_answer"),
        ("choice_match", "Answer: A", "A", None),
    ],
)
def test_error_class(scorer: RuleName, prediction: str, gold: str, expected: str | None) -> None:
    assert error_class(scorer, answered(scorer, prediction, gold)) == expected


@pytest.mark.parametrize(
    ("scorer", "changes", "expected"),
    [
        ("math_match", {"extracted": None}, "no_maths"),
        ("math_match", {"extracted": "x+1"}, "wrong_answer"),
        ("code_pass", {"extracted": "timeout"}, "code_timeout"),
        ("code_pass", {"extracted": "memory"}, "code_memory"),
        ("code_pass", {"extracted": "failed"}, "tests_failed"),
        ("rubric", {}, "low_rating"),
        ("rubric", {"score": 0.75}, None),
        ("ifeval", {"gold": IFEVAL_GOLD, "parts": {"inst_strict": (1, 0)}}, "not_followed:b:two"),
        ("ifeval", {"gold": "no list"}, "wrong_answer"),
    ],
)
def test_error_class_of_scorers_beyond_rules(
    scorer: ScorerName, changes: dict[str, object], expected: str | None
) -> None:
    (row,) = rows_of([0.0])
    assert error_class(scorer, SampleRow.model_validate({**row.model_dump(), **changes})) == expected


def test_an_instruction_that_was_not_followed_is_named_in_words() -> None:
    facts = error_facts({"not_followed:punctuation:no_comma": 1}, 4, "ifeval")
    assert "do not follow the instruction `punctuation:no_comma`" in facts[1]


def test_truncation_comes_before_what_is_wrong_in_the_text() -> None:
    assert error_class("json_match", answered("json_match", '{"route": "bil', GOLD, "length")) == "truncated"
    assert error_class("json_match", answered("json_match", LOOP, GOLD, "length")) == "repeated"
    assert error_class("exact_match", answered("exact_match", "right", "right", "length")) is None


def test_counts_and_facts() -> None:
    rows = [answered("exact_match", text, "yes") for text in ("yes", "", "", "YES", "no")]
    counts = count_errors("exact_match", rows)
    assert list(counts.items()) == [("empty", 2), ("case_only", 1), ("wrong_answer", 1)]
    facts = error_facts(counts, 5, "exact_match")
    assert facts[0] == "4 of 5 dev answers are wrong (exact_match)"
    assert facts[1] == "40% of dev answers (2 of 5) are empty [empty]"
    assert error_facts({}, 5, "exact_match") == ("all 5 dev answers pass (exact_match)",)
    assert error_facts({}, 0, "exact_match") == ()
    assert len(error_facts({f"missing_key:k{n}": 1 for n in range(50)}, 100, "json_match")) == 8


@given(
    st.sampled_from(get_args(RuleName)),
    st.text(alphabet=st.characters(categories=["Lo"]), min_size=1, max_size=40),
    st.text(alphabet=st.characters(categories=["Lo"]), min_size=1, max_size=40),
)
def test_facts_never_quote_an_item(scorer: RuleName, prediction: str, gold: str) -> None:
    golds = [gold, json.dumps({gold: gold}), json.dumps({"k": gold})]
    predictions = [prediction, json.dumps({"k": prediction}), json.dumps({prediction: 1})]
    rows = [answered(scorer, p, g) for p in predictions for g in golds]
    text = " ".join(error_facts(count_errors(scorer, rows), len(rows), scorer))
    assert text.isascii()
