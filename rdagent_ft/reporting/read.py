"""Open a run for reading only: the journal into frozen values, and run names into folders.

The database is opened `mode=ro`: a report or a dashboard can never hurt a running loop. Not here:
writing the journal (the engine) and anything about wording.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from rdagent_ft.errors import StateError, UserError
from rdagent_ft.execution.port import JobResult
from rdagent_ft.reporting.records import STEP_OUTPUTS
from rdagent_ft.reporting.seal import check_looks, read_looks, recorded_heads
from rdagent_ft.reporting.tables import APPLICATION_ID, RUN_KEYS, SCHEMA_VERSION
from rdagent_ft.reporting.view import (
    AttemptRecord,
    Invocation,
    LlmCall,
    LookRecord,
    RunView,
    StepOutput,
    StepRecord,
)

DATABASE_NAME = "run.db"
LOCK_NAME = "run.lock"
_LOOK_FIELDS = set(LookRecord.model_fields)


def open_run(run_dir: Path) -> RunView:
    """Read a run's journal. Raises `StateError` when it is missing, foreign, newer or damaged."""
    path = run_dir / DATABASE_NAME
    if not path.is_file():
        raise StateError(f"{run_dir} holds no run: {DATABASE_NAME} is missing")
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be opened: {error}") from None
    try:
        _check_version(connection, path)
        connection.execute("BEGIN")  # one snapshot, although the loop may write meanwhile
        return _read_view(connection, run_dir.resolve())
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be read: {error}", hint="restore it from a copy") from None
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} is damaged: {_first_line(error)}", hint="restore it from a copy") from None
    finally:
        connection.close()


