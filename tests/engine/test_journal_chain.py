"""The ledger of looks: nothing in it can be changed, taken out, put in or moved without being found."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rdagent_ft.engine.journal import Journal, Look, utc_now
from rdagent_ft.errors import StateError
from rdagent_ft.reporting.records import CodeOutput
from rdagent_ft.reporting.seal import (
    check_looks,
    first_hash,
    read_looks,
    recorded_heads,
    sealed,
    verify_looks,
)
from rdagent_ft.reporting.tables import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from rdagent_ft.values import write_json

FACTS = {
    "run_id": "r1",
    "created_utc": "2026-01-01T00:00:00Z",
    "code_version": "0",
    "request": "{}",
    "settings": "{}",
}
REPOSITORY = Path(__file__).resolve().parents[2]


def look(loop: int, split: str = "val", purpose: str = "select") -> Look:
    return Look(benchmark="heldout", split=split, loop=loop, recipe_hash=f"h{loop}", purpose=purpose)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with five looks, the last of them at the test, and its head in benchmark.json."""
    journal = Journal.create(tmp_path, FACTS)
    journal.begin_invocation("pid 1", {})
    journal.finish_step(0, "code", CodeOutput(), started_utc=utc_now(), wall_s=0.0, looks=(look(0), look(1)))
    journal.look(look(2))
    journal.look(look(3))
    assert journal.look(look(3, "test", "claim")) == 1
    journal.close()
    record_head(tmp_path)
    assert verify_looks(tmp_path / "run.db") == []
    return tmp_path


def database(run_dir: Path) -> sqlite3.Connection:
    return sqlite3.connect(run_dir / "run.db", isolation_level=None)


def record_head(run_dir: Path) -> None:
    connection = database(run_dir)
    head = read_looks(connection)[-1].row_hash
    connection.close()
    write_json(run_dir / "benchmark.json", {"looks": {"val": 4, "test": 1, "head": head}})


def without_guards(run_dir: Path, *statements: str) -> None:
    """Change the table as somebody does who knows the triggers."""
    connection = database(run_dir)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE looks SET recipe_hash = 'other' WHERE number = 2", "never changed"),
        ("UPDATE looks SET row_hash = 'x'", "never changed"),
        ("DELETE FROM looks WHERE number = 5", "never deleted"),
        ("DELETE FROM looks", "never deleted"),
        (
            "INSERT INTO looks (utc, benchmark, split, loop, recipe_hash, purpose) "
            "VALUES ('', 'b', 's', 9, 'h', 'p')",
            "carries its hash",
        ),
        (
            "INSERT INTO looks SELECT 9, utc, benchmark, split, 9, '', '', 'a', 'b' FROM looks LIMIT 1",
            "carries",
        ),
        (
            "INSERT OR REPLACE INTO looks SELECT number, utc, benchmark, split, loop, 'x', purpose, "
            "prev_hash, row_hash FROM looks WHERE number = 3",
            "carries",
        ),
    ],
)
def test_the_table_itself_refuses(run_dir: Path, statement: str, words: str) -> None:
    connection = database(run_dir)
    with pytest.raises(sqlite3.IntegrityError, match=words):
        connection.execute(statement)
    connection.close()
    assert verify_looks(run_dir / "run.db") == []


