"""The benchmarks' own records behind the items, as OpenCompass's documented configs want them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.benchmarks import FoundBenchmark, find_benchmark, load_items
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE
from rdagent_ft.evaluation.opencompass.place import place_data
from rdagent_ft.evaluation.opencompass.records import records_of, short_name, write_documented
from rdagent_ft.evaluation.opencompass.spec import OpenCompassTask
from rdagent_ft.evaluation.port import EvalTask

REAL = {"math": "math500"}
"""Benchmarks whose folder of real data has another name."""


def found_in(root: Path, name: str, file_name: str, text: str) -> FoundBenchmark:
    path = root / "benchmarks" / name / file_name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = find_benchmark(name, root)
    assert found is not None
    return found


def lines(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def task_of(found: FoundBenchmark, folder: Path) -> OpenCompassTask:
    """Write all items and records of a benchmark; return the task that asks them."""
    items_file, records_file = folder / "items.jsonl", folder / "records.jsonl"
    rows = load_items(found)
    write_documented(items_file, records_file, found, rows)
    task = EvalTask(
        benchmark=found.benchmark.name, split="test", items_file=items_file, n_items=len(rows),
        scorer=found.benchmark.scorer, max_new_tokens=256,
    )  # fmt: skip
    return OpenCompassTask(task=task, documented=short_name(found.benchmark.name), records_file=records_file)


def test_an_item_gets_the_record_it_was_made_from(tmp_path: Path) -> None:
    records = [
        {"question": " two apples?  ", "answer": "#### 2"},
        {"question": "no number", "answer": "none"},  # our scorer cannot score it: no item
        {"question": "three apples?", "answer": "So\n#### 3", "note": "kept"},
    ]
    found = found_in(tmp_path, "gsm8k", "test.jsonl", lines(*records))
    rows = load_items(found)
    pairs = records_of(found, list(reversed(rows)))
    assert [pair.record for pair in pairs] == [records[2], records[0]]
    assert [pair.question for pair in pairs] == ["three apples?", " two apples?  "], "as it stands there"
    assert [pair.gold for pair in pairs] == ["3", "2"]
    other = rows[0].model_copy(update={"messages": load_items(found)[1].messages[:1] + rows[0].messages[1:]})
    assert records_of(found, [other])[0].record == records[2], "by its question, not by its place"


def test_an_item_of_another_file_is_refused(tmp_path: Path) -> None:
    first = found_in(tmp_path / "a", "gsm8k", "test.jsonl", lines({"question": "q", "answer": "#### 1"}))
    second = found_in(tmp_path / "b", "gsm8k", "test.jsonl", lines({"question": "r", "answer": "#### 1"}))
    with pytest.raises(DataError, match="no record of item"):
        records_of(first, load_items(second))
    svamp = {"Body": "b", "Question": "q?", "Answer": 1}
    third = found_in(tmp_path, "svamp", "SVAMP.json", json.dumps([svamp]))
    with pytest.raises(DataError, match="no documented config for svamp"):
        records_of(third, load_items(third))


def test_gpqa_has_the_letter_that_opencompass_shows(tmp_path: Path) -> None:
    heading = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    table = "".join(f"which {n}?,right{n},x{n},y{n},z{n}\n" for n in range(5))
    found = found_in(tmp_path, "gpqa", "gpqa_diamond.csv", heading + table)
    task = task_of(found, tmp_path)
    (placed,) = place_data([task], tmp_path / "data")
    items = read_items(task.task.items_file, 5)
    assert [asked.gold for asked in placed.asked] == [item.gold for item in items]
    assert [item.gold for item in items] == list("DCBAD")
    assert [item.prompt for item in items] == [f"which {n}?" for n in range(5)]


def test_mmlu_keeps_its_subjects(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "mmlu" / "test"
    folder.mkdir(parents=True)
    for subject in ("anatomy", "virology"):
        # One question is in both files: it is one item, of the first one.
        (folder / f"{subject}_test.csv").write_text(f"what is {subject}?,a,b,c,d,B\nsame?,a,b,c,d,C\n")
    found = find_benchmark("mmlu", tmp_path)
    assert found is not None
    task = task_of(found, tmp_path)
    placed = {one.subject: one for one in place_data([task], tmp_path / "data")}
    assert {subject: len(one.asked) for subject, one in placed.items()} == {"anatomy": 2, "virology": 1}
    assert [asked.contains for asked in placed["virology"].asked] == ["what is virology?"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_item_of_the_real_files_can_be_asked(name: str, tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / REAL.get(name, name)
    if not source.is_dir():
        pytest.skip(f"the items of {name} are not on this machine")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / name).symlink_to(source)
    found = find_benchmark(name, tmp_path)
    assert found is not None
    task = task_of(found, tmp_path)
    placed = place_data([task], tmp_path / "data")
    asked = [one for part in placed for one in part.asked]
    assert len(asked) == task.task.n_items == len({one.item_id for one in asked})
    assert all(one.contains.strip() for one in asked)
