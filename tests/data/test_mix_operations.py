"""Selection, weights, caps and think blocks of a data mix: what is kept, changed, counted and refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.data.mix import MixResult, build_mix
from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.select import meets, select_rows
from rdagent_ft.data.think import split_reasoning, template_problem, think_rows
from rdagent_ft.data.thinking import has_thinking, without_thinking
from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.errors import RecipeError
from rdagent_ft.recipe.data_mix import Condition, DataMix, TeacherSamples
from rdagent_ft.recipe.data_rules import data_problems
from rdagent_ft.recipe.diff import apply_diff, recipe_diff
from rdagent_ft.recipe.parse import parse_recipe
from rdagent_ft.recipe.rewards import ExactReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, GrpoStage, SftStage
from rdagent_ft.recipe.validate import read_recipe


def item(number: int, *, source: str | None = None, answer: str = "", **meta: Any) -> Row:
    turns = (
        Message(role="user", content=f"question {number}"),
        Message(role="assistant", content=answer or f"answer {number}"),
    )
    return make_row(turns, source=source, meta=meta)


def mixed(rows: list[Row], **fields: Any) -> MixResult:
    return build_mix(
        rows,
        DataMix.model_validate(fields),
        clusters=lambda _: {},
        n_tokens=lambda found: {row.item_id: len(row.completion) for row in found},
    )


def sources(result: MixResult) -> dict[str | None, int]:
    return dict(Counter(row.source for row in result.rows))


def where(field: str, op: str, value: Any) -> Condition:
    return Condition.model_validate({"field": field, "op": op, "value": value})


@pytest.mark.parametrize(
    ("value", "op", "wanted", "expected"),
    [
        (3, "eq", 3, True), (3, "eq", 3.0, True), ("3", "eq", 3, True), ("3", "eq", "3", True),
        (True, "eq", 1, False), (True, "eq", True, True), ("True", "eq", True, False),
        ("a", "ne", "b", True), ("a", "ne", "a", False), ("a", "in", ["a", "b"], True),
        ("2", "in", [1, 2], True), ("c", "in", ["a"], False), (3, "lt", 4, True), ("3.5", "gt", 3, True),
        (3, "gt", 3, False), ("many", "gt", 3, None), (True, "gt", 0, None), (None, "ne", "a", None),
        ("algebra II", "contains", "algebra", True), (["x", "y"], "contains", "y", True),
        (["x"], "contains", "z", False), (7, "contains", "7", None),
    ],
)  # fmt: skip
def test_conditions_compare_by_value(value: Any, op: str, wanted: Any, expected: bool | None) -> None:
    assert meets(item(1, grade=value), where("meta.grade", op, wanted)) is expected


def test_selection_counts_every_row_with_its_reason() -> None:
    rows = [item(n, source="web" if n < 5 else "book", grade=n) for n in range(20)]
    rows.append(item(99, source="book"))
    mix = DataMix(
        exclude_sources=("web",), where=(where("meta.grade", "gt", 9), where("source", "eq", "book"))
    )
    kept, dropped = select_rows(rows, mix)
    assert [row.meta["grade"] for row in kept] == list(range(10, 20))
    assert dropped == {
        "source web": 5,
        "where meta.grade gt 9": 5,
        "where meta.grade: no value to compare": 1,
    }
    assert len(kept) + sum(dropped.values()) == len(rows)


def test_names_that_no_row_has_are_refused_together() -> None:
    mix = DataMix.model_validate(
        {
            "where": [{"field": "meta.grad", "value": 1}],
            "source_weights": {"wbe": 2.0},
            "source_caps": {"other": 5},
            "think": "wrap",
            "think_column": "rational",
        }
    )
    with pytest.raises(RecipeError) as caught:
        select_rows([item(1, source="web", grade=1, rationale="r")], mix)
    found = {problem.key: (problem.problem_class, problem.fix) for problem in caught.value.problems}
    assert found["data.where.0.field"] == ("data.unknown_column", "did you mean 'meta.grade'?")
    assert found["data.source_weights"] == ("data.unknown_source", "did you mean 'web'?")
    assert found["data.source_caps"] == ("data.unknown_source", "known sources: web")
    assert found["data.think_column"] == ("data.unknown_column", "did you mean 'rationale'?")


def test_weights_repeat_and_thin_out_and_count_it() -> None:
    rows = [item(n, source="web" if n < 10 else "book" if n < 30 else None) for n in range(40)]
    result = mixed(rows, source_weights={"web": 2.5, "book": 0.25})
    assert sources(result) == {"web": 25, "book": 5, None: 10}
    assert result.repeated == {"weight of source web": 15}
    assert result.dropped == {"weight of source book": 15}
    per_row = Counter(row.item_id for row in result.rows if row.source == "web")
    assert set(per_row.values()) == {2, 3}
    assert result == mixed(rows, source_weights={"book": 0.25, "web": 2.5})
    other = mixed(rows, source_weights={"web": 2.5, "book": 0.25}, shuffle_seed=7)
    assert sources(other) == sources(result)
    assert {row.item_id for row in other.rows} != {row.item_id for row in result.rows}


def test_a_cap_holds_after_weights_and_a_small_weight_keeps_a_row() -> None:
    rows = [item(n, source="web" if n % 2 else "book") for n in range(40)]
    result = mixed(rows, source_weights={"web": 3.0, "book": 0.01}, source_caps={"web": 30})
    assert sources(result) == {"web": 30, "book": 1}
    assert result.dropped["cap of source web"] == 30


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60),
    weights=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0.01, 10.0), min_size=1, max_size=3),
    caps=st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 40), min_size=1, max_size=2),
    max_items=st.none() | st.integers(16, 80),
    seed=st.integers(0, 5),
)
def test_every_row_is_accounted_for(
    labels: list[str | None],
    weights: dict[str, float],
    caps: dict[str, int] | None,
    max_items: int | None,
    seed: int,
) -> None:
    known = {label for label in labels if label}
    fields: dict[str, Any] = {"shuffle_seed": seed, "max_items": max_items}
    fields["source_weights"] = {name: w for name, w in weights.items() if name in known} or None
    fields["source_caps"] = {name: n for name, n in (caps or {}).items() if name in known} or None
    rows = [item(number, source=label) for number, label in enumerate(labels)]
    result = mixed(rows, **fields)
    assert result == mixed(rows, **fields)
    n_out = len(rows) - sum(result.dropped.values()) + sum(result.repeated.values())
    assert len(result.rows) == n_out
    assert {row.item_id for row in result.rows} <= {row.item_id for row in rows}
    if max_items is None:
        for name, weight in (fields["source_weights"] or {}).items():
            n = labels.count(name)
            wanted = max(1, int(n * weight + 0.5))
            wanted = min(wanted, (fields["source_caps"] or {}).get(name, wanted))
            assert sources(result).get(name, 0) == wanted
            if name not in (fields["source_caps"] or {}):
                times = Counter(row.item_id for row in result.rows if row.source == name).values()
                assert max(times) - min(times) <= 1


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and "think>" not in text
)


@settings(max_examples=150, deadline=None)
@given(answer=TEXT, reason=TEXT, think=st.sampled_from(["wrap", "empty"]), column=st.booleans())
def test_a_block_that_was_put_there_can_be_taken_away(
    answer: str, reason: str, think: str, column: bool
) -> None:
    row = item(1, source="s", answer=answer, why=reason)
    mix = DataMix.model_validate({"think": think, "think_column": "why" if column else None})
    wrapped = think_rows([row], mix)
    assert wrapped.changed == {f"think {think}": 1}
    (one,) = wrapped.rows
    assert has_thinking(one.completion)
    assert think_rows([one], mix).rows == [one], "a second time changes nothing"
    (plain,) = think_rows([one], DataMix(think="strip")).rows
    if think == "empty" or column:
        assert plain.completion == answer.lstrip()
    else:
        assert plain.completion.split() == split_reasoning(answer)[1].split()
    if think == "wrap" and column:
        assert reason.strip() in one.completion
    assert (one.source, one.meta, one.prompt) == (row.source, row.meta, row.prompt)
    assert one.item_id != row.item_id


@pytest.mark.parametrize(
    ("answer", "reasoning", "final"),
    [
        ("4", "", "4"),
        ("two and two\n\nmake\n#### 4\n", "two and two\n\nmake", "#### 4"),
        ('{\n "a": 1\n}', "", '{\n "a": 1\n}'),
        ("```python\nx = 1\n```", "", "```python\nx = 1\n```"),
        ("so\n\\boxed{42}", "so", "\\boxed{42}"),
    ],
)
def test_reasoning_is_what_stands_before_the_last_line(answer: str, reasoning: str, final: str) -> None:
    assert split_reasoning(answer) == (reasoning, final)


def test_rows_that_cannot_be_thought_about_are_counted() -> None:
    rows = [item(1, why="because"), item(2, why=" "), item(3), item(4, answer="<think>a</think>b", why="c")]
    found = think_rows(rows, DataMix(think="wrap", think_column="why"))
    assert [row.prompt_text for row in found.rows] == ["question 1", "question 4"]
    assert found.dropped == {"no text in the think column why": 2}
    assert found.changed == {"think wrap": 1}
    stripped = think_rows([item(5, answer="<think>only</think>"), rows[3]], DataMix(think="strip"))
    assert [without_thinking(row.completion) for row in stripped.rows] == ["b"]
    assert stripped.dropped == {"think block only": 1}


def test_length_is_measured_after_blocks_are_added() -> None:
    rows = [item(n, answer="short") for n in range(3)]
    assert mixed(rows, max_row_tokens=10).dropped == {}
    with pytest.raises(RecipeError, match="nothing to train on"):
        mixed(rows, max_row_tokens=10, think="empty")


WRITES_ITS_OWN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS_IN_PROMPT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
REMOVES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARSES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n"
    "{% if '</think>' in m.content %}"
    "{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}{% endif %}"
    "\n</think>\n\n{{ m.content.split('</think>')[-1].lstrip() }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, ""),
        (WRITES_ITS_OWN, "doubled"),
        (OPENS_IN_PROMPT, "opens a block"),
        (REMOVES, "lost"),
        (PARSES, ""),
    ],
    ids=["chatml", "writes", "opens", "removes", "parses"],
)
@pytest.mark.parametrize("think", ["wrap", "empty"])
def test_a_template_that_would_double_or_lose_the_block_is_named(
    tokenizer_folder: Callable[..., Path], template: str | None, words: str, think: str
) -> None:
    folder = tokenizer_folder() if template is None else tokenizer_folder(template=template)
    encoder = load_encoder(folder)
    problem = template_problem(DataMix.model_validate({"think": think}), encoder, "chat")
    assert (
        (problem.rule if problem else "") == "" if not words else words in (problem.rule if problem else "")
    )
    assert template_problem(DataMix(think="strip"), encoder, "chat") is None
    assert template_problem(DataMix(think="wrap"), encoder, "plain") is None


def test_a_mix_without_the_new_fields_keeps_its_json_and_its_hash() -> None:
    plain = '{"dedupe":"none","exclude_sources":[],"max_row_tokens":null,"max_items":null,"shuffle_seed":42}'
    assert DataMix().model_dump_json() == plain
    assert DataMix.model_validate({"think": "keep"}) == DataMix()


NEW: list[dict[str, Any]] = [
    {"where": [{"field": "meta.g", "op": "in", "value": [1, "a", 2.5, True]}]},
    {"source_weights": {"b": 2, "a": 0.5}},
    {"source_caps": {"b": 3}},
    {"think": "wrap", "think_column": "why"},
    {"teacher": {"n_samples": 4, "keep": "all"}},
]


@pytest.mark.parametrize("fields", NEW, ids=lambda fields: next(iter(fields)))
def test_new_fields_come_through_files_and_diffs(fields: dict[str, Any]) -> None:
    recipe, problems = parse_recipe({"data": fields, "stages": [{"kind": "sft"}]})
    assert problems == []
    assert recipe is not None
    assert Recipe.model_validate_json(recipe.model_dump_json(), strict=True) == recipe
    for other in [Recipe(), *(parse_recipe({"data": each})[0] for each in NEW)]:
        assert other is not None
        assert apply_diff(other, recipe_diff(other, recipe)) == recipe
        assert apply_diff(recipe, recipe_diff(recipe, other)) == other
    assert data_problems(recipe, has_teacher=True) == []


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"where": [{"field": "grade", "value": 1}]}, "data.where.0.field"),
        ({"where": [{"field": "source", "op": "like", "value": 1}]}, "data.where.0.op"),
        ({"where": []}, "data.where"),
        ({"source_weights": {"a": 0}}, "data.source_weights.0.weight"),
        ({"source_weights": {"a": 11}}, "data.source_weights.0.weight"),
        ({"source_caps": {"a": 1.5}}, "data.source_caps.0.max_items"),
        ({"think": "sometimes"}, "data.think"),
        ({"teacher": {"n_samples": 9}}, "data.teacher.n_samples"),
        ({"teacher": {"model": "gpt-x"}}, "data.teacher.model"),
    ],
)
def test_values_outside_their_range_are_named(fields: dict[str, Any], key: str) -> None:
    recipe, problems = parse_recipe({"data": fields, "stages": [{"kind": "sft"}]})
    assert recipe is None
    assert [problem.key for problem in problems] == [key]


GRPO = GrpoStage(rewards=(ExactReward(),))


@pytest.mark.parametrize(
    ("fields", "stages", "key"),
    [
        ({"where": [{"field": "source", "op": "in", "value": "a"}]}, (SftStage(),), "data.where.0.value"),
        ({"where": [{"field": "meta.n", "op": "gt", "value": "a"}]}, (SftStage(),), "data.where.0.value"),
        ({"where": [{"field": "meta.n", "op": "eq", "value": ["a"]}]}, (SftStage(),), "data.where.0.value"),
        ({"source_weights": {"a": 2}, "exclude_sources": ["a"]}, (SftStage(),), "data.source_weights"),
        ({"source_weights": [{"source": "a", "weight": 2}] * 2}, (SftStage(),), "data.source_weights"),
        ({"think_column": "why"}, (SftStage(),), "data.think_column"),
        ({"think": "wrap", "think_column": "why", "teacher": {}}, (SftStage(),), "data.think_column"),
        ({"think": "wrap"}, (DpoStage(),), "data.think"),
        ({"think": "empty"}, (SftStage(), GRPO), "data.think"),
        ({"teacher": {}}, (SftStage(), DpoStage(pairs="sampled")), "data.teacher"),
        ({"teacher": {"n_samples": 2, "temperature": 0}}, (SftStage(),), "data.teacher.n_samples"),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    fields: dict[str, Any], stages: tuple[Any, ...], key: str
) -> None:
    recipe = Recipe(data=DataMix.model_validate(fields), stages=stages)
    (problem,) = data_problems(recipe, has_teacher=True)
    assert problem.key == key
    assert problem.fix


def test_a_teacher_that_is_not_set_is_a_problem_with_its_fix() -> None:
    recipe = Recipe(data=DataMix(teacher=TeacherSamples()))
    (problem,) = data_problems(recipe, has_teacher=False)
    assert (problem.key, problem.problem_class) == ("data.teacher", "config.needs_teacher")
    assert "FT_TEACHER_MODEL" in problem.fix
    assert data_problems(recipe, has_teacher=None) == []


def test_the_recipes_of_the_page_are_recipes(repository: Path) -> None:
    page = (repository / "docs" / "data-operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    for block in blocks:
        recipe = read_recipe(block, "recipe.yaml")
        assert isinstance(recipe, Recipe), recipe
        assert data_problems(recipe, has_teacher=True) == []
