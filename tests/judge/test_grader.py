"""A benchmark whose items carry rubrics: the judge is its scorer, through the same door as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply
from judge_server import OUTAGE, built, texts_of

from rdagent_ft.errors import JobError, UserError
from rdagent_ft.evaluation.items import Answer, EvalItem, Turn, prompt_hash
from rdagent_ft.evaluation.judge.grader import grader_of, rubric_of
from rdagent_ft.evaluation.outside import Outside
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.score import missing_outside, score_answers
from rdagent_ft.values import canonical_json

POINTS = "Does the answer greet the reader?\nDoes the answer name a number?"
TASK = EvalTask(
    benchmark="own", split="test", items_file=Path("x"), n_items=2, scorer="rubric", max_new_tokens=8
)


def item(item_id: str, rubric: str = POINTS) -> EvalItem:
    return EvalItem(
        item_id=item_id,
        prompt=f"prompt {item_id}",
        gold=canonical_json({"rubric": rubric, "reference": None}),
        messages=(Turn(role="user", content=f"question {item_id}"),),
    )


def answer(item_id: str, text: str) -> Answer:
    return Answer(item_id=item_id, prompt_hash=prompt_hash(f"prompt {item_id}"), prediction=text)


def by_words(body: dict[str, Any]) -> Reply:
    """Says yes to a point when the answer holds its sign."""
    text = texts_of(body)["answer"]
    points = {"point_1": "hello" in text, "point_2": any(letter.isdigit() for letter in text)}
    said = {name: "yes" if found else "no" for name, found in points.items()}
    return Reply(json.dumps({"verdict": "scored", **said, "confidence": 1.0, "rationale": "by words"}))


def test_points_of_the_items_own_rubric_become_a_score(tmp_path: Path) -> None:
    items = [item("a"), item("b")]
    answers = [answer("a", "hello, 7 of them"), answer("b", "hello you")]
    with FakeOpenAI(by_words) as server:
        judge, _, _ = built(server, tmp_path)
        outside = Outside(grade=grader_of(judge.judge))
        assert missing_outside([TASK], outside) == []
        rows = score_answers(TASK, items, answers, outside)
        asked = {texts_of(request.body)["conversation"] for request in server.requests}
        assert asked == {"question a", "question b"}
        judge.judge.cache.close()
    assert [row.score for row in rows] == [1.0, 0.5]
    assert rows[1].parts == {"point_1": (1.0,), "point_2": (0.0,)}


def test_an_outage_leaves_answers_unscored(tmp_path: Path) -> None:
    with FakeOpenAI(OUTAGE) as server:
        judge, _, _ = built(server, tmp_path)
        (row,) = score_answers(
            TASK, [item("a")], [answer("a", "hello")], Outside(grade=grader_of(judge.judge))
        )
        judge.judge.cache.close()
    assert row.score is None
    assert row.unscored_reason == "judge: outage"


def test_without_a_judge_nothing_is_asked() -> None:
    (problem,) = missing_outside([TASK], Outside())
    assert "FT_JUDGE_MODEL" in problem.fix
    with pytest.raises(JobError, match="could not be scored"):
        score_answers(TASK, [item("a")], [answer("a", "hello")])


def test_shipped_rubrics_go_by_name_and_bad_ones_are_named() -> None:
    assert rubric_of("tutoring_socratic").id == "tutoring_socratic"
    assert [criterion.id for criterion in rubric_of(POINTS).criteria] == ["point_1", "point_2"]
    for bad in ("short", "\n".join(["Is this one of too many points?"] * 21)):
        with pytest.raises(UserError, match="is no rubric"):
            rubric_of(bad)
