"""The tables of `run.db`: the contract between the engine that writes and reports that read.

Migrations are numbered: `MIGRATIONS[n]` brings version n to n + 1, `PRAGMA user_version` holds the
version. A newer version than `SCHEMA_VERSION` is refused, never guessed at. JSON payloads only.
"""

from __future__ import annotations

APPLICATION_ID = 0x52444654
"""`PRAGMA application_id`: "RDFT", so that no other SQLite file is taken for a run."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE steps (
        loop INTEGER NOT NULL, step TEXT NOT NULL, output TEXT NOT NULL,
        started_utc TEXT NOT NULL, ended_utc TEXT NOT NULL, wall_s REAL NOT NULL,
        PRIMARY KEY (loop, step)
    ) STRICT;
    CREATE TABLE attempts (
        attempt_id TEXT PRIMARY KEY, loop INTEGER NOT NULL, step TEXT NOT NULL, number INTEGER NOT NULL,
        kind TEXT NOT NULL, spec TEXT NOT NULL, handle TEXT, result TEXT,
        status TEXT NOT NULL CHECK (status IN ('intent', 'running', 'done')),
        created_utc TEXT NOT NULL, ended_utc TEXT,
        UNIQUE (loop, step, number)
    ) STRICT;
    CREATE TABLE llm_calls (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL, role TEXT NOT NULL, model TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('reserved', 'settled', 'void')),
        reserved_usd REAL NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        usd REAL NOT NULL, reply TEXT, created_utc TEXT NOT NULL, settled_utc TEXT
    ) STRICT;
    CREATE TABLE looks (
        number INTEGER PRIMARY KEY, utc TEXT NOT NULL, benchmark TEXT NOT NULL, split TEXT NOT NULL,
        loop INTEGER NOT NULL, recipe_hash TEXT NOT NULL, purpose TEXT NOT NULL,
        UNIQUE (benchmark, split, loop, purpose)
    ) STRICT;
    CREATE TABLE invocations (
        number INTEGER PRIMARY KEY, started_utc TEXT NOT NULL, ended_utc TEXT, owner TEXT NOT NULL,
        bounds TEXT NOT NULL, stop_reason TEXT, status TEXT, active_s REAL
    ) STRICT;
    CREATE TABLE events (
        number INTEGER PRIMARY KEY, utc TEXT NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE looks ADD COLUMN prev_hash TEXT;
    ALTER TABLE looks ADD COLUMN row_hash TEXT;
    """,
    """
    CREATE TRIGGER looks_keep_their_words BEFORE UPDATE ON looks
    BEGIN SELECT RAISE(ABORT, 'a look is never changed'); END;
    CREATE TRIGGER looks_stay BEFORE DELETE ON looks
    BEGIN SELECT RAISE(ABORT, 'a look is never deleted'); END;
    CREATE TRIGGER looks_are_a_chain BEFORE INSERT ON looks
    WHEN NEW.prev_hash IS NULL OR NEW.row_hash IS NULL
        OR NEW.number <= coalesce((SELECT max(number) FROM looks), 0)
        OR NEW.prev_hash <> coalesce((SELECT row_hash FROM looks ORDER BY number DESC), NEW.prev_hash)
    BEGIN SELECT RAISE(ABORT, 'a look follows the last one and carries its hash'); END;
    """,
)
SCHEMA_VERSION = len(MIGRATIONS)

CHAINED_VERSION = 2
"""Rows that reach this version get their hashes (`seal`) before the next migration closes the table."""

RUN_KEYS = ("run_id", "created_utc", "code_version", "request", "settings")
"""Keys of table `run`. `request` is `{"dataset","model","columns","benchmarks"}`, `settings` the
stored settings without secrets; both JSON. Times are ISO 8601 in UTC."""