SWAP = (
    "UPDATE looks SET number = 100 WHERE number = 2",
    "UPDATE looks SET number = 2 WHERE number = 3",
    "UPDATE looks SET number = 3 WHERE number = 100",
)
INSERT = (
    "UPDATE looks SET number = number + 1 WHERE number = 5",
    "UPDATE looks SET number = number + 1 WHERE number = 4",
    "INSERT INTO looks SELECT 4, utc, benchmark, split, 77, recipe_hash, purpose, row_hash, row_hash "
    "FROM looks WHERE number = 3",
)


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (("UPDATE looks SET recipe_hash = 'other' WHERE number = 2",), "look 2 was changed"),
        (("UPDATE looks SET utc = '2020' WHERE number = 1",), "look 1 was changed"),
        (("UPDATE looks SET split = 'val' WHERE number = 5",), "look 5 was changed"),
        (("UPDATE looks SET row_hash = 'ab' WHERE number = 3",), "look 3 was changed"),
        (("UPDATE looks SET row_hash = NULL WHERE number = 3",), "look 3 carries no hash"),
        (("DELETE FROM looks WHERE number = 1",), "look 2 does not follow"),
        (("DELETE FROM looks WHERE number = 3",), "look 4 does not follow"),
        (SWAP, "look 2 does not follow"),
        (INSERT, "look 4 was changed"),
    ],
)
def test_the_first_broken_link_is_named(run_dir: Path, statements: tuple[str, ...], words: str) -> None:
    without_guards(run_dir, *statements)
    problem = verify_looks(run_dir / "run.db")[0]
    assert words in problem.rule
    assert problem.problem_class == "state.looks_changed"


@pytest.mark.parametrize("n_deleted", [1, 2, 5])
def test_looks_missing_at_the_end_are_told_by_the_recorded_head(run_dir: Path, n_deleted: int) -> None:
    without_guards(run_dir, f"DELETE FROM looks WHERE number > {5 - n_deleted}")
    (problem,) = verify_looks(run_dir / "run.db")
    assert problem.problem_class == "state.looks_missing"
    (run_dir / "benchmark.json").unlink()
    assert verify_looks(run_dir / "run.db") == [], "without a record nobody can know"


def test_a_last_look_that_was_replaced_by_a_well_linked_one_is_found(run_dir: Path) -> None:
    without_guards(run_dir, "DELETE FROM looks WHERE number = 5")
    journal = Journal.open(run_dir)
    journal.look(look(4))
    journal.close()
    assert [problem.problem_class for problem in verify_looks(run_dir / "run.db")] == ["state.looks_missing"]


def test_a_record_of_an_earlier_moment_is_no_problem(run_dir: Path) -> None:
    journal = Journal.open(run_dir)
    journal.look(look(4))
    journal.close()
    assert verify_looks(run_dir / "run.db") == []


def test_a_resumed_run_goes_on_with_the_chain(run_dir: Path) -> None:
    for loop in (4, 5):
        journal = Journal.open(run_dir)
        journal.begin_invocation("pid 2", {})
        journal.look(look(loop))
        assert journal.look(look(loop)) == loop + 1, "the same look is counted once"
        journal.close()
    connection = database(run_dir)
    looks = read_looks(connection)
    connection.close()
    assert [entry.number for entry in looks] == list(range(1, 8))
    assert looks[0].prev_hash == first_hash("r1")
    assert [entry.prev_hash for entry in looks[1:]] == [entry.row_hash for entry in looks[:-1]]
    assert verify_looks(run_dir / "run.db") == []


def test_openings_of_the_test_are_counted(run_dir: Path) -> None:
    journal = Journal.open(run_dir)
    assert journal.look(look(3, "test", "claim")) == 1, "a claim that begins anew is no second opening"
    assert journal.look(look(6, "test", "claim")) == 2
    journal.close()


def test_a_look_and_its_step_are_one_transaction(run_dir: Path) -> None:
    journal = Journal.open(run_dir)
    with pytest.raises(sqlite3.IntegrityError):
        journal.finish_step(0, "code", CodeOutput(), started_utc=utc_now(), wall_s=0.0, looks=(look(8),))
    journal.close()
    assert verify_looks(run_dir / "run.db") == []
    connection = database(run_dir)
    assert len(read_looks(connection)) == 5
    connection.close()


