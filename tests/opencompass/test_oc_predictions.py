"""Prediction files of OpenCompass as hostile input: an answer counts only for the item it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oc_fixtures import AWKWARD, make_task, own_items

from rdagent_ft.errors import DataError, JobError
from rdagent_ft.evaluation.items import EvalItem, prompt_hash, refuse_incomplete
from rdagent_ft.evaluation.opencompass.logs import read_logs
from rdagent_ft.evaluation.opencompass.place import Placed, own_messages, place_data
from rdagent_ft.evaluation.opencompass.predictions import (
    DatasetAnswers,
    mend_unfinished,
    read_dataset,
)
from rdagent_ft.evaluation.opencompass.spec import OpenCompassTask


def entry(item: EvalItem, prediction: str = "42") -> dict[str, Any]:
    prompt = [{"role": role, "content": content} for role, content in own_messages(item)]
    return {"origin_prompt": prompt, "prediction": prediction, "gold": item.item_id}


class Run:
    """Three own items placed, and a folder to put predictions into."""

    def __init__(self, folder: Path, repeats: int = 1) -> None:
        self.folder = folder
        self.items = own_items(3)
        self.task: OpenCompassTask = make_task(
            folder, self.items, repeats=repeats, temperature=0.5 if repeats > 1 else 0.0
        )
        (self.placed,) = place_data((self.task,), folder / "data")
        self.predictions = folder / "run" / "predictions" / "base"
        self.predictions.mkdir(parents=True)

    def read(self, placed: Placed | None = None) -> DatasetAnswers:
        by_id = {item.item_id: item for item in self.items}
        return read_dataset(self.folder / "run", "base", self.task, placed or self.placed, by_id)

    def finish(self, document: Any) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        (self.predictions / "heldout-val.json").write_text(text)

    def all(self) -> dict[str, Any]:
        return {str(n): entry(item, f"answer {n}") for n, item in enumerate(self.items)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_finished_file_becomes_answers_in_item_order(run: Run) -> None:
    run.finish(dict(reversed(run.all().items())))
    read = run.read()
    assert read.state == "complete"
    assert read.asked_sha256
    assert [a.prediction for a in read.answers] == ["answer 0", "answer 1", "answer 2"]
    assert read.answers[2].prompt_hash == prompt_hash(AWKWARD)
    refuse_incomplete(read.answers, run.items, 1, "test")


def test_repeats_come_one_pass_after_the_other(tmp_path: Path) -> None:
    run = Run(tmp_path, repeats=2)
    run.finish({str(n): entry(run.items[n % 3], f"answer {n}") for n in range(6)})
    found = [(a.item_id, a.repeat, a.prediction) for a in run.read().answers]
    assert found[:2] == [("item0000", 0, "answer 0"), ("item0000", 1, "answer 3")]
    refuse_incomplete(run.read().answers, run.items, 2, "test")


def test_two_models_asked_alike_have_one_hash_and_others_another(run: Run, tmp_path: Path) -> None:
    run.finish(run.all())
    first = run.read().asked_sha256
    run.finish({key: {**value, "prediction": "other"} for key, value in run.all().items()})
    assert run.read().asked_sha256 == first


def changed(run: Run, **changes: Any) -> dict[str, Any]:
    return {**run.all(), "1": {**run.all()["1"], **changes}}


def without(run: Run, key: str) -> dict[str, Any]:
    return {k: v for k, v in run.all().items() if k != key}


CASES: list[tuple[str, Any, str]] = [
    ("one is missing", lambda r: without(r, "2"), "holds 2 answers to 3"),
    ("too many", lambda r: {**r.all(), "3": entry(r.items[0])}, "only 3 questions"),
    ("padded index", lambda r: {**without(r, "1"), "01": r.all()["1"]}, "where an index belongs"),
    ("another digit", lambda r: {**without(r, "1"), "¹": r.all()["1"]}, "where an index belongs"),
    ("negative index", lambda r: {**without(r, "1"), "-1": r.all()["1"]}, "where an index belongs"),
    ("huge index", lambda r: {**without(r, "1"), "9" * 5000: r.all()["1"]}, "where an index belongs"),
    ("swapped", lambda r: {**r.all(), "0": r.all()["2"], "2": r.all()["0"]}, "another text"),
    ("other prompt", lambda r: changed(r, origin_prompt=[{"role": "user", "content": "hi"}]), "another text"),
    ("prompt as text", lambda r: changed(r, origin_prompt="What is 1?"), "no list of turns"),
    ("prompt of parts", lambda r: changed(r, origin_prompt=[{"role": "user", "content": ["x"]}]), "no list"),
    ("no prompt", lambda r: changed(r, origin_prompt=None), "no list of turns"),
    ("other gold", lambda r: changed(r, gold="item0000"), "another gold"),
    ("list of predictions", lambda r: changed(r, prediction=["a", "b"]), "no answer"),
    ("null prediction", lambda r: changed(r, prediction=None), "no answer"),
    ("an entry is a list", lambda r: {**r.all(), "1": []}, "no answer"),
    ("a list", lambda r: list(r.all().values()), "an object was expected"),
    ("cut", lambda r: json.dumps(r.all())[:-30], "not valid JSON"),
    ("deep", lambda _: '{"0":' * 100_000, "nested too deeply"),
    ("empty", lambda _: "", "not valid JSON"),
]


@pytest.mark.parametrize(("make", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_file_of_something_else_is_refused(run: Run, make: Any, message: str) -> None:
    run.finish(make(run))
    with pytest.raises(JobError, match=message):
        run.read()


def test_a_link_to_elsewhere_is_not_followed(run: Run) -> None:
    outside = run.folder / "outside.json"
    outside.write_text(json.dumps(run.all()))
    (run.predictions / "heldout-val.json").symlink_to(outside)
    with pytest.raises(JobError):
        run.read()


def test_surrogates_in_a_prediction_can_be_stored(run: Run) -> None:
    run.finish(changed(run, prediction="a\ud800b"))
    assert run.read().answers[1].prediction == "a?b"


def test_what_a_killed_run_saved_is_partial(run: Run) -> None:
    lines = [json.dumps({"idx": str(n), **value}) for n, value in enumerate(run.all().values())]
    text = lines[0] + "\n" + lines[1].replace("answer 1", "a\u2028b") + "\n" + lines[2][:40]
    (run.predictions / "tmp_heldout-val.jsonl").write_text(text)
    read = run.read()
    assert (read.state, read.asked_sha256) == ("partial", None)
    assert [a.prediction for a in read.answers] == ["answer 0", "a\u2028b"]


def test_an_interrupted_file_is_mended_so_that_opencompass_can_go_on(run: Run) -> None:
    by_id = {item.item_id: item for item in run.items}
    path = run.predictions / "tmp_heldout-val.jsonl"
    lines = [
        json.dumps({"idx": str(n), **value}, ensure_ascii=False) for n, value in enumerate(run.all().values())
    ]
    path.write_text(lines[0] + "\n" + lines[1].replace("answer 1", "a\u2028b") + "\n" + lines[2][:40])
    mend_unfinished(run.folder / "run", "base", run.task, run.placed, by_id)
    restored = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["idx"], r["prediction"]) for r in restored] == [("0", "answer 0"), ("1", "a\u2028b")]
    path.write_text(lines[1] + "\n")
    with pytest.raises(JobError, match="but not 0"):
        mend_unfinished(run.folder / "run", "base", run.task, run.placed, by_id)


def test_a_partial_file_that_answers_twice_or_otherwise_is_refused(run: Run) -> None:
    line = json.dumps({"idx": "0", **run.all()["0"]})
    (run.predictions / "tmp_heldout-val.jsonl").write_text(line + "\n" + line + "\n")
    with pytest.raises(JobError, match="a second time"):
        run.read()
    (run.predictions / "tmp_heldout-val.jsonl").write_text(line.replace('"idx": "0"', '"idx": "1"') + "\n")
    with pytest.raises(JobError, match="another text"):
        run.read()


def test_nothing_there_is_none(run: Run) -> None:
    assert run.read().state == "none"


def documented(folder: Path, name: Any, record: dict[str, Any], gold: str = "1") -> tuple[Placed, ...]:
    items = [EvalItem(item_id="a", prompt="p", gold=gold)]
    task = make_task(folder, items, benchmark=str(name), documented=name, records=[record])
    return place_data((task,), folder / "data")


def test_a_question_that_opencompass_would_fill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`\{answer\}`") as caught:
        documented(tmp_path, "aime25", {"problem": "Find {answer} of {}", "answer": 1})
    assert "records.jsonl:1" in caught.value.message
    record = {"subject": "anatomy", "question": "Is \\text{A} it?", "choices": list("wxyz"), "answer": 1}
    with pytest.raises(DataError, match=r"`\{A\}`"):
        documented(tmp_path, "mmlu", record)
    with pytest.raises(DataError, match="none of the fields"):
        documented(tmp_path, "gsm8k", {"question": "1 + 1?"})
    with pytest.raises(DataError, match="subject"):
        documented(tmp_path, "mmlu", {**record, "subject": "../x", "question": "q"})


def test_gpqa_needs_the_letter_that_opencompass_will_show(tmp_path: Path) -> None:
    record = {
        "Question": "Which?", "Correct Answer": "yes",
        "Incorrect Answer 1": "no", "Incorrect Answer 2": "maybe", "Incorrect Answer 3": "never",
    }  # fmt: skip
    (placed,) = documented(tmp_path, "gpqa", record, gold="D")
    assert placed.asked[0].gold == "D", "the first row is shown in the order BCDA"
    with pytest.raises(DataError, match="'D'"):
        documented(tmp_path, "gpqa", record, gold="A")


def test_logs_tell_cause_and_altered_limits(tmp_path: Path) -> None:
    logs = tmp_path / "run" / "logs" / "infer" / "base"
    logs.mkdir(parents=True)
    (tmp_path / "main.log").write_text("Partitioned into 1 tasks.\n")
    frames = 'Traceback (most recent call last):\n  File "x", line 1\n    f()\n'
    trace = f"{frames}RuntimeError: Calling OpenAI API failed\x1b[0m\n"
    (logs / "a.out").write_text(trace)
    found = read_logs(tmp_path / "main.log", tmp_path / "run")
    assert (found.altered, found.cause) == (None, "server")
    assert found.tracebacks == ("a.out: RuntimeError: Calling OpenAI API failed",)
    (logs / "b.out").write_text("max_out_len was truncated from 64 to 3 due to input length\n")
    assert read_logs(tmp_path / "main.log", tmp_path / "run").altered == "context"
