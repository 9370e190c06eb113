"""Reading a journal: what is accepted, what is refused, what a run's state is."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

import pytest
from make_run import RUN_ID, make_run

from rdagent_ft.errors import StateError, UserError
from rdagent_ft.reporting.read import find_run, open_run
from rdagent_ft.reporting.records import ClaimOutput, PrepareOutput


def execute(run_dir: Path, sql: str) -> None:
    connection = sqlite3.connect(run_dir / "run.db", isolation_level=None)
    connection.execute(sql)
    connection.close()


def test_loads_typed_outputs(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path))
    assert isinstance(view.prepare, PrepareOutput)
    assert view.prepare.splits["test"].n_items == 600
    assert [loop.number for loop in view.finished_loops] == list(range(7))
    assert isinstance(view.claim, ClaimOutput)
    assert view.best_loop == 6
    assert view.status == ("finished", "loop_n")
    assert view.environment["trl"] == "1.16.0"
    assert view.n_looks("val") == 5


def test_reading_never_writes(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    before = (run_dir / "run.db").read_bytes()
    view = open_run(run_dir)
    assert (run_dir / "run.db").read_bytes() == before
    assert open_run(run_dir) == view


def test_llm_cost_belongs_to_the_loop_that_asked(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path))
    by_loop = {loop.number: round(loop.usd, 4) for loop in view.loops}
    assert by_loop == {0: 0.0, **dict.fromkeys(range(1, 7), 0.0123)}
    assert sum(by_loop.values()) == pytest.approx(sum(total.usd for total in view.llm_totals))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("PRAGMA application_id = 7", "is not a run of rdagent_ft"),
        ("PRAGMA user_version = 99", "newer"),
        ("DELETE FROM run WHERE key = 'settings'", "lacks settings"),
        ("UPDATE steps SET output = '{\"nonsense\": 1}' WHERE step = 'claim'", "damaged"),
        ("UPDATE steps SET output = 'not json' WHERE step = 'claim'", "damaged"),
        ("INSERT INTO steps VALUES (9, 'teleport', '{}', 'x', 'x', 1.0)", "unknown step"),
        ("UPDATE steps SET ended_utc = 'yesterday'", "damaged"),
        ("UPDATE invocations SET stop_reason = 'boredom'", "damaged"),
        ("DROP TABLE looks", "cannot be read"),
    ],
)
def test_refuses_what_it_cannot_trust(tmp_path: Path, damage: str, message: str) -> None:
    run_dir = make_run(tmp_path, n_loops=1)
    execute(run_dir, damage)
    with pytest.raises(StateError, match=message) as caught:
        open_run(run_dir)
    assert caught.value.exit_code == 8


def test_refuses_a_missing_and_a_foreign_file(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="holds no run"):
        open_run(tmp_path)
    (tmp_path / "run.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match="cannot be read"):
        open_run(tmp_path)


def test_status_follows_the_lock(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, n_loops=2, verdict=None, ended=False)
    assert open_run(run_dir).status == ("interrupted", "interrupted")
    descriptor = os.open(run_dir / "run.lock", os.O_RDWR | os.O_CREAT)
    assert open_run(run_dir).status == ("interrupted", "interrupted")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert open_run(run_dir).status == ("running", None)
    os.close(descriptor)
    assert open_run(run_dir).status == ("interrupted", "interrupted")


def test_wall_time_of_a_process_that_died_ends_with_its_last_record(tmp_path: Path) -> None:
    ended = open_run(make_run(tmp_path / "a", n_loops=2, verdict=None))
    died = open_run(make_run(tmp_path / "b", n_loops=2, verdict=None, ended=False))
    assert died.wall_s == pytest.approx(ended.wall_s)
    assert ended.wall_s > 100


def test_find_run(tmp_path: Path) -> None:
    first = make_run(tmp_path, run_id="r-20261120-a1b2", n_loops=0, verdict=None)
    second = make_run(tmp_path, run_id="r-20261121-c3d4", n_loops=0, verdict=None)
    execute(second, "UPDATE run SET value = '2026-11-21T00:00:00.000Z' WHERE key = 'created_utc'")
    (tmp_path / "no-run").mkdir()
    assert find_run(tmp_path, "latest") == second
    assert find_run(tmp_path, RUN_ID) == first
    assert find_run(tmp_path, "r-20261121") == second
    assert find_run(tmp_path, str(first)) == first
    with pytest.raises(UserError, match="not unique"):
        find_run(tmp_path, "r-2026")
    with pytest.raises(UserError, match="no run") as caught:
        find_run(tmp_path, "r-20261120-a1b3")
    assert RUN_ID in (caught.value.hint or "")
    with pytest.raises(UserError, match="no run ''"):
        find_run(tmp_path, "")
    with pytest.raises(UserError, match="no runs under"):
        find_run(tmp_path / "empty", "latest")
