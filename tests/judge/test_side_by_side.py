"""A judge's scores beside the rule's, in the same rows, deciding nothing; and how fast a judge is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply, Status
from judge_server import OUTAGE, built, by, row, says, texts_of

from rdagent_ft.engine.judged_results import judge_roles, report_warnings
from rdagent_ft.engine.judging import open_judging
from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.items import EvalItem
from rdagent_ft.evaluation.judge.build import build_judge
from rdagent_ft.evaluation.judge.rubrics import read_rubric
from rdagent_ft.evaluation.judge.side_by_side import (
    WITH_JUDGE,
    JudgeWish,
    is_judged,
    judge_column,
    wish_of,
)
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.results.folder import entry_of
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.settings import Settings

SAME = by(lambda texts: "correct" if "same" in texts["answer"] else "incorrect")
EQUIVALENCE = JudgeWish(equivalence=True)


def rows(*predictions: str) -> list[Any]:
    return [
        row(f"i{n}", text, "gold", float(text == "gold"), parts={"own": (1.0, 0.0)})
        for n, text in enumerate(predictions)
    ]


QUESTIONS = {f"i{n}": f"question {n}" for n in range(40)}


def test_the_rules_score_stays_and_the_judges_stands_beside_it(tmp_path: Path) -> None:
    given = [*rows("gold", "the same", "wrong"), row("i3", "", "gold", None, unscored_reason="no answer")]
    with FakeOpenAI(SAME) as server:
        judge = built(server, tmp_path)[0].judge
        found = judge_column(given, QUESTIONS, EQUIVALENCE, judge, seed=1)
    assert [r.score for r in found.rows] == [1.0, 0.0, 0.0, None]
    assert [r.parts.get(WITH_JUDGE) for r in found.rows] == [(1.0,), (1.0,), (0.0,), None]
    assert [r.parts["own"] for r in found.rows[:3]] == [(1.0, 0.0)] * 3
    assert found.n_rescued == 1
    entry = entry_of(found.rows, scorer="numeric_match", n_expected=4)
    assert (entry.value, entry.extra[WITH_JUDGE]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_a_missing_verdict_is_no_zero(tmp_path: Path) -> None:
    with FakeOpenAI(Reply("not JSON")) as server:
        found = judge_column(
            rows("gold", "x"), QUESTIONS, EQUIVALENCE, built(server, tmp_path)[0].judge, seed=1
        )
    assert WITH_JUDGE not in found.rows[1].parts
    assert found.rows[1].score == 0.0, "the rule's score needs no judge"
    assert found.health.n_unscored >= 1


def test_another_judges_measures_are_dropped_first(tmp_path: Path) -> None:
    before = [
        r.model_copy(update={"parts": {**r.parts, WITH_JUDGE: (1.0,), f"{WITH_JUDGE}/helpfulness": (0.5,)}})
        for r in rows("wrong", "gold")
    ]
    with FakeOpenAI(SAME) as server:
        found = judge_column(before, QUESTIONS, EQUIVALENCE, built(server, tmp_path)[0].judge, seed=1)
    assert [r.parts for r in found.rows] == [
        {"own": (1.0, 0.0), WITH_JUDGE: (0.0,)},
        {"own": (1.0, 0.0), WITH_JUDGE: (1.0,)},
    ]


@pytest.mark.parametrize("name", ["tutoring_socratic", "no_answer_reveal", "safety_refusal"])
def test_a_rubric_grades_beside_the_score(tmp_path: Path, name: str) -> None:
    rubric = read_rubric(name)
    light = next(c.id for c in rubric.criteria if not c.essential)

    def grade(body: dict[str, Any]) -> Reply:
        is_good = "good" in texts_of(body)["answer"]
        given = {c.id: "yes" if is_good or c.id != light else "no" for c in rubric.criteria}
        return Reply(json.dumps({"verdict": "scored", **given, "confidence": 0.9, "rationale": "b"}))

    with FakeOpenAI(grade) as server:
        judge = built(server, tmp_path)[0].judge
        found = judge_column(rows("good", "bad"), QUESTIONS, JudgeWish(rubric=name), judge, seed=1)
    place = f"{WITH_JUDGE}/{name}"
    assert found.rows[0].parts[place] == (1.0,)
    assert 0.0 < found.rows[1].parts[place][0] < 1.0
    assert found.rows[1].parts[f"{place}/{light}"] == (0.0,)
    assert [r.score for r in found.rows] == [0.0, 0.0], "the rule's score is not the rubric's"
    assert all(is_judged(key) for key in found.rows[0].parts if key != "own")


def test_what_a_judge_may_do_follows_from_the_scorer() -> None:
    assert wish_of("numeric_match") == JudgeWish(equivalence=True)
    assert wish_of("numeric_match", judge="none") == JudgeWish()
    assert wish_of("ifeval") == JudgeWish()
    assert wish_of("ifeval", rubric="helpfulness") == JudgeWish(rubric="helpfulness")
    with pytest.raises(UserError, match="exact"):
        wish_of("code_pass", judge="equivalence")


# Whole results


def task(tmp_path: Path, name: str, scorer: Any, n: int = 3) -> EvalTask:
    path = tmp_path / f"{name}.jsonl"
    items = [
        EvalItem(item_id=f"i{k}", prompt=f"question {k}", gold="gold", cluster=None) for k in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(item.model_dump(mode="json")) + "\n" for item in items))
    return EvalTask(
        benchmark=name, split="test", items_file=path, n_items=n, scorer=scorer, max_new_tokens=16
    )


def settings_of(server: FakeOpenAI, folder: Path, **more: Any) -> Settings:
    values = {"file_path": folder, "judge_model": "judge-1", "judge_api_base": server.base_url}
    return Settings.model_validate({**values, "llm_timeout": 5.0, "llm_max_wait": 0.2, **more})


def strict(body: dict[str, Any]) -> Reply:
    """Rejects every answer but `same`, and prefers the first of two: fails its gate."""
    texts = texts_of(body)
    return says(
        "first" if "first answer" in texts else "correct" if "same" in texts["answer"] else "incorrect"
    )


def test_a_judge_below_its_gate_is_shown_for_every_role_and_decides_nothing(tmp_path: Path) -> None:
    notices: list[str] = []
    with FakeOpenAI(strict) as server:
        judging = open_judging(settings_of(server, tmp_path), MemoryLedger(), notices.append)
        assert judging is not None
        tasks = (task(tmp_path, "sums", "numeric_match"), task(tmp_path, "labels", "choice_match"))
        given = {
            role: {"sums": rows("gold", text, "wrong"), "labels": rows("gold", "wrong", "wrong")}
            for role, text in (("base", "wrong"), ("tuned", "the same"))
        }
        wishes = {one.benchmark: wish_of(one.scorer) for one in tasks}
        found = judge_roles(judging, tasks, wishes, given, tuned_names=("m",), seed=1)
        n_requests = server.n_requests
        again = judge_roles(judging, tasks, wishes, found.rows, tuned_names=("m",), seed=1)
        assert server.n_requests == n_requests, "every verdict is kept"
        judging.close()
    assert again.rows == found.rows
    for role, rescued in (("base", 1.0), ("tuned", 2.0)):
        assert sum(r.parts[WITH_JUDGE][0] for r in found.rows[role]["sums"]) == rescued
        assert found.rows[role]["labels"] == given[role]["labels"], "labels are exact"
        report = found.reports[role]
        assert (report.status, report.decides) == ("failed_gate", False)
        assert any("decide nothing" in line for line in report_warnings(report))
    assert any("failed" in line for line in notices)


def test_an_outage_leaves_all_scores_and_says_so(tmp_path: Path) -> None:
    with FakeOpenAI(OUTAGE) as server:
        judging = open_judging(settings_of(server, tmp_path), MemoryLedger(), lambda _line: None)
        assert judging is not None
        given = {"tuned": {"sums": rows("gold", "x", "y")}}
        tasks = (task(tmp_path, "sums", "numeric_match"),)
        found = judge_roles(judging, tasks, {"sums": EQUIVALENCE}, given, tuned_names=(), seed=1)
        judging.close()
    assert [r.score for r in found.rows["tuned"]["sums"]] == [1.0, 0.0, 0.0]
    assert found.reports["tuned"].status == "invalid"
    assert not found.reports["tuned"].decides


def test_nothing_to_judge_is_no_report(tmp_path: Path) -> None:
    with FakeOpenAI(strict) as server:
        judging = open_judging(settings_of(server, tmp_path), MemoryLedger(), lambda _line: None)
        assert judging is not None
        given = {"tuned": {"labels": rows("gold", "x", "y")}}
        found = judge_roles(
            judging, (task(tmp_path, "labels", "choice_match"),), {}, given, tuned_names=(), seed=1
        )
        judging.close()
    assert found.reports == {}
    assert found.rows == given


# Pace


def test_a_wish_to_wait_holds_for_everybody(tmp_path: Path) -> None:
    """One 429 stops the others too: none of them is sent to be refused."""
    with FakeOpenAI(Status(429, "slow down", headers={"Retry-After": "120"})) as server:
        found = build_judge(settings_of(server, tmp_path), MemoryLedger(), lambda _line: None, n_parallel=1)
        assert found is not None
        column = judge_column(rows("a", "b", "c", "d"), QUESTIONS, EQUIVALENCE, found.judge, seed=1)
        assert server.n_requests == 1
    assert column.health.unscored == {"outage": 4}


def test_a_rate_bounds_what_is_sent(tmp_path: Path) -> None:
    with FakeOpenAI(SAME) as server:
        found = build_judge(
            settings_of(server, tmp_path, llm_timeout=0.5), MemoryLedger(), lambda _line: None, n_parallel=1,
            requests_per_minute=0.5,
        )  # fmt: skip
        assert found is not None
        column = judge_column(rows("the same", "b", "c"), QUESTIONS, EQUIVALENCE, found.judge, seed=1)
        assert server.n_requests == 1
    assert column.rows[0].parts[WITH_JUDGE] == (1.0,)
    assert column.health.unscored == {"outage": 2}


def test_a_high_rate_sends_everything(tmp_path: Path) -> None:
    with FakeOpenAI(SAME) as server:
        found = build_judge(
            settings_of(server, tmp_path), MemoryLedger(), lambda _line: None, requests_per_minute=60_000.0
        )
        assert found is not None
        column = judge_column(rows(*"abcdefgh"), QUESTIONS, EQUIVALENCE, found.judge, seed=1)
    assert column.health.n_unscored == 0
