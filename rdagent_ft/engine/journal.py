"""The journal: one SQLite file per run that every other truth of the run is derived from.

WAL with `synchronous=FULL`; one writer (see `lock.py`); a step's output, its looks and its event are
one transaction; a job is an *intent* before it is launched. It also is the LLM ledger, so that a
paid answer survives a crash. Not here: the order of the steps (`run.py`) and reading for reports
(`reporting/read.py`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from rdagent_ft.errors import BudgetError, StateError
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec
from rdagent_ft.llm.port import LedgerEntry, LlmRole, Usage
from rdagent_ft.reporting.records import STEP_OUTPUTS, StepName
from rdagent_ft.reporting.seal import LOOK_COLUMNS, SealedLook, first_hash, read_looks, sealed
from rdagent_ft.reporting.tables import APPLICATION_ID, CHAINED_VERSION, MIGRATIONS, SCHEMA_VERSION
from rdagent_ft.values import Frozen

DATABASE_NAME = "run.db"
T = TypeVar("T", bound=Frozen)


class Attempt(Frozen):
    """One try of a job as the journal knows it."""

    attempt_id: str
    number: int
    status: Literal["intent", "running", "done"]
    spec: JobSpec
    handle: JobHandle | None = None
    result: JobResult | None = None


class Look(Frozen):
    """One look at a split whose items must not steer: `val` for selection, `test` for the claim."""

    benchmark: str
    split: str
    loop: int
    recipe_hash: str
    purpose: str


def utc_now() -> str:
    """Return the current time as ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """The open journal of one run. Use `Journal.create` or `Journal.open`.

    The ledger and whatever writes may be called from several threads, as a judge does; one thread reads.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # One connection has one transaction: without this, a thread would write into another's.
        self._lock = threading.RLock()

    @classmethod
    def create(cls, run_dir: Path, facts: dict[str, str]) -> Journal:
        """Create `run.db` in `run_dir` with `facts` (see `tables.RUN_KEYS`). It must not exist."""
        path = run_dir / DATABASE_NAME
        if path.exists():
            raise StateError(f"{path} exists already")
        journal = cls(_connect(path))
        with journal._transaction() as db:
            _migrate(db, 0)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.executemany("INSERT INTO run (key, value) VALUES (?, ?)", list(facts.items()))
        return journal

    @classmethod
    def open(cls, run_dir: Path) -> Journal:
        """Open an existing journal. Raises `StateError` when it is damaged, foreign or newer.

        An older one stays as it is until `begin_invocation`: only who holds the run may change it.
        """
        path = run_dir / DATABASE_NAME
        if not path.is_file():
            raise StateError(f"{run_dir} holds no run: {DATABASE_NAME} is missing")
        try:
            connection = _connect(path)
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            check = connection.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise StateError(f"{path} cannot be read: {error}", hint="restore it from a copy") from None
        if application_id != APPLICATION_ID:
            raise StateError(f"{path} is not a run of rdagent_ft")
        if not 1 <= version <= SCHEMA_VERSION:
            raise StateError(
                f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}",
                hint="use the version of rdagent_ft that wrote it; see `run` table, key code_version",
            )
        if check != "ok":
            raise StateError(f"{path} is damaged: {check}", hint="restore it from a copy")
        return cls(connection)

    def close(self) -> None:
        """Close the database; the journal cannot be used any more."""
        self._connection.close()

    def fact(self, key: str) -> str:
        """Return a value of table `run`."""
        row = self._connection.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise StateError(f"the journal lacks {key!r}")
        return str(row[0])

    # Steps

    def output(self, loop: int, step: StepName, kind: type[T]) -> T | None:
        """Return the output of a finished step as `kind`, or None when it has not finished."""
        assert STEP_OUTPUTS[step] is kind, f"{step} is a {STEP_OUTPUTS[step].__name__}"
        row = self._connection.execute(
            "SELECT output FROM steps WHERE loop = ? AND step = ?", (loop, step)
        ).fetchone()
        return None if row is None else kind.model_validate_json(row[0])

    def is_done(self, loop: int, step: StepName) -> bool:
        """Return whether the step has finished; a finished step never runs again."""
        row = self._connection.execute(
            "SELECT 1 FROM steps WHERE loop = ? AND step = ?", (loop, step)
        ).fetchone()
        return row is not None

    def finish_step(
        self, loop: int, step: StepName, output: Frozen, *, started_utc: str, wall_s: float,
        looks: Sequence[Look] = (),
    ) -> None:  # fmt: skip
        """Record a step's output, its looks and its event in one transaction."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO steps (loop, step, output, started_utc, ended_utc, wall_s) VALUES (?,?,?,?,?,?)",
                (loop, step, output.model_dump_json(), started_utc, utc_now(), wall_s),
            )
            for look in looks:
                _insert_look(db, look)
            _insert_event(db, "step_done", {"loop": loop, "step": step})

    def finished_loops(self) -> list[int]:
        """Return the numbers of the loops whose feedback is recorded, in order."""
        rows = self._connection.execute("SELECT loop FROM steps WHERE step = 'feedback' ORDER BY loop")
        return [int(row[0]) for row in rows]

    def look(self, look: Look) -> int:
        """Record a look before it happens; return how many distinct looks this split had so far."""
        with self._transaction() as db:
            _insert_look(db, look)
        row = self._connection.execute(
            "SELECT count(*) FROM looks WHERE benchmark = ? AND split = ?", (look.benchmark, look.split)
        ).fetchone()
        return int(row[0])

    # Jobs

    def attempts(self, loop: int, step: StepName, part: str = "") -> list[Attempt]:
        """Return the attempts of a step's job in order; `part` names one of several jobs."""
        rows = self._connection.execute(
            "SELECT attempt_id, number, status, spec, handle, result FROM attempts "
            "WHERE loop = ? AND step = ? ORDER BY number",
            (loop, _job_name(step, part)),
        )
        return [
            Attempt(
                attempt_id=row[0], number=row[1], status=row[2], spec=JobSpec.model_validate_json(row[3]),
                handle=None if row[4] is None else JobHandle.model_validate_json(row[4]),
                result=None if row[5] is None else JobResult.model_validate_json(row[5]),
            )
            for row in rows
        ]  # fmt: skip

    def intend(self, loop: int, step: StepName, number: int, spec: JobSpec, part: str = "") -> None:
        """Record that a job is about to be launched."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO attempts (attempt_id, loop, step, number, kind, spec, status, created_utc) "
                "VALUES (?,?,?,?,?,?,'intent',?)",
                (
                    spec.attempt_id,
                    loop,
                    _job_name(step, part),
                    number,
                    spec.kind,
                    spec.model_dump_json(),
                    utc_now(),
                ),
            )

    def launched(self, attempt_id: str, handle: JobHandle) -> None:
        """Record the handle that finds the job again."""
        with self._transaction() as db:
            db.execute(
                "UPDATE attempts SET status = 'running', handle = ? WHERE attempt_id = ?",
                (handle.model_dump_json(), attempt_id),
            )

    def ended(self, attempt_id: str, result: JobResult) -> None:
        """Record how the job ended."""
        with self._transaction() as db:
            db.execute(
                "UPDATE attempts SET status = 'done', result = ?, ended_utc = ? WHERE attempt_id = ?",
                (result.model_dump_json(), utc_now(), attempt_id),
            )

    # Invocations and events

    def begin_invocation(self, owner: str, bounds: dict[str, Any]) -> int:
        """Record that a process works on the run now; return the invocation's number.

        The caller holds the run. A journal of an older version is brought to this one first.
        """
        with self._transaction() as db:
            _migrate(db, int(db.execute("PRAGMA user_version").fetchone()[0]))
            cursor = db.execute(
                "INSERT INTO invocations (started_utc, owner, bounds) VALUES (?,?,?)",
                (utc_now(), owner, json.dumps(bounds)),
            )
        return cast(int, cursor.lastrowid)

    def end_invocation(self, number: int, *, status: str, stop_reason: str, active_s: float) -> None:
        """Record why and when the process let go of the run."""
        with self._transaction() as db:
            db.execute(
                "UPDATE invocations SET ended_utc = ?, status = ?, stop_reason = ?, active_s = ? "
                "WHERE number = ?",
                (utc_now(), status, stop_reason, active_s, number),
            )

    def last_loop_n(self) -> int | None:
        """Return `loop_n` of the newest invocation that had one."""
        rows = self._connection.execute("SELECT bounds FROM invocations ORDER BY number DESC")
        for row in rows:
            loop_n = json.loads(row[0]).get("loop_n")
            if loop_n is not None:
                return int(loop_n)
        return None

    def event(self, kind: str, payload: dict[str, Any]) -> None:
        """Append an event."""
        with self._transaction() as db:
            _insert_event(db, kind, payload)

    # Ledger (llm.port.Ledger)

    def find(self, key: str) -> LedgerEntry | None:
        """Return the newest ledger entry of this key that has a reply."""
        with self._lock:
            row = self._connection.execute(
                "SELECT key, role, model, status, reserved_usd, input_tokens, output_tokens, usd, reply "
                "FROM llm_calls WHERE key = ? AND reply IS NOT NULL ORDER BY number DESC LIMIT 1",
                (key,),
            ).fetchone()
        if row is None:
            return None
        usage = Usage(input_tokens=row[5], output_tokens=row[6], usd=row[7])
        return LedgerEntry(
            key=row[0], role=cast(LlmRole, row[1]), model=row[2], status=row[3],
            reserved_usd=row[4], usage=usage, reply=row[8],
        )  # fmt: skip

    def reserve(self, entry: LedgerEntry, limit_usd: float | None) -> int:
        """Book a reservation; raises `BudgetError` when spent plus it would pass `limit_usd`."""
        with self._transaction() as db:
            spent = _spent_usd(db)
            if limit_usd is not None and spent + entry.reserved_usd > limit_usd:
                raise BudgetError(
                    f"the next {entry.role} call may cost ${entry.reserved_usd:.4f}; "
                    f"${spent:.4f} of ${limit_usd:.4f} are spent or reserved",
                    hint="raise --max-cost (FT_MAX_COST)",
                )
            cursor = db.execute(
                "INSERT INTO llm_calls (key, role, model, status, reserved_usd, input_tokens, output_tokens, "
                "usd, created_utc) VALUES (?,?,?,'reserved',?,0,0,0,?)",
                (entry.key, entry.role, entry.model, entry.reserved_usd, utc_now()),
            )
        return cast(int, cursor.lastrowid)

    def settle(
        self, number: int, usage: Usage, reply: str | None, status: Literal["settled", "void"]
    ) -> None:
        """Close a reservation."""
        with self._transaction() as db:
            db.execute(
                "UPDATE llm_calls SET status = ?, input_tokens = ?, output_tokens = ?, usd = ?, reply = ?, "
                "settled_utc = ? WHERE number = ?",
                (status, usage.input_tokens, usage.output_tokens, usage.usd, reply, utc_now(), number),
            )

    def spent_usd(self) -> float:
        """Return settled dollars plus open reservations."""
        with self._lock:
            return _spent_usd(self._connection)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _job_name(step: StepName, part: str) -> str:
    """Return what the attempts table calls a job: `claim`, `claim/seed-43`."""
    return f"{step}/{part}" if part else step


def _spent_usd(db: sqlite3.Connection) -> float:
    row = db.execute(
        "SELECT coalesce(sum(CASE status WHEN 'settled' THEN usd WHEN 'reserved' THEN reserved_usd "
        "ELSE 0 END), 0) FROM llm_calls"
    ).fetchone()
    return float(row[0])


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring the tables from `version` to `SCHEMA_VERSION` inside the caller's transaction."""
    for script in MIGRATIONS[version:]:
        for statement in _statements(script):
            db.execute(statement)
        version += 1
        if version == CHAINED_VERSION:
            _chain_looks(db)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(script: str) -> Generator[str]:
    """Yield the statements of a script one by one; a trigger holds semicolons of its own."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                yield statement
            statement = ""


def _chain_looks(db: sqlite3.Connection) -> None:
    """Seal looks of the time before there was a chain, in their order."""
    looks = read_looks(db)
    prev_hash = first_hash(_run_id(db)) if looks else ""
    for look in looks:
        link = sealed(look, prev_hash)
        prev_hash = link.row_hash or ""
        db.execute(
            "UPDATE looks SET prev_hash = ?, row_hash = ? WHERE number = ?",
            (link.prev_hash, link.row_hash, link.number),
        )


def _insert_look(db: sqlite3.Connection, look: Look) -> None:
    """Append a look to the chain; the same look again (a step that began anew) is no second one."""
    known = db.execute(
        "SELECT 1 FROM looks WHERE benchmark = ? AND split = ? AND loop = ? AND purpose = ?",
        (look.benchmark, look.split, look.loop, look.purpose),
    ).fetchone()
    if known is not None:
        return
    last = db.execute("SELECT number, row_hash FROM looks ORDER BY number DESC LIMIT 1").fetchone()
    number, prev_hash = (1, first_hash(_run_id(db))) if last is None else (last[0] + 1, last[1])
    link = sealed(SealedLook(number=number, utc=utc_now(), **look.model_dump()), prev_hash)
    values = link.model_dump()
    names = LOOK_COLUMNS.split(", ")
    marks = ", ".join("?" for _ in names)
    db.execute(f"INSERT INTO looks ({LOOK_COLUMNS}) VALUES ({marks})", [values[name] for name in names])


def _run_id(db: sqlite3.Connection) -> str:
    return str(db.execute("SELECT value FROM run WHERE key = 'run_id'").fetchone()[0])


def _insert_event(db: sqlite3.Connection, kind: str, payload: dict[str, Any]) -> None:
    db.execute(
        "INSERT INTO events (utc, kind, payload) VALUES (?,?,?)", (utc_now(), kind, json.dumps(payload))
    )
