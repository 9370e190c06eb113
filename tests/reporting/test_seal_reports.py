"""What reports say of the ledger of looks: its head, openings of the test, and that it was changed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from make_run import Writer, make_run

from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.seal import LOOK_COLUMNS, read_looks, sealed, verify_looks
from rdagent_ft.reporting.write import write_reports

REPORTS = ("report.md", "report.html")


def document(run_dir: Path, name: str) -> dict[str, Any]:
    return json.loads((run_dir / name).read_text(encoding="utf-8"))


def database(run_dir: Path) -> sqlite3.Connection:
    return sqlite3.connect(run_dir / "run.db", isolation_level=None)


def tamper(run_dir: Path, statement: str) -> None:
    connection = database(run_dir)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement)
    connection.close()


def test_the_head_is_recorded(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    write_reports(run_dir)
    connection = database(run_dir)
    last = read_looks(connection)[-1]
    connection.close()
    assert document(run_dir, "benchmark.json")["looks"] == {"val": 5, "test": 1, "head": last.row_hash}
    assert document(run_dir, "comparison.json")["decision"] == "promote"
    for name in REPORTS:
        text = (run_dir / name).read_text(encoding="utf-8")
        assert "the sealed test was opened once." in text
        assert "record of looks" not in text


def test_a_later_opening_marks_a_claim_that_was_the_first(tmp_path: Path) -> None:
    """The claim says 1; the ledger counts on."""
    run_dir = make_run(tmp_path)
    connection = database(run_dir)
    last = read_looks(connection)[-1]
    again = last.model_copy(update={"number": last.number + 1, "loop": 2})
    values = sealed(again, last.row_hash or "").model_dump()
    connection.execute(
        f"INSERT INTO looks ({LOOK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",
        [values[name] for name in LOOK_COLUMNS.split(", ")],
    )
    connection.close()
    write_reports(run_dir)
    assert document(run_dir, "benchmark.json")["looks"]["test"] == 2
    for name in REPORTS:
        text = (run_dir / name).read_text(encoding="utf-8")
        assert "the sealed test was opened twice. Each further opening makes the claim weaker" in text


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE looks SET split = 'val', purpose = 'x' WHERE split = 'test'",
        "DELETE FROM looks WHERE number = 2",
        "DELETE FROM looks WHERE split = 'test'",
    ],
)
def test_a_changed_ledger_is_told_and_writing_again_hides_nothing(tmp_path: Path, statement: str) -> None:
    run_dir = make_run(tmp_path)
    write_reports(run_dir)
    tamper(run_dir, statement)
    for _ in range(3):
        write_reports(run_dir)
        assert verify_looks(run_dir / "run.db") != []
        reasons = document(run_dir, "comparison.json")["reasons"]
        assert any("this claim proves nothing" in reason for reason in reasons)
        assert document(run_dir, "comparison.json")["decision"] == "accept", "it is not promoted"
        for name in REPORTS:
            assert "this claim proves nothing" in (run_dir / name).read_text(encoding="utf-8")


def test_lost_heads_add_up(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    write_reports(run_dir)
    first = document(run_dir, "benchmark.json")["looks"]["head"]
    tamper(run_dir, "DELETE FROM looks WHERE number = (SELECT max(number) FROM looks)")
    write_reports(run_dir)
    second = document(run_dir, "benchmark.json")["looks"]
    assert second["lost"] == [first]
    tamper(run_dir, "DELETE FROM looks WHERE number = (SELECT max(number) FROM looks)")
    write_reports(run_dir)
    assert document(run_dir, "benchmark.json")["looks"]["lost"] == [second["head"], first]
    assert open_run(run_dir).seal.is_broken


def test_a_run_without_looks_is_whole(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run")
    writer.facts(run_id="r", created_utc=writer.stamp(), code_version="0", request={}, settings={})
    writer.db.close()
    view = open_run(tmp_path / "run")
    assert not view.seal.is_broken
    assert len(view.seal.head) == 64


def reopened(run_dir: Path, loops: tuple[int, ...]) -> None:
    """Write the looks of claims at the reported benchmark, as the journal does."""
    connection = database(run_dir)
    for loop in loops:
        last = read_looks(connection)[-1]
        look = last.model_copy(update={"number": last.number + 1, "benchmark": "gsm8k", "loop": loop})
        values = sealed(look, last.row_hash or "").model_dump()
        connection.execute(
            f"INSERT INTO looks ({LOOK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",
            [values[name] for name in LOOK_COLUMNS.split(", ")],
        )
    connection.close()


@pytest.mark.parametrize("loops", [(), (6,), (6, 2)])
def test_openings_of_a_reported_benchmark_are_counted_and_the_second_marks_it(
    tmp_path: Path, loops: tuple[int, ...]
) -> None:
    run_dir = make_run(tmp_path)
    reopened(run_dir, loops)
    write_reports(run_dir)
    assert verify_looks(run_dir / "run.db") == []
    counted = document(run_dir, "benchmark.json")["looks"]
    assert counted["test"] == 1, "the target's test is counted by itself"
    assert counted.get("reported") == ({"gsm8k": len(loops)} if loops else None)
    pair = document(run_dir, "comparison.json")["pairs"]["gsm8k/test"]
    assert pair.get("opening") == (len(loops) or None)
    for name in REPORTS:
        text = (run_dir / name).read_text(encoding="utf-8")
        assert ("gsm8k was opened twice in this run" in text) == (len(loops) == 2)
        assert ("gsm8k (opened 2 times)" in text.replace("\\", "")) == (len(loops) == 2)
        assert "the sealed test was opened once." in text
