"""A result folder comes back as it was written, and nothing in it is believed without its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from result_case import binary, rows_of, write_folder

from rdagent_ft.errors import JobError, RdagentFtError, StateError, UserError
from rdagent_ft.evaluation.results.document import result_status
from rdagent_ft.evaluation.results.folder import entry_of, read_document, samples_name
from rdagent_ft.evaluation.results.read import read_result


def test_a_folder_comes_back(tmp_path: Path) -> None:
    rows = [*rows_of(binary(8, 6)), *rows_of([1.0] * 8, repeat=1)]
    folder = write_folder(tmp_path / "r", {"gsm8k": rows, "dev": rows_of([1.0, None], "heldout", "dev")})
    result = read_result(folder)
    assert result.kind == "result"
    assert result.label == "base-model"
    assert set(result.sheets) == {"gsm8k", "heldout/dev"}
    sheet = result.sheets["gsm8k"]
    assert (len(sheet.items), sheet.repeats, sheet.trouble) == (8, 2, None)
    assert [item.score for item in sheet.items.values()] == [1.0] * 6 + [0.5] * 2
    entry = read_document(folder).benchmarks["gsm8k"]
    assert entry.value == pytest.approx(0.875)
    assert entry.samples == "samples/gsm8k.jsonl"
    assert entry.ci95 is not None
    assert result.sheets["heldout/dev"].trouble == "1 of 2 answers are unscored"
    assert read_document(folder).status == "invalid"
    assert read_result(folder / "benchmark.json").sheets.keys() == result.sheets.keys()


def test_entries_count_behaviour_and_parts() -> None:
    rows = [
        *rows_of([1.0], parts={"inst_strict": (1.0, 0.0)}),
        *rows_of([0.0], item_id="i1", parts={"inst_strict": (1.0,)}, prediction=" ", extracted=None),
        *rows_of([0.0], item_id="i2", prediction="la " * 100, finish_reason="length"),
    ]
    entry = entry_of(rows, scorer="numeric_match", n_expected=3)
    assert entry.extra == {"inst_strict": pytest.approx(2 / 3)}
    health = entry.health
    assert health is not None
    assert (health.empty_rate, health.length_rate, health.repeat_rate, health.extract_fail) == (
        pytest.approx(1 / 3),
    ) * 4
    assert health.mean_tokens == 5


def test_a_harness_mean_must_agree() -> None:
    rows = rows_of(binary(4, 3))
    assert entry_of(rows, scorer="numeric_match", n_expected=4, harness_value=0.7500005).n == 4
    with pytest.raises(JobError, match=r"the harness says 0\.74.*0\.75"):
        entry_of(rows, scorer="numeric_match", n_expected=4, harness_value=0.74)


def test_status_says_what_may_decide() -> None:
    whole = entry_of(rows_of(binary(20, 9)), scorer="numeric_match", n_expected=20)
    short = entry_of(rows_of(binary(20, 9)), scorer="numeric_match", n_expected=30)
    cut = entry_of(rows_of(binary(20, 9), finish_reason="length"), scorer="numeric_match", n_expected=20)
    none = entry_of(rows_of([None, None]), scorer="numeric_match", n_expected=2)
    assert result_status({"a": whole}, n_planned=1) == "ok"
    assert result_status({"a": whole}, n_planned=2) == "partial"
    assert result_status({"a": short}, n_planned=1) == "partial"
    assert result_status({"a": whole}, n_planned=2, timed_out=True) == "timeout"
    assert result_status({"a": cut}, n_planned=1) == "invalid"
    assert result_status({"a": none}, n_planned=1) == "failed"
    assert result_status({}, n_planned=1, timed_out=True) == "timeout"


def test_names_of_files_stay_inside() -> None:
    assert samples_name("gsm8k", "test") == "samples/gsm8k.jsonl"
    assert samples_name("heldout", "val") == "samples/heldout-val.jsonl"
    for hostile in ("../../etc/passwd", "a/b", ".", "", "x" * 300, "ä\n"):
        name = samples_name(hostile, "test")
        assert name.count("/") == 1
        assert ".." not in name
        assert len(name) < 120


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "benchmark.json"
    document = json.loads(path.read_text())
    document["benchmarks"]["gsm8k"].update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": 0.9}, r"gsm8k is 0\.9 there, but its 20 answers give 0\.5"),
        ({"n": 19}, "19 scored items"),
        ({"samples": "../../x.jsonl"}, "is not a path inside"),
        ({"samples": "/etc/passwd"}, "is not a path inside"),
        ({"n": "many"}, r"benchmark\.json is no result"),
        ({"extra_key": 1}, r"benchmark\.json is no result"),
    ],
)
def test_a_changed_document_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_folder(tmp_path / "r", {"gsm8k": rows_of(binary(20, 10))})
    _edit(folder, **changes)
    with pytest.raises(StateError, match=message):
        read_result(folder)


def _line(**changes: Any) -> str:
    row = rows_of([1.0])[0].model_dump(mode="json") | {"item_id": "other", **changes}
    return json.dumps(row) + "\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (_line(score="1"), r":3: `score` is '1', a number was expected"),
        (_line(score=True), r":3: `score` is True"),
        (_line(score=float("nan")), r":3: `score` is nan: no usable number"),
        (_line(score=1.5), r":3: `score` is 1\.5, a share"),
        (_line(item_id="i1", prompt_hash="p1"), r":3: item i1 has a second answer for repeat 0"),
        (_line(item_id="i1", repeat=1, prompt_hash="zz"), r":3: item i1 has another prompt"),
        (_line(item_id=7), r":3: `item_id` is 7"),
        (_line(item_id="\x1b[31m"), r":3: `item_id` is"),
        (_line(benchmark="aime"), r":3: aime test in a file of gsm8k test"),
        (_line(repeat=-1), r":3: `repeat` is -1"),
        (_line(repeat=10**9), r":3: `repeat` is 1000000000"),
        (_line(prediction=None), r":3: `prediction` is no text"),
        (_line(parts={"a": [1, "x"]}), r":3: `parts\.a` is 'x'"),
        ("[1, 2]\n", r"samples\.jsonl:3` holds a JSON list"),
        ('{"item_id": "i2", ', r"samples\.jsonl:3` is not valid JSON"),
        ('{"a":' + "[" * 100_000 + "\n", "not valid JSON|too many"),
        ("x" * (17 << 20) + "\n", r"samples\.jsonl:3` is longer than"),
    ],
    ids=range(17),
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    rows = rows_of(binary(2, 1))
    place = tmp_path / "eval" / "gsm8k-test"
    place.mkdir(parents=True)
    whole = "".join(json.dumps(row.model_dump(mode="json")) + "\n" for row in rows)
    (place / "samples.jsonl").write_text(whole + line)
    with pytest.raises(StateError, match=message):
        read_result(tmp_path / "eval")


def test_the_eval_folder_of_a_run(tmp_path: Path) -> None:
    for split in ("dev", "val"):
        place = tmp_path / "loops" / "003" / "eval" / f"heldout-{split}"
        place.mkdir(parents=True)
        rows = rows_of(binary(10, 6), "heldout", split)
        (place / "samples.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    loop = tmp_path / "loops" / "003"
    for path in (loop, loop / "eval"):
        result = read_result(path)
        assert set(result.sheets) == {"heldout/dev", "heldout/val"}
        assert result.label == "003"
    one = read_result(loop / "eval" / "heldout-val")
    assert set(one.sheets) == {"heldout/val"}
    assert one.sheets["heldout/val"].health is not None
    assert set(read_result(loop / "eval" / "heldout-val" / "samples.jsonl").sheets) == {"heldout/val"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "r", {"gsm8k": rows_of(binary(4, 2))})
    secret = tmp_path / "secret.jsonl"
    (folder / "samples" / "gsm8k.jsonl").rename(secret)
    (folder / "samples" / "gsm8k.jsonl").symlink_to(secret)
    with pytest.raises(StateError, match="cannot be read"):
        read_result(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 2}', '{"schema_version": 1}', "\x00"])
def test_documents_of_other_kinds(tmp_path: Path, content: str) -> None:
    (tmp_path / "benchmark.json").write_text(content)
    with pytest.raises(StateError, match=r"benchmark\.json"):
        read_result(tmp_path)


def test_what_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text('{"schema_version": 1, "models": []}')
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "empty", "holds no result"),
        (tmp_path, "summary of several models"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_result(path)
        assert caught.value.hint is not None


def test_a_crash_leaves_no_document_over_other_answers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "r", {"gsm8k": rows_of(binary(4, 2))})
    (folder / "samples" / "gsm8k.jsonl").unlink()
    (folder / "samples" / "gsm8k.jsonl").mkdir()
    with pytest.raises(OSError):
        write_folder(folder, {"gsm8k": rows_of(binary(4, 3))})
    with pytest.raises(RdagentFtError):
        read_result(folder)
