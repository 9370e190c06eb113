"""From answers to rows: order, what is asked of whom, and refusals before any work."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import Answer, EvalItem, prompt_hash
from rdagent_ft.evaluation.outside import CodeCase, CodeResult, Outside
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.rows import ScorerName
from rdagent_ft.evaluation.score import TRUNCATED_PROMPT, missing_outside, refuse_missing, score_answers


def task(scorer: ScorerName, name: str = "b") -> EvalTask:
    return EvalTask(
        benchmark=name, split="test", items_file=Path("x"), n_items=3, scorer=scorer, max_new_tokens=8
    )


def item(number: int, gold: str) -> EvalItem:
    return EvalItem(item_id=f"i{number}", prompt=f"p{number}", gold=gold, cluster=f"c{number}")


def answer(number: int, text: str, **changes: object) -> Answer:
    found = Answer(item_id=f"i{number}", prompt_hash=prompt_hash(f"p{number}"), prediction=text)
    return found.model_copy(update=changes)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are the answers themselves: what a program is made of is tested elsewhere."""
    module = types.ModuleType("rdagent_ft.evaluation.code.programs")
    module.program_of = lambda gold, prompt, prediction: prediction  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rdagent_ft.evaluation.code.programs", module)


def runner(seen: list[CodeCase], **outcomes: str) -> Outside:
    def run(cases: Sequence[CodeCase]) -> list[CodeResult]:
        seen.extend(cases)
        return [
            CodeResult.model_validate(
                {"case_id": case.case_id, "outcome": outcomes[case.program], "detail": "why"}
            )
            for case in cases
        ]

    return Outside(run_code=run)


def test_rows_are_in_item_order_and_an_unread_answer_stays_in_its_place() -> None:
    items = [item(0, "B"), item(1, "A"), item(2, "C")]
    answers = [
        answer(2, "Answer: C"),
        answer(1, "A", prompt_truncated=True),
        answer(0, "B", repeat=1),
        answer(0, "C"),
    ]
    rows = score_answers(task("choice_match"), items, answers)
    assert [(row.item_id, row.repeat, row.score, row.extracted) for row in rows] == [
        ("i0", 0, 0.0, "C"),
        ("i0", 1, 1.0, "B"),
        ("i1", 0, None, None),
        ("i2", 0, 1.0, "C"),
    ]
    assert rows[2].unscored_reason == TRUNCATED_PROMPT
    assert rows[0].cluster == "c0"


@pytest.mark.usefixtures("programs")
def test_programs_run_outside_and_only_the_sandboxs_failure_is_unscored() -> None:
    seen: list[CodeCase] = []
    outside = runner(seen, good="passed", bad="failed", slow="timeout", lost="not_run")
    items = [item(number, "{}") for number in range(5)]
    texts = ["good", "bad", "slow", "lost", "unread"]
    answers = [answer(number, text) for number, text in enumerate(texts)]
    answers[4] = answers[4].model_copy(update={"unanswered": "no reply"})
    rows = score_answers(task("code_pass"), items, answers, outside)
    assert [row.score for row in rows] == [1.0, 0.0, 0.0, None, None]
    assert [row.extracted for row in rows] == ["passed", "failed", "timeout", None, None]
    assert "why" in (rows[3].unscored_reason or "")
    assert [case.case_id for case in seen] == ["i0-0", "i1-0", "i2-0", "i3-0"]


@pytest.mark.usefixtures("programs")
def test_results_of_other_programs_are_refused() -> None:
    outside = Outside(run_code=lambda cases: [])
    with pytest.raises(JobError, match="1 programs were to be run, 0 other results"):
        score_answers(task("code_pass"), [item(0, "{}")], [answer(0, "x")], outside)


def test_everything_that_is_missing_is_told_before_anything_runs() -> None:
    tasks = [task("exact_match"), task("code_pass", "humaneval"), task("code_pass", "mbpp"), task("ifeval")]
    problems = missing_outside(tasks, Outside())
    assert problems[0].value == "humaneval, mbpp"
    assert problems[-1].key == "NLTK_DATA"
    assert missing_outside(tasks[:1], Outside()) == []
    assert missing_outside(tasks[1:3], runner([])) == []
    with pytest.raises(JobError) as caught:
        refuse_missing(tasks, Outside())
    assert "punkt_tab" in caught.value.render()
    with pytest.raises(JobError) as caught:
        score_answers(task("code_pass"), [item(0, "{}")], [answer(0, "x")])
    assert "sandbox" in caught.value.render()