def test_a_look_is_kept_when_the_process_dies_before_its_job(run_dir: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from rdagent_ft.engine.journal import Journal, Look\n"
        "journal = Journal.open(Path(sys.argv[1]))\n"
        "journal.look(Look(benchmark='heldout', split='test', loop=7, recipe_hash='h', purpose='claim'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script, str(run_dir)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert verify_looks(run_dir / "run.db") == []
    journal = Journal.open(run_dir)
    assert journal.look(look(7, "test", "claim")) == 2, "the opening before the crash counts, and once"
    journal.close()


def test_a_chain_of_another_run_does_not_fit(run_dir: Path) -> None:
    without_guards(run_dir, "UPDATE run SET value = 'r2' WHERE key = 'run_id'")
    assert "look 1 does not follow" in verify_looks(run_dir / "run.db")[0].rule


def old_journal(run_dir: Path, n_looks: int) -> None:
    """Write a journal as version 1 did."""
    connection = database(run_dir)
    connection.executescript(MIGRATIONS[0])
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.executemany("INSERT INTO run VALUES (?, ?)", list(FACTS.items()))
    connection.executemany(
        "INSERT INTO looks (utc, benchmark, split, loop, recipe_hash, purpose) "
        "VALUES (?, 'heldout', 'val', ?, 'h', 's')",
        [(f"2026-01-0{n + 1}", n) for n in range(n_looks)],
    )
    connection.close()


@pytest.mark.parametrize("n_looks", [0, 1, 4])
def test_an_older_journal_is_chained_when_its_run_is_taken_up(tmp_path: Path, n_looks: int) -> None:
    old_journal(tmp_path, n_looks)
    reader = Journal.open(tmp_path)
    assert reader.fact("run_id") == "r1"
    reader.close()
    connection = database(tmp_path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1, "looking changes nothing"
    journal = Journal.open(tmp_path)
    journal.begin_invocation("pid 1", {})
    journal.look(look(n_looks))
    journal.close()
    assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    looks = read_looks(connection)
    assert [entry.loop for entry in looks] == list(range(n_looks + 1))
    assert check_looks(looks, "r1").problem is None
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        connection.execute("DELETE FROM looks")
    connection.close()


def test_a_migration_is_whole_or_not_at_all(tmp_path: Path) -> None:
    old_journal(tmp_path, 2)
    connection = database(tmp_path)
    connection.execute("CREATE TABLE looks_stay (x)")
    connection.execute("CREATE TRIGGER looks_are_a_chain BEFORE INSERT ON looks_stay BEGIN SELECT 1; END")
    journal = Journal.open(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        journal.begin_invocation("pid 1", {})
    journal.close()
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    columns = [row[1] for row in connection.execute("PRAGMA table_info(looks)")]
    assert "row_hash" not in columns
    connection.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "not json",
        '{"looks": 3}',
        '{"looks": {"head": 3, "lost": {}}}',
        '{"looks": {"head": "../../x", "lost": ["x", null, []]}}',
    ],
)
def test_an_odd_record_proves_nothing_and_breaks_nothing(run_dir: Path, text: str) -> None:
    (run_dir / "benchmark.json").write_text(text)
    assert recorded_heads(run_dir) == ()
    assert verify_looks(run_dir / "run.db") == []


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"not a database" * 99)])
def test_a_database_that_cannot_be_read_is_an_error(run_dir: Path, spoil: Callable[[Path], object]) -> None:
    spoil(run_dir / "run.db")
    with pytest.raises(StateError):
        verify_looks(run_dir / "run.db")


def test_the_hash_is_that_of_the_canonical_json(run_dir: Path) -> None:
    """Written out once, so that anybody can check a chain without this program."""
    import hashlib

    connection = database(run_dir)
    names = ("number", "utc", "benchmark", "split", "loop", "recipe_hash", "purpose", "prev_hash")
    rows = connection.execute(f"SELECT {', '.join(names)}, row_hash FROM looks ORDER BY number").fetchall()
    looks = read_looks(connection)
    connection.close()
    for entry, (*fields, row_hash) in zip(looks, rows, strict=True):
        text = json.dumps(dict(zip(names, fields, strict=True)), sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == row_hash == sealed(entry, fields[-1]).row_hash
