"""The journal: what is acknowledged is kept, what is not known is refused."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rdagent_ft.engine.journal import Journal, Look, utc_now
from rdagent_ft.engine.lock import hold_run
from rdagent_ft.errors import BudgetError, RunLockedError, StateError
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec
from rdagent_ft.llm.port import LedgerEntry, Usage
from rdagent_ft.reporting.records import CodeOutput

FACTS = {
    "run_id": "r1",
    "created_utc": "2026-01-01T00:00:00Z",
    "code_version": "0",
    "request": "{}",
    "settings": "{}",
}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path, FACTS)


def entry(usd: float, key: str = "k") -> LedgerEntry:
    return LedgerEntry(key=key, role="propose", model="m", status="reserved", reserved_usd=usd)


def test_a_step_survives_a_reopen_with_its_looks(journal: Journal, tmp_path: Path) -> None:
    output = CodeOutput(n_train_rows=7, notes=("a", "b"))
    look = Look(benchmark="heldout", split="val", loop=0, recipe_hash="h", purpose="select")
    journal.finish_step(0, "code", output, started_utc=utc_now(), wall_s=1.0, looks=(look,))
    journal.close()
    again = Journal.open(tmp_path)
    assert again.output(0, "code", CodeOutput) == output
    assert again.is_done(0, "code")
    assert not again.is_done(0, "train")
    assert again.look(look) == 1, "the same look is counted once"


def test_a_finished_step_cannot_be_recorded_twice(journal: Journal) -> None:
    journal.finish_step(0, "code", CodeOutput(), started_utc=utc_now(), wall_s=0.0)
    with pytest.raises(sqlite3.IntegrityError):
        journal.finish_step(0, "code", CodeOutput(), started_utc=utc_now(), wall_s=0.0)


def test_an_attempt_goes_from_intent_to_result(journal: Journal, tmp_path: Path) -> None:
    spec = JobSpec(attempt_id="a1", kind="train", argv=("true",), out_dir=tmp_path, deadline_unix=1.0)
    journal.intend(0, "train", 1, spec)
    assert journal.attempts(0, "train")[0].status == "intent"
    handle = JobHandle(executor="local", attempt_id="a1", out_dir=tmp_path, ref={"pid": 1})
    journal.launched("a1", handle)
    result = JobResult(failure_class="ok", reason="exit", exit_code=0, started_unix=0.0, ended_unix=2.0)
    journal.ended("a1", result)
    (attempt,) = journal.attempts(0, "train")
    assert (attempt.status, attempt.handle, attempt.result) == ("done", handle, result)


def test_the_ledger_counts_open_reservations_as_spent(journal: Journal) -> None:
    first = journal.reserve(entry(0.6), 1.0)
    with pytest.raises(BudgetError, match="may cost"):
        journal.reserve(entry(0.6), 1.0)
    journal.settle(first, Usage(input_tokens=10, output_tokens=5, usd=0.1), "reply", "settled")
    assert journal.spent_usd() == pytest.approx(0.1)
    second = journal.reserve(entry(0.6), 1.0)
    journal.settle(second, Usage(), None, "void")
    assert journal.spent_usd() == pytest.approx(0.1)
    found = journal.find("k")
    assert found is not None
    assert found.reply == "reply"


def test_many_threads_share_the_ledger(journal: Journal) -> None:
    """Each call takes 1 and costs a half: whatever the order, no thread may book past the limit."""
    together = threading.Barrier(8)

    def ask(thread: int) -> int:
        together.wait()
        refused = 0
        for call in range(25):
            key = f"{thread}-{call}"
            try:
                number = journal.reserve(entry(1.0, key), 60.0)
            except BudgetError:
                refused += 1
                continue
            assert journal.spent_usd() <= 60.0
            journal.event("asked", {"key": key})
            journal.settle(number, Usage(usd=0.5), f"reply {key}", "settled")
            found = journal.find(key)
            assert found is not None
            assert (found.reply, found.status) == (f"reply {key}", "settled")
        return refused

    with ThreadPoolExecutor(8) as pool:
        refused = sum(pool.map(ask, range(8)))
    # 8 open reservations at most leave room for at least 52 dollars of calls.
    assert 104 <= 200 - refused <= 120
    assert journal.spent_usd() == (200 - refused) * 0.5


@pytest.mark.parametrize("damage", ["truncate", "foreign", "newer", "missing", "garbage"])
def test_a_state_that_cannot_be_trusted_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.db"
    if damage == "foreign":
        sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    elif damage == "garbage":
        path.write_bytes(b"not a database, but long enough to look at" * 50)
    elif damage != "missing":
        journal = Journal.create(tmp_path, FACTS)
        journal.close()
        if damage == "newer":
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA user_version = 99")
            connection.close()
        else:
            path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StateError):
        Journal.open(tmp_path)


def test_a_second_holder_is_refused_by_name(tmp_path: Path) -> None:
    with hold_run(tmp_path) as owner:
        assert "pid" in owner
        with pytest.raises(RunLockedError, match="pid"), hold_run(tmp_path):
            pass
    with hold_run(tmp_path):
        pass
