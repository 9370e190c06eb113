"""The contamination check on public files: known leaks are found, and boilerplate is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdagent_ft.data.decontaminate import FileCheck, check_records, read_file
from rdagent_ft.data.eval_files import eval_items

pytestmark = pytest.mark.real_data


def check(train: Path, *against: Path) -> FileCheck:
    items = [item for path in against for item in eval_items(read_file(path), path.name, {})]
    return check_records(read_file(train), items, {})


def test_old_aime_problems_stand_in_math500(shared_data: Path) -> None:
    found = check(shared_data / "deepscaler_train/aime_1984_2023.json", shared_data / "math500/math500.jsonl")
    with_answer = {pair.item for pair in found.leaks if pair.answer_attached}
    assert with_answer == {f"math500.jsonl:{n}" for n in (81, 102, 111, 286, 293, 353, 413, 476, 490)} - {
        "math500.jsonl:353"  # the same triangle, asked in another form: another answer
    }
    assert {pair.item for pair in found.leaks} - with_answer == {"math500.jsonl:353"}
    assert {pair.reason for pair in found.leaks} == {"exact", "coverage", "run"}


@pytest.mark.parametrize("train", ["aime_1984_2023.json", "math.json"])
def test_no_boilerplate_of_aime_2025_is_flagged(shared_data: Path, train: str) -> None:
    found = check(
        shared_data / "deepscaler_train" / train,
        shared_data / "aime25/aime25.jsonl",
        shared_data / "aime25/promptcot_aime2025.jsonl",
    )
    assert (found.leaks, found.near) == ((), ())


def test_a_file_leaks_all_of_itself(shared_data: Path) -> None:
    for name in (
        "math500/math500.jsonl",
        "gsm8k/test.jsonl",
        "aime24/aime24.jsonl",
        "ifeval/input_data.jsonl",
    ):
        path = shared_data / name
        found = check(path, path)
        alone = {o.document for o in found.overlaps if o.is_leak and o.document == o.item}
        missed = [found.records[n].columns for n in range(len(found.records)) if n not in alone]
        assert not missed, (name, missed[:2])


def test_two_collections_of_aime_2024_are_the_same(shared_data: Path) -> None:
    found = check(shared_data / "aime24/aime24.jsonl", shared_data / "aime24/qwen_test.jsonl")
    assert len(found.leaked_items) == len(found.leak_rows) == 30


def test_pasted_items_are_exactly_what_is_listed(shared_data: Path) -> None:
    """Five GSM8K test questions among the rows of another task."""
    train = read_file(shared_data / "alpaca_demo/alpaca_en_demo.json")
    asked = read_file(shared_data / "gsm8k/test.jsonl")
    for n in (3, 40, 500, 900, 1318):
        pasted = train[n % 900]
        train[n % 900] = pasted._replace(
            columns={**pasted.columns, "instruction": f"Solve it. {asked[n].columns['question'].upper()}"}
        )
    found = check_records(train, eval_items(asked, "gsm8k", {}), {})
    assert {(o.document, o.item) for o in found.overlaps if o.is_leak} == {
        (n % 900, n) for n in (3, 40, 500, 900, 1318)
    }
