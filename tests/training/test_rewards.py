"""What each reward scores, how TRL calls it, and that nothing a model writes can break one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import PreflightError, RecipeError
from rdagent_ft.evaluation.scorers import score_answer
from rdagent_ft.training.rewards import limited
from rdagent_ft.training.rewards.load import CHEAP_KINDS, make_rewards
from rdagent_ft.training.rewards.reward import RewardError, RewardFunction, answer_of, gold_of, text_of

SCHEMA = json.dumps(
    {
        "type": "object",
        "required": ["steps"],
        "properties": {
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
            "n": {"type": "integer"},
        },
        "$defs": {"step": {"type": "string", "pattern": "^(a+)+$"}},
    }
)
CHEAP: list[dict[str, Any]] = [
    {"kind": "exact"},
    {"kind": "numeric"},
    {"kind": "regex", "pattern": r"(?i)answer:\s*\d+"},
    {"kind": "json_schema", "json_schema": SCHEMA},
    {"kind": "json_field", "path": "steps.0"},
    {"kind": "think_format"},
]
DEEP = "[" * 100_000
ODD = [
    "",
    " ",
    "\x00",
    "\ud800",
    "😀" * 100,
    DEEP,
    "{" + '"a":' * 5000,
    "9" * 5000,
    "1e999999999",
    "x" * 300_000,
]


def one(kind: str, **fields: Any) -> RewardFunction:
    (reward,) = make_rewards([{"kind": kind, **fields}])
    return reward


def score(reward: RewardFunction, completion: Any, gold: Any = None, **columns: Any) -> float | None:
    more = {name: [value] for name, value in columns.items()}
    (found,) = reward(prompts=["p"], completions=[completion], gold=[gold], **more)
    return found


@pytest.mark.parametrize(
    ("completion", "gold", "wanted"),
    [
        (" New\n york ", "new  York", 1.0),
        ("New York!", "new york", 0.0),
        ("<think>hm</think> Yes", "yes", 1.0),
        ("<think>yes", "yes", 0.0),
        ("<think>a</think>no <think>yes", "yes", 0.0),
        ("yes", "<think>so</think>yes", 1.0),
        ("4", 4, 1.0),
        ("true", True, 1.0),
        ("yes", None, None),
        ("", "", None),
        ("yes", " ", None),
        ("yes", [{"role": "assistant", "content": "Yes"}], 1.0),
        ('["a"]', ["a"], 1.0),
    ],
)
def test_exact(completion: str, gold: Any, wanted: float | None) -> None:
    assert score(one("exact"), completion, gold) == wanted


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_the_scorer_calls_equal_is_equal_for_the_reward(answer: str, gold: str) -> None:
    found = score(one("exact"), answer, gold)
    plain = "think>" not in answer + gold
    if plain and found is not None and score_answer("exact_match", answer, gold).score == 1.0:
        assert found == 1.0


@pytest.mark.parametrize(
    ("completion", "gold", "tolerance", "wanted"),
    [
        ("so it is 1,000 dollars.", "1000", 0.0, 1.0),
        ("first 7, then 8", "7", 0.0, 0.0),
        ("3 + 4 = 7\n#### 7", "so 3 + 4\n#### 7", 0.0, 1.0),
        ("0.333333", "1/3", 0.0, 0.0),
        ("0.333333", "1/3", 1e-5, 1.0),
        ("-100.5", "-100", 0.01, 1.0),
        ("-101.5", "-100", 0.01, 0.0),
        ("1e-9", "0", 1.0, 0.0),
        ("no idea", "7", 1.0, 0.0),
        ("7", "seven", 1.0, None),
        ("<think>7</think>8", "7", 0.0, 0.0),
        ("9" * 100_000, "9", 0.5, 0.0),
    ],
)
def test_numeric(completion: str, gold: str, tolerance: float, wanted: float | None) -> None:
    assert score(one("numeric", tolerance=tolerance), completion, gold) == wanted


@pytest.mark.parametrize(
    ("completion", "prompt", "wanted"),
    [
        ("<think>because</think>7", "p", 1.0),
        (" \n<think>\nbecause\n</think>\n\n7", "p", 1.0),
        ("because</think>7", "p<think>\n", 1.0),
        ("<think>because</think>7", "p<think>\n", 0.0),
        ("<think>because</think>", "p", 0.0),
        ("<think>because</think> \n", "p", 0.0),
        ("<think> </think>7", "p", 0.0),
        ("<think>because 7", "p", 0.0),
        ("because</think>7", "p", 0.0),
        ("so <think>because</think>7", "p", 0.0),
        ("<think>a</think>7<think>b</think>8", "p", 0.0),
        ("</think>7<think>a", "p", 0.0),
        ("7", "p", 0.0),
    ],
)
def test_think_format(completion: str, prompt: str, wanted: float) -> None:
    assert one("think_format")(prompts=[prompt], completions=[completion]) == [wanted]


def test_regex_searches_or_wants_all_of_it() -> None:
    found = one("regex", pattern=r"\d+")
    whole = one("regex", pattern=r"\d+", whole=True)
    texts = ["it is 12", "12", "", "<think>1</think>x"]
    assert found(completions=texts) == [1.0, 1.0, 0.0, 1.0]
    assert whole(completions=texts) == [0.0, 1.0, 0.0, 0.0]


def test_a_catastrophic_pattern_costs_its_text_and_a_bounded_time() -> None:
    reward = one("regex", pattern=r"^(a+)+$")
    started = time.monotonic()
    assert reward(completions=["aaa", "a" * 60 + "b", "aa", "a" * 60 + "b"]) == [1.0, 0.0, 1.0, 0.0]
    assert time.monotonic() - started < 60


def test_json_schema() -> None:
    reward = one("json_schema", json_schema=SCHEMA)
    assert score(reward, '{"steps": ["aa"], "n": 3}') == 1.0
    assert score(reward, '<think>x</think>\n{"steps": []}') == 1.0
    for bad in (
        '{"steps": "aa"}', '{"steps": ["b"]}', '{"steps": [], "n": 3.5}', "{}", "[]", 'so: {"steps": []}',
        '```json\n{"steps": []}\n```', '{"steps": [], "steps": []}', '{"steps": [], "n": NaN}',
        '{"steps": ["' + "a" * 60 + 'b"]}',
    ):  # fmt: skip
        assert score(reward, bad) == 0.0, bad


def test_a_schema_that_refers_to_itself_without_end_fits_nothing() -> None:
    assert score(one("json_schema", json_schema='{"$ref": "#"}'), "{}") == 0.0
    tree = '{"type": "object", "additionalProperties": {"$ref": "#"}}'
    assert score(one("json_schema", json_schema=tree), '{"a": {"b": {}}}') == 1.0


@pytest.mark.parametrize(
    ("schema", "value", "rule"),
    [
        ("{", None, "no JSON"),
        ('{"type": "objekt"}', "$.type", "no JSON schema"),
        (
            '{"$ref": "https://example.org/schema.json"}',
            "https://example.org/schema.json",
            "inside the schema",
        ),
        ('{"items": {"$ref": "#/$defs/x"}}', "#/$defs/x", "inside the schema"),
        ("7", None, "no JSON schema|cannot be read"),
        (DEEP[:20_000], None, "cannot be read|no JSON"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema: str, value: str | None, rule: str) -> None:
    with pytest.raises(RecipeError) as caught:
        one("json_schema", json_schema=schema)
    (problem,) = caught.value.problems
    assert problem.problem_class == "config.bad_value"
    assert value is None or problem.value == value
    assert any(words in problem.rule for words in rule.split("|"))


@pytest.mark.parametrize(
    ("completion", "gold", "path", "wanted"),
    [
        ('{"tool": "a", "x": 1}', '{"tool": "a"}', "tool", 1.0),
        ('{"tool": "b"}', '{"tool": "a"}', "tool", 0.0),
        ('{"steps": [{"n": 1.0}]}', '{"steps": [{"n": 1}, 2]}', "steps.0.n", 1.0),
        ('{"steps": [{"n": true}]}', '{"steps": [{"n": 1}]}', "steps.0.n", 0.0),
        ('{"steps": []}', '{"steps": [null]}', "steps.0", 0.0),
        ('{"steps": [null]}', '{"steps": [null]}', "steps.0", 1.0),
        ('[{"a": {"y": 2, "x": 1}}]', '[{"a": {"x": 1, "y": 2}}]', "0.a", 1.0),
        ('{"a": 1}', '{"b": 1}', "a", None),
        ('{"a": 1}', "no JSON", "a", None),
        ("no JSON", '{"a": 1}', "a", 0.0),
        ('{"a": [1]}', '{"a": [1]}', "a.-1", None),
        ('{"a": [1]}', '{"a": [1]}', "a." + "9" * 300, None),
        ('{"a": [1]}', '{"a": [1]}', "a.²", None),
        ('{"a": [1]}', {"a": [1]}, "a.0", 1.0),
    ],
)
def test_json_field(completion: str, gold: Any, path: str, wanted: float | None) -> None:
    assert score(one("json_field", path=path), completion, gold) == wanted


def test_math() -> None:
    pytest.importorskip("math_verify", reason="needs the package math-verify")
    reward = one("math")
    answers = [
        "$\\boxed{\\frac{1}{2}}$",
        "0.5",
        "\\boxed{9^{9^{9^{9^9}}}}",
        "",
        "\ud800 \\boxed{3}",
        "x",
        "5",
    ]
    golds = ["0.5", "\\frac{1}{2}", "3", "3", "3", None, ""]
    found = reward(prompts=["p"] * 7, completions=answers, gold=golds)
    assert found == [1.0, 1.0, 0.0, 0.0, 1.0, None, None]
    assert reward(prompts=["p"], completions=["<think>4</think> \\boxed{3}"], gold=["3"]) == [1.0]


@pytest.mark.parametrize(
    ("kind", "fields", "package"),
    [("math", {}, "math_verify"), ("json_schema", {"json_schema": "{}"}, "jsonschema")],
)
def test_a_missing_package_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, kind: str, fields: dict[str, str], package: str
) -> None:
    monkeypatch.setattr(limited, "find_spec", lambda _name: None)
    with pytest.raises(PreflightError, match=kind) as caught:
        one(kind, **fields)
    (problem,) = caught.value.problems
    assert problem.problem_class == "env.missing_dep"
    assert package in problem.rule
    assert "pip install" in problem.fix


def test_completions_are_texts_or_turns() -> None:
    assert text_of([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "t"}]) == "a"
    assert text_of([{"role": "user", "content": "u"}]) == ""
    assert text_of([{"content": "a"}]) == "a"
    assert (
        text_of([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]) == "a"
    )
    assert text_of([{"role": "assistant", "content": None}]) == ""
    assert text_of(None) == text_of([]) == text_of(7) == text_of({"role": "assistant", "content": "a"}) == ""
    assert text_of("x" * 200_001) == ""


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=10))
def test_whatever_stands_in_the_gold_column_is_text_or_nothing(value: Any) -> None:
    gold = gold_of(value)
    assert gold is None or gold.strip()


@given(st.text())
def test_an_answer_is_the_end_of_its_text(text: str) -> None:
    assert text.endswith(answer_of(f"<think>{text}</think>{text}") or text)


TEXTS = st.text(alphabet=st.characters(), max_size=200) | st.sampled_from(ODD)
COMPLETIONS = (
    TEXTS
    | st.none()
    | TEXTS.map(lambda text: [{"role": "assistant", "content": text}])
    | TEXTS.map(lambda text: f"<think>{text}</think>{text}")
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ).map(json.dumps)
)


@pytest.fixture(scope="module")
def cheap() -> list[RewardFunction]:
    return make_rewards(CHEAP)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(COMPLETIONS, TEXTS | st.none()), max_size=5))
def test_every_kind_is_total(cheap: list[RewardFunction], pairs: list[tuple[Any, Any]]) -> None:
    completions, golds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    for reward in cheap:
        found = reward(prompts=["p"] * len(pairs), completions=completions, gold=golds)
        assert len(found) == len(pairs)
        assert all(value in (None, 0.0, 1.0) for value in found), reward.name


def test_odd_completions_neither_break_nor_change_their_neighbours(cheap: list[RewardFunction]) -> None:
    for reward in cheap:
        alone = score(reward, "Answer: 7", "Answer: 7")
        golds = ["Answer: 7"] * (2 * len(ODD))
        mixed = [text for odd in ODD for text in (odd, "Answer: 7")]
        found = reward(prompts=["p"] * len(mixed), completions=mixed, gold=golds)
        assert found[1::2] == [alone] * len(ODD), reward.name
        assert set(found[::2]) <= {0.0, None}, reward.name


def test_a_column_of_another_length_is_an_error_of_the_caller() -> None:
    with pytest.raises(RewardError, match="`gold` has 1 values for 2"):
        one("exact")(prompts=["p"] * 2, completions=["a", "b"], gold=["a"])


def test_the_cheap_kinds_are_those_that_run_nobodys_code() -> None:
    assert {declared["kind"] for declared in CHEAP} == CHEAP_KINDS
