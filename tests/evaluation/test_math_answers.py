"""Mathematical equality in children: forms, what hangs, what kills, and who pays for it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("math_verify", reason="needs the package math-verify")

from rdagent_ft.evaluation.math_answers import MODULE, score_math
from rdagent_ft.execution.line_worker import ask_all

CASES = (
    ("so it is $\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}", 1.0),
    ("\\boxed{0.5}", "\\frac{1}{2}", 1.0),
    ("The answer is \\boxed{2\\sqrt{3}}.", "\\sqrt{12}", 1.0),
    ("\\boxed{(3, \\frac{\\pi}{2})}", "\\left( 3, \\frac{\\pi}{2} \\right)", 1.0),
    ("\\boxed{q - p}", "p - q", 0.0),
    ("\\boxed{x=5}", "5", 1.0),
    ("\\boxed{36}", "\\$36", 1.0),
    ("\\boxed{32348}", "\\$32,\\!348", 1.0),
    ("I do not know", "5", 0.0),
    ("", "5", 0.0),
    ("x" * 200_001, "5", 0.0),
    ("\\boxed{9^{9^{9^{9^9}}}}", "3", 0.0),
    ("\\boxed{3}", "3", 1.0),
)


@pytest.fixture(scope="module")
def scored() -> list[float | None]:
    return [found.score for found in score_math([(answer, gold) for answer, gold, _ in CASES])]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number][0][:30] or "empty")
def test_equal_as_mathematics(scored: list[float | None], number: int) -> None:
    assert scored[number] == CASES[number][2]


def test_a_reference_that_is_no_mathematics_is_unscored_and_an_answer_is_wrong() -> None:
    unscored, wrong = score_math([("\\boxed{5}", ""), ("no idea at all", "5")])
    assert unscored.score is None
    assert unscored.unscored_reason == "reference answer cannot be read as mathematics"
    assert (wrong.score, wrong.extracted, wrong.unscored_reason) == (0.0, None, None)


def test_a_hanging_answer_is_killed_at_the_limit_and_costs_itself_alone() -> None:
    """The limit is below the checker's own timeout, so the child must be killed from outside."""
    started = time.monotonic()
    tower, after = score_math([("\\boxed{9^{9^{9^{9^9}}}}", "3"), ("\\boxed{4}", "4")], limit_s=1.0)
    assert (tower.score, after.score) == (0.0, 1.0)
    assert time.monotonic() - started < 60


def test_a_request_that_breaks_the_child_is_a_crash() -> None:
    replies = ask_all(MODULE, [{"gold": 5}, {"gold": "5"}], limit_s=10, n_workers=1)
    assert [reply.outcome for reply in replies] == ["crashed", "answered"]


def test_an_answer_never_runs_as_code(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    attack = f"$__import__('pathlib').Path('{target}').touch()$ \\boxed{{__import__('os').system('true')}}"
    (found,) = score_math([(attack, "3")])
    assert found.score == 0.0
    assert not target.exists()


@pytest.mark.real_data
def test_every_reference_of_math500_is_read_and_its_own_solution_is_right(shared_data: Path) -> None:
    lines = (shared_data / "math500" / "math500.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    found = score_math([(record["solution"], record["answer"]) for record in records])
    assert sum(one.score is None for one in found) == 0
    assert sum(one.score == 1.0 for one in found) >= 498
