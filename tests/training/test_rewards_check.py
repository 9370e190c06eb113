"""Rewards are tried on gold and wrong answers: sound ones pass, broken ones are named with row and value."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.errors import Problem
from rdagent_ft.training.rewards.check import RewardProblem, check_rewards
from rdagent_ft.training.rewards.load import CHEAP_KINDS, make_rewards

REPOSITORY = Path(__file__).resolve().parents[2]
Rows = list[dict[str, Any]]

SUMS: Rows = [{"prompt": f"{n} + {n + 3}?", "gold": str(2 * n + 3)} for n in range(40)]
LABELS: Rows = [{"prompt": f"q{n}", "gold": "yes" if n % 2 else "no"} for n in range(40)]
TURNS: Rows = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in SUMS]
PLANS: Rows = [
    {"prompt": f"q{n}", "gold": json.dumps({"tool": f"t{n % 3}", "kind": "plan", "n": n})} for n in range(40)
]
CODE: Rows = [
    {
        "prompt": f"add {n}",
        "gold": f"def plus(x):\n    return x + {n}",
        "tests": [f"assert plus(0) == {n}", f"assert plus(1) == {n + 1}"],
    }
    for n in range(1, 13)
]
SCHEMA = '{"type": "object", "required": ["tool"]}'
OWN = """\
def right(completions, gold, **columns): return [float(c == g) for c, g in zip(completions, gold)]
def wrong(completions, gold, **columns): return [float(c != g) for c, g in zip(completions, gold)]
def flat(completions, **columns): return [0.5] * len(completions)
def brief(completions, **columns): return [1 / (1 + len(c)) for c in completions]
def infinite(completions, **columns): return [float("inf")] * len(completions)
def breaks(completions, **columns): return [columns["absent"][0] for _ in completions]
def skips(completions, **columns): return [None] * len(completions)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tried_rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tried_rewards", raising=False)


def python(name: str, weight: float = 1.0) -> dict[str, Any]:
    return {"kind": "python", "function": f"tried_rewards.{name}", "weight": weight}


def regex(pattern: str, weight: float = 1.0, whole: bool = False) -> dict[str, Any]:
    return {"kind": "regex", "pattern": pattern, "weight": weight, "whole": whole}


def check(rows: Rows, *declared: dict[str, Any], **options: Any) -> list[RewardProblem]:
    return check_rewards(make_rewards(declared), rows, **options)


@pytest.mark.parametrize(
    ("rows", "declared"),
    [
        (SUMS, [{"kind": "exact"}]),
        (SUMS, [{"kind": "numeric"}, {"kind": "think_format", "weight": 0.2}]),
        (TURNS, [{"kind": "numeric"}, {"kind": "think_format", "weight": 0.2}]),
        ([{**row, "prompt": row["prompt"] + "<think>\n"} for row in SUMS], [{"kind": "think_format"}]),
        (SUMS, [regex(r"\d+")]),
        (SUMS, [regex(r"(?s)<think>.+</think>\s*\d+", whole=True)]),
        (SUMS, [{"kind": "exact"}, regex("As an AI", -1.0)]),
        (SUMS, [{"kind": "exact"}, python("brief", 0.1)]),
        (SUMS, [python("right")]),
        (LABELS, [{"kind": "exact"}]),
        ([{**row, "gold": "yes"} for row in LABELS], [{"kind": "exact"}]),
        (PLANS, [{"kind": "json_schema", "json_schema": SCHEMA}, {"kind": "json_field", "path": "tool"}]),
        ([*SUMS, {"prompt": "q", "gold": "many"}], [{"kind": "numeric"}]),
        ([*SUMS, {"prompt": "q", "gold": None}], [{"kind": "exact"}]),
        ([{**row, "gold": int(row["gold"])} for row in SUMS], [{"kind": "numeric"}]),
        (CODE, [{"kind": "code", "timeout_s": 20}]),
        (SUMS[:1], [{"kind": "exact"}]),
    ],
    ids=range(17),
)
def test_sound_rewards_pass(rows: Rows, declared: list[dict[str, Any]]) -> None:
    assert check(rows, *declared) == []


