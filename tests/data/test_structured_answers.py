"""Schemas of structured answers: verdicts with their place, what is refused in a schema; and think blocks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.data.json_schema import JsonSchema, parse_json_schema
from rdagent_ft.data.thinking import has_thinking, with_thinking, without_thinking
from rdagent_ft.errors import UserError

PLAN = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "route plan",
    "type": "object",
    "required": ["route", "steps"],
    "additionalProperties": False,
    "properties": {
        "route": {"enum": ["math", "code", "search"]},
        "steps": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "handoff": {"type": ["object", "null"], "properties": {"to": {"type": "string"}}},
    },
}
GOOD = {"route": "math", "steps": ["add"], "confidence": 0.5, "handoff": None}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (GOOD, None),
        ({**GOOD, "handoff": {"to": "x", "more": 1}}, None),
        ({**GOOD, "route": "mail"}, "$.route: 'mail' is not one of"),
        ({**GOOD, "steps": []}, "$.steps: []"),
        ({**GOOD, "steps": ["a", 1]}, "$.steps[1]: 1 is not of type"),
        ({**GOOD, "steps": [""]}, "$.steps[0]: ''"),
        ({**GOOD, "confidence": 2}, "$.confidence: 2 is greater"),
        ({**GOOD, "confidence": True}, "$.confidence: True is not of type"),
        ({**GOOD, "handoff": {"to": 1}}, "$.handoff.to: 1 is not of type"),
        ({**GOOD, "extra": 1}, "$: Additional properties"),
        ({"route": "math"}, "$: 'steps' is a required property"),
        ([], "$: [] is not of type"),
    ],
)
def test_plans(value: Any, reason: str | None) -> None:
    found = JsonSchema(PLAN).problem_in(json.dumps(value))
    assert (found is None) if reason is None else (found or "").startswith(reason)


@pytest.mark.parametrize(
    "text", ["", "math", '{"route": "math"', "{'route': 1}", '{"a": NaN}', "1 2", "[" * 99_999]
)
def test_what_is_no_json_document_is_refused(text: str) -> None:
    assert (JsonSchema({}).problem_in(text) or "").startswith("not JSON")


def test_a_value_that_is_nested_without_end_is_refused() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}}
    value: list[Any] = []
    for _ in range(5_000):
        value = [value]
    assert (JsonSchema(tree).mismatch(value) or "").startswith("$")


def test_unknown_and_malformed_keywords_are_all_named() -> None:
    schema = {
        "type": "objekt",
        "propertys": {},
        "properties": {"a": {"pattern": "x", "minLength": -1}, "b": 3, "c": {"$ref": "https://x/y.json"}},
        "items": {"oneOf": []},
    }
    with pytest.raises(UserError, match="the schema cannot be used") as caught:
        parse_json_schema(json.dumps(schema))
    assert {problem.key for problem in caught.value.problems} == {
        "$.type", "$.propertys", "$.properties.a.minLength", "$.properties.b", "$.properties.c.$ref",
        "$.items.oneOf",
    }  # fmt: skip
    assert "did you mean 'properties'?" in caught.value.render()


@pytest.mark.parametrize("text", ["", "[]", "{", "1"])
def test_a_schema_is_an_object(text: str) -> None:
    with pytest.raises(UserError, match="the schema is not"):
        parse_json_schema(text)


def test_think_blocks_are_put_and_taken_away() -> None:
    wrapped = with_thinking("4", " two and two ")
    assert wrapped == "<think>\ntwo and two\n</think>\n\n4"
    assert with_thinking(wrapped, "other") == wrapped
    assert without_thinking(wrapped) == "4"
    assert with_thinking("4") == "<think>\n\n</think>\n\n4"
    assert without_thinking("a <think>b</think>") == "a <think>b</think>"
    assert not has_thinking("<think>never closed")


@given(st.text(max_size=20), st.text(max_size=20))
def test_taking_a_block_away_undoes_putting_it(answer: str, thoughts: str) -> None:
    if not has_thinking(answer) and "</think>" not in thoughts:
        assert without_thinking(with_thinking(answer, thoughts)) == answer.lstrip()
