"""Reading files with places and duplicates, and writing edits that keep the rest of the file."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.recipe.documents import number_from_text, read_document
from rdagent_ft.recipe.edits import Edit, apply_to_text, apply_to_values
from rdagent_ft.recipe.validate import validate_text

TEXT = """# top
learning_rate: 2e-4
push_to_hub: true  # why
warmup_ratio: 0.1  # keep me

# about evaluation
evaluation_strategy: no
datasets:
  - {path: json, data_files: a.jsonl}
  # inside
  - path: json
    data_files: b.jsonl
max_seq_length: 512
"""


def test_fix_keeps_comments_order_and_untouched_lines() -> None:
    report = validate_text(TEXT, name="x.yaml", stage="sft")
    assert report.fixed_text == (
        TEXT.replace("push_to_hub: true", "push_to_hub: false")
        .replace("warmup_ratio", "warmup_steps")
        .replace("evaluation_strategy: no", "eval_strategy: 'no'")
        .replace("max_seq_length", "max_length")
    )
    assert report.remaining == ()
    assert len(report.changes) == 5


def test_fix_of_json_stays_json() -> None:
    report = validate_text('{"warmup_ratio": 0.1, "learning_rate": 0.0002}', name="x.json", stage="sft")
    assert report.fixed_text is not None
    assert yaml.safe_load(report.fixed_text) == {"warmup_steps": 0.1, "learning_rate": 0.0002}


def test_a_ratio_of_one_or_more_is_not_turned_into_steps() -> None:
    report = validate_text("warmup_ratio: 3\n", name="x.yaml", stage="sft")
    assert [problem.key for problem in report.problems] == ["warmup_ratio"]
    assert report.fixed_text is None


def test_old_and_new_name_with_different_values_are_left_to_the_person() -> None:
    report = validate_text("max_seq_length: 10\nmax_length: 20\n", name="x.yaml", stage="sft")
    assert report.fixed_text is None
    same = validate_text("max_seq_length: 20\nmax_length: 20\n", name="x.yaml", stage="sft")
    assert same.fixed_text == "max_length: 20\n"


def test_problems_of_syntax_carry_the_line() -> None:
    (problem,) = read_document("a: 1\nb: [1, 2\nc: 3\n", "x.yaml").problems
    assert problem.key.startswith("line 3")
    (problem,) = read_document("a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml").problems
    assert (problem.key, problem.problem_class) == ("b.c", "config.duplicate_key")
    assert "line 4" in problem.rule


def test_hostile_documents_end_in_a_problem() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    for text in (
        bomb,
        "[" * 5000,
        "{" * 5000,
        "x: 1\n" * 300_000,
        "\x00",
        "a: 2024-13-45",
        "? [a]\n: b\n",
        "",
        "- a\n",
    ):
        assert read_document(text, "x.yaml").problems
        assert validate_text(text, name="x.yaml").problems


def test_python_tags_are_not_built() -> None:
    document = read_document("a: !!python/object/apply:os.system ['true']\n", "x.yaml")
    assert document.problems
    assert document.values == {}


@given(st.text(max_size=200))
def test_any_text_gives_a_report_and_never_raises(text: str) -> None:
    validate_text(text, name="x.yaml")
    validate_text(text, name="x.json")


KEYS = st.sampled_from(["learning_rate", "dtype", "packing", "loss_type", "datasets", "lora_target_modules",
                        "reward_funcs", "eval_strategy", "warmup_ratio", "max_steps", "stages", "env", "beta",
                        "num_generations", "per_device_train_batch_size", "model_init_kwargs", "output_dir",
                        "reward_weights", "lr_scheduler_kwargs", "eos_token", "data"])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(KEYS, VALUES, max_size=6),
    st.sampled_from(["sft", "dpo", "kto", "grpo", "reward", "distill"]),
)
def test_any_values_give_a_report_and_fixes_hold(values: dict[str, object], stage: str) -> None:
    text = yaml.safe_dump(values)
    report = validate_text(text, name="x.yaml", stage=stage)
    if report.fixed_text is not None:
        again = validate_text(report.fixed_text, name="x.yaml", stage=stage)
        assert again.problems == report.remaining


@given(st.dictionaries(st.sampled_from("abcd"), VALUES.filter(lambda v: v == v), min_size=1), st.data())
def test_edits_on_text_equal_edits_on_values(values: dict[str, object], data: st.DataObject) -> None:
    text = yaml.safe_dump(values)
    document = read_document(text, "x.yaml")
    key = data.draw(st.sampled_from(sorted(values)))
    edit = data.draw(
        st.sampled_from(
            [
                Edit(action="drop", key=key),
                Edit(action="set", key=key, value=[1, "x"]),
                Edit(action="set", key="new", value=1.0e-5),
            ]
        )
    )
    edited = apply_to_text(document, text, (edit,))
    wanted = apply_to_values(document.values, (edit,))
    assert repr(yaml.safe_load(edited) or {}) == repr(wanted)


def test_number_from_text() -> None:
    assert number_from_text("1e-4") == 1e-4
    assert number_from_text("1.5E+3") == 1500.0
    assert number_from_text("nan") == "nan"
    assert number_from_text("0x10") == "0x10"
    assert number_from_text("fast") == "fast"