@pytest.mark.parametrize(
    ("rows", "declared", "reward", "words"),
    [
        (SUMS, [regex(".*")], "regex", "gives 1 to every answer"),
        (SUMS, [regex("Answer:")], "regex", "gold answer less than 1 on 40 of 40 rows"),
        (LABELS, [regex(r"^(\w\w+)?$")], "regex", "an empty answer as high as the gold answer on 40 of 40"),
        (PLANS, [{"kind": "json_field", "path": "kind"}], "json_field", "other rows' answers as high"),
        (PLANS, [{"kind": "json_field", "path": "absent"}], "json_field", "applies to none of the rows"),
        (
            PLANS,
            [{"kind": "json_schema", "json_schema": '{"type": "array"}'}],
            "json_schema",
            "less than 1 on",
        ),
        (LABELS, [{"kind": "numeric"}], "numeric", "applies to none of the rows"),
        (SUMS, [{"kind": "numeric", "weight": -1.0}], "numeric", "punishes the gold answer on 40 of 40"),
        (SUMS, [python("flat")], "flat", "gives 0.5 to every answer"),
        (SUMS, [python("wrong")], "sum", "weighted sum is 0 for gold answers and 1 for wrong ones"),
        (SUMS, [{"kind": "exact", "weight": 0.1}, python("brief", 5.0)], "sum", "weighted sum is"),
        (SUMS, [python("infinite")], "infinite", "returned inf for completion 0"),
        (SUMS, [python("breaks")], "breaks", "raised KeyError"),
        (SUMS, [python("skips")], "skips", "applies to none of the rows"),
        (SUMS, [{"kind": "code"}], "code", "no row has tests"),
        (
            [*CODE[:3], {"prompt": "p", "gold": "g", "tests": 7}],
            [{"kind": "code"}],
            "code",
            "`tests` must hold",
        ),
        ([{"prompt": "p"}], [{"kind": "exact"}], "sum", "no row has a gold answer"),
        ([], [{"kind": "exact"}], "sum", "no rows"),
    ],
    ids=range(18),
)
def test_broken_rewards_are_named(
    rows: Rows, declared: list[dict[str, Any]], reward: str, words: str
) -> None:
    (problem,) = check(rows, *declared)
    assert problem.reward == reward
    assert words in problem.rule
    assert problem.fix


def test_the_first_bad_row_and_its_value_are_given() -> None:
    rows = [dict(row) for row in CODE]
    rows[3]["tests"] = ["assert plus(0) == 4", "assert plus(0) == 5"]
    rows[7]["tests"] = ["assert plus(0) == 0"]
    (problem,) = check(rows, {"kind": "code", "timeout_s": 20})
    assert (problem.reward, problem.row, problem.value) == ("code", 3, 0.5)
    assert "on 2 of 12 rows" in problem.rule
    assert isinstance(problem.as_problem(), Problem)
    assert problem.as_problem().problem_class == "reward.broken"
    assert "row 3" in problem.as_problem().render()


def test_a_few_wrong_gold_answers_are_not_the_rewards_fault() -> None:
    rows = [dict(row) for row in SUMS]
    rows[5]["gold"] = "about 13 or 14 then"
    assert check(rows, regex(r"\d+", whole=True)) == []
    for row in rows[:10]:
        row["gold"] = "about 13 or 14 then"
    (problem,) = check(rows, regex(r"\d+", whole=True))
    assert (problem.row, problem.value) == (0, 0.0)


def test_every_broken_reward_is_told_once() -> None:
    problems = check(SUMS, regex("Answer:"), python("flat"), {"kind": "exact"})
    assert [problem.reward for problem in problems] == ["regex", "flat"]


def test_only_some_rows_are_scored_and_all_are_looked_at() -> None:
    seen: list[int] = []
    (reward,) = make_rewards([{"kind": "exact"}])
    original = reward.score
    object.__setattr__(
        reward, "score", lambda batch: (seen.append(len(batch.completions)), original(batch))[1]
    )
    assert check_rewards([reward], SUMS * 100, max_rows=8) == []
    assert seen == [8 * 6]


def test_beside_rewards_that_are_not_tried_the_sum_is_not_judged() -> None:
    declared = [regex("As an AI", -1.0), python("right")]
    cheap = make_rewards(declared, kinds=CHEAP_KINDS)
    assert [problem.reward for problem in check_rewards(cheap, SUMS)] == ["sum"]
    assert check_rewards(cheap, SUMS, complete=False) == []


def run_job(folder: Path, rewards: object, rows: Rows) -> int:
    (folder / "rewards.json").write_text(json.dumps(rewards))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = [sys.executable, "-m", "rdagent_ft.training.rewards.check_job"]
    argv += ["--rewards", "rewards.json", "--data", "train.jsonl"]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        timeout=120,
        check=False,
    )
    return done.returncode


def test_the_job_says_what_it_found(tmp_path: Path) -> None:
    assert run_job(tmp_path, [{"kind": "exact"}, {"kind": "reward_model"}, python("right")], SUMS) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found == {"n_rows": 40, "rewards": ["exact", "right"]}
    assert not (tmp_path / "failure.json").exists()


@pytest.mark.parametrize(
    ("declared", "failure_class", "words"),
    [
        ([{"kind": "exact"}, {"kind": "regex", "pattern": "Answer:"}], "reward.broken", "less than 1"),
        ([{"kind": "python", "function": "tried_rewards.absent"}], "reward.broken", "no function `absent`"),
        ([{"kind": "regex", "pattern": "("}], "config.bad_value", "pattern"),
        ([{"kind": "exakt"}], "config.bad_value", "rewards.0.kind"),
    ],
)
def test_the_job_ends_with_a_class(
    tmp_path: Path, declared: list[dict[str, Any]], failure_class: str, words: str
) -> None:
    assert run_job(tmp_path, declared, SUMS) == 3
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["class"] == failure_class
    assert words in failure["message"]
    assert not (tmp_path / "result.json").exists()
