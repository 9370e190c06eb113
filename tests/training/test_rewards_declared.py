"""From `rewards.json` to functions: the recipe's declarations, names, weights, functions by dotted path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from rdagent_ft.errors import RecipeError
from rdagent_ft.recipe.rewards import Reward
from rdagent_ft.training.rewards.load import (
    FIELDS,
    checked_declarations,
    load_rewards,
    make_rewards,
    reward_model_weight,
)
from rdagent_ft.training.rewards.reward import RewardError

CLASSES = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Reward)[0])}
EXAMPLES: dict[str, dict[str, Any]] = {
    "regex": {"pattern": "a"},
    "json_schema": {"json_schema": "{}"},
    "json_field": {"path": "a.b"},
    "python": {"function": "json.dumps"},
}


def test_the_table_is_that_of_the_recipe() -> None:
    assert set(FIELDS) == set(CLASSES)
    for kind, declared in CLASSES.items():
        given = {"kind": kind, **EXAMPLES.get(kind, {})}
        assert checked_declarations([given]) == [declared.model_validate(given).model_dump()]


@pytest.mark.parametrize(
    ("declared", "key"),
    [
        ({"kind": "exakt"}, "rewards.0.kind"),
        ({}, "rewards.0.kind"),
        ({"kind": ["exact"]}, "rewards.0.kind"),
        ({"kind": "exact", "weight": 101}, "rewards.0.weight"),
        ({"kind": "exact", "weight": "1"}, "rewards.0.weight"),
        ({"kind": "exact", "weight": float("nan")}, "rewards.0.weight"),
        ({"kind": "exact", "weight": True}, "rewards.0.weight"),
        ({"kind": "exact", "pattern": "a"}, "rewards.0.pattern"),
        ({"kind": "regex"}, "rewards.0.pattern"),
        ({"kind": "regex", "pattern": ""}, "rewards.0.pattern"),
        ({"kind": "regex", "pattern": "a", "whole": 1}, "rewards.0.whole"),
        ({"kind": "regex", "pattern": "a(", "whole": True}, "pattern"),
        ({"kind": "numeric", "tolerance": 2.0}, "rewards.0.tolerance"),
        ({"kind": "code", "timeout_s": 0}, "rewards.0.timeout_s"),
        ({"kind": "code", "timeout_s": 61}, "rewards.0.timeout_s"),
        ({"kind": "python", "function": "brief"}, "rewards.0.function"),
        ({"kind": "python", "function": "os;x.y"}, "rewards.0.function"),
        ({"kind": "json_field", "path": "a..b"}, "path"),
    ],
)
def test_a_bad_declaration_is_named_with_its_key(declared: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_rewards([declared])
    assert [problem.key for problem in caught.value.problems] == [key]
    assert caught.value.problems[0].fix
    if key not in {"pattern", "path"} and declared.get("weight") is not True:
        with pytest.raises(ValidationError):
            TypeAdapter[Any](Reward).validate_python(declared, strict=True)


def test_all_problems_are_told_together() -> None:
    with pytest.raises(RecipeError) as caught:
        make_rewards([{"kind": "regex"}, {"kind": "exact"}, {"kind": "numeric", "tolerance": -1, "x": 1}])
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["rewards.0.pattern", "rewards.2.x", "rewards.2.tolerance"]


def write(folder: Path, value: Any) -> Path:
    path = folder / "rewards.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_names_are_unique_and_the_reward_model_is_apart(tmp_path: Path) -> None:
    declared = [
        {"kind": "exact", "weight": 2},
        {"kind": "reward_model", "weight": 0.5},
        {"kind": "exact"},
        {"kind": "think_format", "weight": -0.5},
        {"kind": "regex", "pattern": "a"},
    ]
    path = write(tmp_path, declared)
    rewards = load_rewards(path)
    assert [(r.name, r.__name__, r.weight) for r in rewards] == [
        ("exact", "exact", 2.0),
        ("exact_2", "exact_2", 1.0),
        ("think_format", "think_format", -0.5),
        ("regex", "regex", 1.0),
    ]
    assert reward_model_weight(path) == 0.5
    assert [r.name for r in load_rewards(path, kinds={"think_format"})] == ["think_format"]
    assert reward_model_weight(write(tmp_path, [{"kind": "exact"}])) is None
    assert load_rewards(write(tmp_path, [{"kind": "reward_model"}])) == []


@pytest.mark.parametrize(
    "value", ["", "{", "[" * 100_000, {"kind": "exact"}, [1], [], [{"kind": "reward_model"}] * 2]
)
def test_a_file_that_is_no_list_of_rewards_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        load_rewards(write(tmp_path, value))
    assert caught.value.problems
    with pytest.raises(RecipeError):
        load_rewards(tmp_path / "absent.json")


OWN = """\
import math
def brief(completions, **columns):
    return [1.0 / (1 + len(text)) for text in completions]
def skips(completions, gold):
    return [None if g is None else len(g) for g in gold]
def short(completions, **columns): return [1.0]
def long(completions, **columns): return [1.0] * (len(completions) + 1)
def words(completions, **columns): return ["1"] * len(completions)
def number(completions, **columns): return 1.0
def nothing(completions, **columns): pass
def nan(completions, **columns): return [math.nan] * len(completions)
def raises(completions, **columns): return [1 / 0]
async def later(completions, **columns): return [1.0] * len(completions)
def blind(prompts): return [1.0] * len(prompts)
value = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_rewards.py").write_text(OWN)
    (tmp_path / "broken_rewards.py").write_text("import no_such_module_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_rewards"
    for name in ("own_rewards", "broken_rewards"):
        sys.modules.pop(name, None)


def python(function: str) -> Any:
    (found,) = make_rewards([{"kind": "python", "function": function}])
    return found


def test_a_persons_function_gets_what_it_asks_for(own: str) -> None:
    brief, skips = python(f"{own}.brief"), python(f"{own}.skips")
    assert brief.name == "brief"
    more = {"trainer_state": object(), "tests": [None, None]}
    assert brief(prompts=["p", "p"], completions=["", "abc"], gold=["a", "b"], **more) == [1.0, 0.25]
    assert skips(prompts=["p", "p"], completions=["", "abc"], gold=[None, "bb"], **more) == [None, 2.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", "1 scores for 2"),
        ("long", "3 scores for 2"),
        ("words", "returned str for completion 0"),
        ("number", "returned float, not a list"),
        ("nothing", "returned NoneType"),
        ("nan", "returned nan for completion 0"),
        ("raises", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_it_returns_is_checked_and_it_is_named(own: str, name: str, words: str) -> None:
    with pytest.raises(RewardError, match=f"`{own}.{name}`.*{words}"):
        python(f"{own}.{name}")(prompts=["p", "p"], completions=["a", "b"])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("own_rewards.absent", "has no function `absent`"),
        ("own_rewards.value", "has no function `value`"),
        ("own_rewards.later", "async"),
        ("own_rewards.blind", "no argument `completions`"),
        ("no_such_package.f", "ModuleNotFoundError"),
        ("broken_rewards.f", "no_such_module_here"),
    ],
)
@pytest.mark.usefixtures("own")
def test_a_function_that_cannot_be_used_is_named_at_once(function: str, words: str) -> None:
    with pytest.raises(RewardError, match=f"`{function}`.*{words}"):
        python(function)


def test_nothing_beside_the_standard_library_is_needed_to_load() -> None:
    script = (
        "import sys, rdagent_ft.training.rewards.check_job;"
        "others = {'pydantic', 'yaml', 'numpy', 'torch', 'jsonschema', 'math_verify'};"
        "print(sorted(others & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
