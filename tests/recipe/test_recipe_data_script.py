"""A recipe's data script as text: identity, bounds, the syntax check that executes nothing, rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.data_mix import MAX_SCRIPT_CHARS, DataMix
from rdagent_ft.recipe.data_script import script_error, script_words
from rdagent_ft.recipe.diff import apply_diff, known_paths, recipe_diff
from rdagent_ft.recipe.parse import parse_recipe
from rdagent_ft.recipe.rules import RuleFacts, check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.space import search_space
from rdagent_ft.recipe.validate import read_recipe, validate_text
from rdagent_ft.values import content_hash

SCRIPT = "import json\nprint('hello')\n"


def with_script(script: str) -> Recipe:
    return Recipe(data=DataMix(script=script))


def problems_of(recipe: Recipe, *, can_contain: bool | None = None) -> list[Problem]:
    return check_recipe(recipe, RuleFacts(can_contain=can_contain))


def test_a_recipe_without_a_script_has_none_in_its_json_and_hash() -> None:
    assert "script" not in Recipe().model_dump_json()
    assert content_hash(json.loads(Recipe().model_dump_json())) == Recipe().hash


def test_the_script_is_part_of_the_identity() -> None:
    one, other = with_script(SCRIPT), with_script(SCRIPT + "\n")
    assert len({Recipe().hash, one.hash, other.hash}) == 3
    assert Recipe.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump])
def test_a_script_survives_json_and_yaml(dump: Callable[[object], str]) -> None:
    again, problems = parse_recipe(yaml.safe_load(dump(with_script(SCRIPT).model_dump(mode="json"))))
    assert problems == []
    assert again == with_script(SCRIPT)


def test_text_that_spells_a_number_stays_text() -> None:
    recipe, problems = parse_recipe({"data": {"script": "1"}})
    assert problems == []
    assert recipe == with_script("1")


@pytest.mark.parametrize("value", ["", "x" * (MAX_SCRIPT_CHARS + 1), 5, ["print(1)"], {"a": 1}, "a\ud800"])
def test_what_is_no_bounded_text_is_named(value: object) -> None:
    recipe, problems = parse_recipe({"data": {"script": value}})
    assert recipe is None
    assert [problem.problem_class for problem in problems] == ["config.bad_value"]
    assert len(problems[0].render()) < 600


def test_a_diff_sets_changes_and_drops_it() -> None:
    assert "data.script" in known_paths(Recipe())
    child = apply_diff(Recipe(), {"data.script": SCRIPT})
    assert recipe_diff(Recipe(), child) == {"data.script": SCRIPT}
    assert recipe_diff(child, Recipe()) == {"data.script": None}
    assert apply_diff(child, {"data.script": None}) == Recipe()
    assert recipe_diff(child, with_script("pass")) == {"data.script": "pass"}


def test_a_misspelled_path_is_told_the_right_one() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_diff(Recipe(), {"data.scripts": SCRIPT})
    assert "data.script" in caught.value.problems[0].fix


def test_the_local_executor_refuses_it_and_says_what_to_do() -> None:
    (problem,) = problems_of(with_script(SCRIPT), can_contain=False)
    assert (problem.key, problem.problem_class) == ("data.script", "config.needs_container")
    assert "--executor docker" in problem.fix
    assert SCRIPT not in problem.render()
    assert problems_of(with_script(SCRIPT), can_contain=True) == []
    assert problems_of(with_script(SCRIPT)) == []
    assert problems_of(Recipe(), can_contain=False) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import json\nfor x in\n", "line 2"),
        ("def f(:\n", "line 1"),
        ("from __future__ import braces", "not a chance"),
        ("# coding: no-such-coding\nx = 1", "encoding"),
        ("x = '\0'", "null bytes"),
        ("x = " + "9" * 20_000, "digits"),
        ("(" * 30_000, "nested"),
        ("x = " + "-" * 31_000 + "1", "MemoryError"),
        ("x = a" + ".b" * 15_000, "RecursionError"),
        ("x = a" + "()" * 15_000, "RecursionError"),
        ("x = '\ud800'", "character 5"),
    ],
)
def test_what_does_not_compile_is_told_and_harms_nothing(script: str, words: str) -> None:
    error = script_error(script)
    assert error is not None
    assert words in error
    assert len(error) <= 300


@pytest.mark.parametrize(
    "script", ["x = '\\d'", "pass", "a = " * 7_000 + "1", "import no_such_module_at_all"]
)
def test_what_compiles_is_taken(script: str) -> None:
    assert script_error(script) is None


def test_checking_executes_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"import pathlib, os, sys\npathlib.Path({str(mark)!r}).touch()\nsys.exit(9)\n"
    assert script_error(script) is None
    assert problems_of(with_script(script)) == []
    assert not mark.exists()


def test_a_broken_script_is_a_problem_of_the_recipe() -> None:
    (problem,) = problems_of(with_script("for"))
    assert (problem.key, problem.problem_class) == ("data.script", "config.script_syntax")
    assert "line 1" in problem.rule


def test_validate_judges_a_recipe_file_with_a_script() -> None:
    text = "data:\n  script: |\n    import json\n    for row in\nstages: [{kind: sft}]\n"
    report = validate_text(text, name="recipe.yaml")
    assert [problem.problem_class for problem in report.problems] == ["config.script_syntax"]
    good = read_recipe(text.replace("for row in", "pass"), "recipe.yaml")
    assert isinstance(good, Recipe)
    assert good.data.script == "import json\npass\n"


def test_samplers_do_not_see_it() -> None:
    recipe = with_script(SCRIPT)
    space = search_space(
        recipe, device="cuda", sources={"a": 5, "b": 5}, token_percentiles={"p99": 9, "max": 20}
    )
    assert not [dimension.path for dimension in space if "script" in dimension.path]


def test_its_name_holds_hash_and_length() -> None:
    assert script_words("pass") == "script d74ff0ee8da3 (4 characters)"
