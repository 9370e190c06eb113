"""What a job left is believed only when it answers exactly the items that were asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import prompt_hash
from rdagent_ft.evaluation.lm_eval_harness import LmEvalHarness, adapters_without_effect
from rdagent_ft.evaluation.port import EvalModel, EvalRequest, EvalTask, Harness
from rdagent_ft.evaluation.score import score_request

NAME = "samples-base-heldout-val.jsonl"


@pytest.fixture
def request_(tmp_path: Path) -> EvalRequest:
    items = tmp_path / "val.jsonl"
    items.write_text("".join(json.dumps(item(number)) + "\n" for number in range(3)))
    return EvalRequest(
        models=(EvalModel(role="base", path=tmp_path / "model"),),
        tasks=(
            EvalTask(
                benchmark="heldout",
                split="val",
                items_file=items,
                n_items=3,
                scorer="exact_match",
                max_new_tokens=8,
            ),
        ),
        prompt_format="plain",
        batch_size=2,
    )


def item(number: int) -> dict[str, Any]:
    return {"item_id": f"id{number}", "prompt": f"q{number}", "gold": f"a{number}", "cluster": f"c{number}"}


def answer(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "item_id": f"id{number}",
        "prompt_hash": prompt_hash(f"q{number}"),
        "prediction": f" a{number}\n" if number else "wrong",
        "finish_reason": "stop",
        "n_tokens": 2,
        "prompt_truncated": False,
        **changes,
    }


def leave(folder: Path, answers: list[dict[str, Any]], exact_match: Any = 2 / 3, models: Any = ()) -> None:
    (folder / NAME).write_text("".join(json.dumps(line) + "\n" for line in answers))
    tasks = [{"role": "base", "benchmark": "heldout", "split": "val", "exact_match": exact_match}]
    (folder / "aggregate.json").write_text(json.dumps({"tasks": tasks, "models": models}))


def test_rows_come_in_item_order(request_: EvalRequest, tmp_path: Path) -> None:
    harness: Harness = LmEvalHarness()
    leave(tmp_path, [answer(2), answer(0, finish_reason="length"), answer(1)])
    rows = score_request(request_, harness.parse(request_, tmp_path))["base", "heldout", "val"]
    assert [(row.item_id, row.score, row.cluster) for row in rows] == [
        ("id0", 0.0, "c0"),
        ("id1", 1.0, "c1"),
        ("id2", 1.0, "c2"),
    ]
    assert rows[0].finish_reason == "length"
    assert rows[1].extracted == "a1"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([answer(0), answer(1)], r"1 missing \(id2\), 0 unknown"),
        ([answer(0), answer(1), answer(2), answer(9)], r"0 missing \(\), 1 unknown \(id9\)"),
        ([answer(0), answer(1), answer(1)], "answers an item a second time"),
        ([answer(0), answer(1), answer(2, prompt_hash="0" * 16)], "id2 was answered to another prompt"),
        ([answer(0), answer(1), {"item_id": "id2"}], ":3 is no answer"),
        ([answer(0), answer(1), answer(2, score=1.0)], ":3 is no answer"),
        ([answer(0), answer(1), answer(2, n_tokens="many")], ":3 is no answer"),
    ],
)
def test_anything_else_is_refused(
    request_: EvalRequest, tmp_path: Path, answers: list[dict[str, Any]], message: str
) -> None:
    leave(tmp_path, answers)
    with pytest.raises(JobError, match=message):
        LmEvalHarness().parse(request_, tmp_path)


@pytest.mark.parametrize("theirs", [0.6, 1.0, None, "0.667", float("nan")])
def test_the_harness_mean_must_be_ours(request_: EvalRequest, tmp_path: Path, theirs: Any) -> None:
    leave(tmp_path, [answer(0), answer(1), answer(2)], theirs)
    with pytest.raises(JobError, match=r"exact.match"):
        LmEvalHarness().parse(request_, tmp_path)


def test_no_aggregate_means_no_result(request_: EvalRequest, tmp_path: Path) -> None:
    leave(tmp_path, [answer(0), answer(1), answer(2)])
    (tmp_path / "aggregate.json").unlink()
    with pytest.raises(JobError, match=r"aggregate\.json"):
        LmEvalHarness().parse(request_, tmp_path)


def test_a_cut_prompt_is_unscored(request_: EvalRequest, tmp_path: Path) -> None:
    leave(tmp_path, [answer(0), answer(1, prompt_truncated=True), answer(2)])
    rows = score_request(request_, LmEvalHarness().parse(request_, tmp_path))["base", "heldout", "val"]
    assert [row.score for row in rows] == [0.0, None, 1.0]


def test_lone_surrogates_in_an_answer_are_replaced(request_: EvalRequest, tmp_path: Path) -> None:
    leave(tmp_path, [answer(0, prediction="\ud800"), answer(1), answer(2)])
    rows = score_request(request_, LmEvalHarness().parse(request_, tmp_path))["base", "heldout", "val"]
    assert rows[0].prediction == "?"


def test_prepare_writes_the_request_and_names_the_job(request_: EvalRequest, tmp_path: Path) -> None:
    out_dir = tmp_path / "job"
    out_dir.mkdir()
    argv = LmEvalHarness().prepare(request_, out_dir)
    assert argv == ("python", "-m", "rdagent_ft.evaluation.lm_eval_job", "request.json")
    written = EvalRequest.model_validate_json((out_dir / "request.json").read_text())
    assert written.tasks[0].items_file.is_absolute()


def test_prepare_checks_items_and_names(request_: EvalRequest, tmp_path: Path) -> None:
    short = request_.tasks[0].model_copy(update={"n_items": 4})
    with pytest.raises(JobError, match="holds 3 items, the task says 4"):
        LmEvalHarness().prepare(request_.model_copy(update={"tasks": (short,)}), tmp_path)
    twice = request_.model_copy(update={"models": request_.models * 2})
    with pytest.raises(JobError, match="same role"):
        LmEvalHarness().prepare(twice, tmp_path)
    named = request_.models[0].model_copy(update={"role": "../up"})
    with pytest.raises(JobError, match="file name"):
        LmEvalHarness().prepare(request_.model_copy(update={"models": (named,)}), tmp_path)
    assert not (tmp_path / "request.json").exists()


def test_adapters_without_effect_are_named(request_: EvalRequest, tmp_path: Path) -> None:
    models = [{"role": "base", "adapter_differs": None}, {"role": "tuned", "adapter_differs": False}, 7]
    leave(tmp_path, [], models=models)
    assert adapters_without_effect(tmp_path) == ("tuned",)
