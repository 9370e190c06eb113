"""Every broken config of the corpus is named with class and key; every clean one passes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rdagent_ft.recipe.documents import read_document
from rdagent_ft.recipe.validate import validate_text

FOLDER = Path(__file__).parent
LINES = (FOLDER / "broken" / "EXPECTED.tsv").read_text(encoding="utf-8").splitlines()
TABLE = list(csv.DictReader(LINES, delimiter="\t"))  # stage: what is guessed, `=sft` what is given


def test_the_table_names_every_file_and_there_are_at_least_fifty() -> None:
    files = {path.name for path in (FOLDER / "broken").iterdir()} - {"EXPECTED.tsv"}
    assert {row["file"] for row in TABLE} == files
    assert len(files) >= 50


@pytest.mark.parametrize("row", TABLE, ids=[row["file"] for row in TABLE])
def test_broken_config_is_named_with_class_key_and_fix(row: dict[str, str]) -> None:
    path = FOLDER / "broken" / row["file"]
    given = row["stage"].removeprefix("=") if row["stage"].startswith("=") else None
    text = path.read_text(encoding="utf-8")
    report = validate_text(text, name=path.name, stage=given, folder=path.parent)
    found = {(problem.problem_class, problem.key) for problem in report.problems}
    assert (row["class"], row["key"]) in found
    assert len(found) == 1, "a config with one mistake shows one problem"
    for problem in report.problems:
        assert problem.fix
        assert problem.rule
        json.dumps(problem.as_json(), allow_nan=False)
    if row["stage"] != "-":
        assert report.stage == row["stage"].removeprefix("=")


@pytest.mark.parametrize("path", sorted((FOLDER / "clean").iterdir()), ids=lambda path: path.name)
def test_clean_config_has_no_problem_and_nothing_to_fix(path: Path) -> None:
    report = validate_text(path.read_text(encoding="utf-8"), name=path.name, folder=path.parent)
    assert report.problems == ()
    assert report.fixed_text is None


FIXABLE = [
    row["file"]
    for row in TABLE
    if row["file"].startswith(("renamed-", "value-dtype", "value-eval-no", "protected-push"))
]


@pytest.mark.parametrize("name", FIXABLE)
def test_neutral_fix_removes_the_problem_and_keeps_the_rest(name: str) -> None:
    text = (FOLDER / "broken" / name).read_text(encoding="utf-8")
    report = validate_text(text, name=name)
    assert report.fixed_text is not None
    again = validate_text(report.fixed_text, name=name, stage=report.stage)
    assert again.problems == report.remaining
    key = report.problems[0].key
    assert key not in {problem.key for problem in again.problems}
    before, after = read_document(text, name).values, read_document(report.fixed_text, name).values
    unchanged = {k: v for k, v in before.items() if k != key and k in after}
    assert all(after[k] == v for k, v in unchanged.items())
    assert report.changes