def find_run(output_root: Path, name: str) -> Path:
    """Return the run directory of `name`: `latest`, a run id, a unique prefix of one, or a path.

    Raises `UserError` with the nearest names when there is none or more than one.
    """
    if "/" in name and (Path(name) / DATABASE_NAME).is_file():
        return Path(name)
    runs = sorted(path.parent for path in output_root.glob(f"*/{DATABASE_NAME}"))
    if not runs:
        raise UserError(f"no runs under {output_root}", hint="start one, or set FT_FILE_PATH")
    if name == "latest":
        return max(runs, key=lambda run: (_created_utc(run), run.name))
    exact = [run for run in runs if run.name == name]
    matches = exact or [run for run in runs if name and run.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(run.name for run in matches[:5])
        raise UserError(f"run {name!r} is not unique: {shown}", hint="give more of its id")
    names = [run.name for run in runs]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[-3:]
    raise UserError(f"no run {name!r} under {output_root}", hint=f"nearest: {', '.join(near)}; or `latest`")


def is_locked(run_dir: Path) -> bool:
    """Return whether a live process holds the run's lock. Takes a shared lock for an instant."""
    try:
        descriptor = os.open(run_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _connect(path: Path) -> sqlite3.Connection:
    """Open read-only. A WAL file cannot be shared on a read-only medium: there, read the file alone."""
    uri = path.resolve().as_uri() + "?mode=ro"
    if not path.with_name(path.name + "-wal").exists() and not os.access(path.parent, os.W_OK):
        uri += "&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application_id != APPLICATION_ID:
        raise StateError(f"{path} is not a run of rdagent_ft")
    if version != SCHEMA_VERSION:
        relation = "newer" if version > SCHEMA_VERSION else "older"
        raise StateError(
            f"{path} has schema version {version}, {relation} than the {SCHEMA_VERSION} that is read here",
            hint="use the version of rdagent_ft that wrote it"
            + ("" if version > SCHEMA_VERSION else ", or `rdagent-ft resume` it once, which updates it"),
        )


def _read_view(connection: sqlite3.Connection, run_dir: Path) -> RunView:
    facts = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM run")}
    missing = [key for key in RUN_KEYS if key not in facts]
    if missing:
        raise ValueError(f"table run lacks {', '.join(missing)}")
    invocations = _invocations(connection)
    is_open = not invocations or invocations[-1].ended_utc is None
    steps, attempts, looks = _steps(connection), _attempts(connection), read_looks(connection)
    last_event, environment = _events(connection)
    stamps = [facts["created_utc"], *(step.ended_utc for step in steps), last_event]
    stamps += [attempt.ended_utc or attempt.created_utc for attempt in attempts]
    return RunView(
        run_dir=run_dir,
        run_id=facts["run_id"],
        created_utc=facts["created_utc"],
        code_version=facts["code_version"],
        request=_json_object(facts["request"]),
        settings=_json_object(facts["settings"]),
        steps=steps,
        attempts=attempts,
        llm_calls=_llm_calls(connection),
        invocations=invocations,
        looks=tuple(LookRecord.model_validate(look.model_dump(include=_LOOK_FIELDS)) for look in looks),
        seal=check_looks(looks, facts["run_id"], recorded_heads(run_dir)),
        environment=environment,
        last_utc=max((stamp for stamp in stamps if stamp), key=datetime.fromisoformat),
        is_live=is_open and is_locked(run_dir),
    )


def _steps(connection: sqlite3.Connection) -> tuple[StepRecord, ...]:
    rows = connection.execute(
        "SELECT loop, step, output, started_utc, ended_utc, wall_s FROM steps ORDER BY ended_utc, rowid"
    )
    records: list[StepRecord] = []
    for loop, step, output, started_utc, ended_utc, wall_s in rows:
        if step not in STEP_OUTPUTS:
            raise ValueError(f"unknown step {step!r} in loop {loop}")
        records.append(
            StepRecord(
                loop=loop,
                step=step,
                output=cast(StepOutput, STEP_OUTPUTS[step].model_validate_json(output)),
                started_utc=started_utc,
                ended_utc=ended_utc,
                wall_s=wall_s,
            )
        )
    return tuple(records)


def _attempts(connection: sqlite3.Connection) -> tuple[AttemptRecord, ...]:
    rows = connection.execute(
        "SELECT attempt_id, loop, step, number, kind, status, result, created_utc, ended_utc "
        "FROM attempts ORDER BY created_utc, rowid"
    )
    return tuple(
        AttemptRecord(
            attempt_id=row[0],
            loop=row[1],
            step=row[2].partition("/")[0],
            number=row[3],
            kind=row[4],
            status=row[5],
            result=None if row[6] is None else JobResult.model_validate_json(row[6]),
            created_utc=row[7],
            ended_utc=row[8],
        )
        for row in rows
    )


def _llm_calls(connection: sqlite3.Connection) -> tuple[LlmCall, ...]:
    rows = connection.execute(
        "SELECT role, model, input_tokens, output_tokens, "
        "CASE status WHEN 'reserved' THEN reserved_usd WHEN 'settled' THEN usd ELSE 0 END, created_utc "
        "FROM llm_calls WHERE status != 'void' ORDER BY number"
    )
    return tuple(
        LlmCall(
            role=row[0],
            model=row[1],
            input_tokens=row[2],
            output_tokens=row[3],
            usd=row[4],
            created_utc=row[5],
        )
        for row in rows
    )


def _invocations(connection: sqlite3.Connection) -> tuple[Invocation, ...]:
    rows = connection.execute(
        "SELECT number, started_utc, ended_utc, owner, bounds, stop_reason, status, active_s "
        "FROM invocations ORDER BY number"
    )
    return tuple(
        Invocation(
            number=row[0],
            started_utc=row[1],
            ended_utc=row[2],
            owner=row[3],
            bounds=_json_object(row[4]),
            stop_reason=row[5],
            status=row[6],
            active_s=row[7],
        )
        for row in rows
    )


def _events(connection: sqlite3.Connection) -> tuple[str, dict[str, str]]:
    """Return the newest event's time ("" when there is none) and the recorded package versions."""
    newest = connection.execute("SELECT utc FROM events ORDER BY number DESC LIMIT 1").fetchone()
    row = connection.execute(
        "SELECT payload FROM events WHERE kind = 'environment' ORDER BY number DESC LIMIT 1"
    ).fetchone()
    payload = {} if row is None else _json_object(row[0])
    versions = {key: value for key, value in payload.items() if isinstance(value, str)}
    return ("" if newest is None else str(newest[0])), versions


def _created_utc(run_dir: Path) -> str:
    """Return when a run was created; for an unreadable one, when its file was last written."""
    path = run_dir / DATABASE_NAME
    try:
        connection = _connect(path)
        try:
            row = connection.execute("SELECT value FROM run WHERE key = 'created_utc'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        row = None
    if row is not None:
        return str(row[0])
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")


def _json_object(text: str) -> dict[str, Any]:
    value: Any = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a JSON object was expected")
    return cast(dict[str, Any], value)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{error.title}: {place}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
