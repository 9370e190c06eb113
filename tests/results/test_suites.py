"""Suites pin items by hashes; another file or another reading of it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.errors import DataError, UserError
from rdagent_ft.evaluation.guards import GUARD_MARGINS
from rdagent_ft.evaluation.judge.side_by_side import JudgeWish
from rdagent_ft.evaluation.suites import (
    SUITE_NAMES,
    Suite,
    check_suite,
    ids_sha256,
    items_of,
    judge_wish,
    load_suite,
    selected_rows,
    suite_name,
)
from rdagent_ft.values import sha256_file


def rows_with_subjects(n: int, n_subjects: int) -> list[Row]:
    return [
        make_row(
            (Message(role="user", content=f"q{at}"), Message(role="assistant", content="a")),
            meta={"subject": f"s{at % n_subjects}"},
        )
        for at in range(n)
    ]


@pytest.mark.parametrize("name", SUITE_NAMES)
def test_the_shipped_suites_load(name: str, repository: Path) -> None:
    suite = load_suite(name)
    assert suite.guard_margin == GUARD_MARGINS[name]
    assert suite.target == "ifeval"
    for used in suite.benchmarks.values():
        assert used.n_items <= used.n_available
        assert used.repeats == 1 or used.temperature > 0
    assert suite.benchmarks.keys() <= load_suite("full").benchmarks.keys() | {"humaneval"}
    text = (repository / "suites" / f"{name}.yaml").read_text()
    assert max(map(len, re.findall(r"\S+", text.split("\n", 1)[1]))) <= 66, "nothing longer than a hash"


def test_sizes_grow() -> None:
    sizes = [load_suite(name).n_requests for name in SUITE_NAMES]
    assert sizes == sorted(sizes)
    assert sizes[0] == 10


def test_aliases() -> None:
    assert [suite_name(name) for name in ("standard", "Comprehensive", "Test mode", "QUICK")] == [
        "core", "full", "test", "quick",
    ]  # fmt: skip
    with pytest.raises(UserError) as caught:
        load_suite("../core")
    assert "quick" in (caught.value.hint or "")


def test_rules_select_the_same_items_in_any_order() -> None:
    rows = rows_with_subjects(60, 3)
    for rule in ("hash_rank", "per_subject"):
        chosen = selected_rows(rows, rule, 12, 1)
        again = selected_rows(rows[::-1], rule, 12, 1)
        assert {row.item_id for row in chosen} == {row.item_id for row in again}
        assert len(chosen) == 12
        assert chosen != selected_rows(rows, rule, 12, 2)
    subjects = [row.meta["subject"] for row in selected_rows(rows, "per_subject", 12, 1)]
    assert {subjects.count(subject) for subject in subjects} == {4}
    assert selected_rows(rows, "all", 1, 1) == rows
    for n, rule in ((61, "hash_rank"), (13, "per_subject"), (63, "per_subject")):
        with pytest.raises(DataError):
            selected_rows(rows, rule, n, 1)


@pytest.fixture
def own_suite(tmp_path: Path) -> Suite:
    """A suite over a file of six sums."""
    folder = tmp_path / "benchmarks" / "gsm8k"
    folder.mkdir(parents=True)
    lines = [{"question": f"what is {at} + 1?", "answer": f"#### {at + 1}"} for at in range(6)]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    from rdagent_ft.evaluation.benchmarks import find_benchmark, load_items

    found = find_benchmark("gsm8k", tmp_path)
    assert found is not None
    chosen = selected_rows(load_items(found), "hash_rank", 4, 7)
    used = {
        "role": "target",
        "rule": "hash_rank",
        "n_items": 4,
        "n_available": 6,
        "seed": 7,
        "data_sha256": sha256_file(folder / "test.jsonl"),
        "ids_sha256": ids_sha256([row.item_id for row in chosen]),
    }
    return Suite.model_validate(
        {
            "schema_version": 1,
            "name": "test",
            "version": "1",
            "title": "t",
            "purpose": "p",
            "guard_margin": 0.03,
            "benchmarks": {"gsm8k": used},
        }
    )


def test_items_are_the_frozen_ones(own_suite: Suite, tmp_path: Path) -> None:
    assert check_suite(own_suite, tmp_path) == ()
    rows = items_of(own_suite, "gsm8k", tmp_path)
    assert len(rows) == 4
    few = items_of(own_suite, "gsm8k", tmp_path, limit=2)
    assert len(few) == 2
    assert {row.item_id for row in few} < {row.item_id for row in rows}


def test_another_file_or_reading_is_refused(own_suite: Suite, tmp_path: Path) -> None:
    used = own_suite.benchmarks["gsm8k"].model_copy(update={"ids_sha256": "0" * 64})
    other = own_suite.model_copy(update={"benchmarks": {"gsm8k": used}})
    with pytest.raises(DataError, match="selects other items"):
        items_of(other, "gsm8k", tmp_path)
    path = tmp_path / "benchmarks" / "gsm8k" / "test.jsonl"
    path.write_text(path.read_text() + "\n")
    (problem,) = check_suite(own_suite, tmp_path)
    assert problem.problem_class == "suite.data"
    with pytest.raises(DataError, match="another version"):
        items_of(own_suite, "gsm8k", tmp_path)


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    problems = check_suite(load_suite("full"), tmp_path)
    assert len(problems) == len(load_suite("full").benchmarks)
    assert all(str(tmp_path) in problem.fix for problem in problems)


@pytest.mark.real_data
@pytest.mark.parametrize("name", SUITE_NAMES)
def test_the_frozen_items_are_still_those_of_the_files(name: str, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks").symlink_to(shared_data)
    suite = load_suite(name)
    assert check_suite(suite, tmp_path) == ()
    for benchmark, used in suite.benchmarks.items():
        assert len(items_of(suite, benchmark, tmp_path)) == used.n_items


def test_a_suite_names_rubrics_and_judges_that_are_there(tmp_path: Path) -> None:
    items = tmp_path / "benchmarks" / "gsm8k" / "test.jsonl"
    items.parent.mkdir(parents=True)
    items.write_text(json.dumps({"question": "what is 1 plus 1?", "answer": "#### 2"}) + "\n")
    entry = {
        "role": "target", "rule": "all", "n_items": 1, "n_available": 1, "seed": 1,
        "data_sha256": sha256_file(items), "ids_sha256": "0" * 64,
    }  # fmt: skip

    def suite(**more: str) -> Suite:
        return Suite.model_validate(
            {
                "schema_version": 1, "name": "quick", "version": "t", "title": "t", "purpose": "t",
                "guard_margin": 0.03, "benchmarks": {"gsm8k": {**entry, **more}},
            }
        )  # fmt: skip

    assert check_suite(suite(rubric="tutoring_socratic", judge="equivalence"), tmp_path) == ()
    assert check_suite(suite(judge="none"), tmp_path) == ()
    (problem,) = check_suite(suite(rubric="kindness"), tmp_path)
    assert (problem.problem_class, problem.value) == ("suite.judge", "kindness")
    assert "no rubric" in problem.rule
    used = suite(rubric="helpfulness").benchmarks["gsm8k"]
    assert judge_wish(used, "numeric_match") == JudgeWish(equivalence=True, rubric="helpfulness")
    with pytest.raises(UserError, match="ifeval is exact"):
        judge_wish(suite(judge="equivalence").benchmarks["gsm8k"], "ifeval")
