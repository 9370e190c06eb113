"""The seal of a run: its ledger of looks at val and test as a chain of hashes, and how it is checked.

Each row of table `looks` carries the hash of the row before it and one over its own fields and that hash:
a row that was changed, put in, moved or taken out breaks every link after it. Rows missing at the end
break no link; they are missed by the head (the last hash) that `benchmark.json` recorded. Whoever
rewrites the chain and every copy of `benchmark.json` is not found out: keep one copy elsewhere.
Not here: writing looks (`engine.journal`).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import JobError, Problem, StateError
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import Frozen, canonical_json, sha256_text

RECORD_NAME = "benchmark.json"
RECORD_MAX_BYTES = 64 << 20
LOOK_COLUMNS = "number, utc, benchmark, split, loop, recipe_hash, purpose, prev_hash, row_hash"
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_LOST = 100


class SealedLook(Frozen):
    """One row of table `looks`; the hashes are None where the row was never sealed."""

    number: int
    utc: str
    benchmark: str
    split: str
    loop: int
    recipe_hash: str
    purpose: str
    prev_hash: str | None = None
    row_hash: str | None = None


class Seal(Frozen):
    """What the check of a run's looks found.

    Attributes:
        head: hash of the last look; of the run's name while there is none.
        problem: the first broken link, in words; None while the chain holds.
        lost: heads that were recorded once and are no part of the chain now.
    """

    head: str = ""
    problem: str | None = None
    lost: tuple[str, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether the looks are not what they were when they were written."""
        return self.problem is not None or bool(self.lost)


def first_hash(run_id: str) -> str:
    """Return what the first look of a run links to: chains of two runs cannot be exchanged."""
    return sha256_text(canonical_json({"looks_of": run_id}))


def sealed(look: SealedLook, prev_hash: str) -> SealedLook:
    """Return the look with its link: SHA-256 of the canonical JSON of its fields and `prev_hash`."""
    fields = look.model_dump(mode="json", exclude={"row_hash"}) | {"prev_hash": prev_hash}
    row_hash = sha256_text(canonical_json(fields))
    return look.model_copy(update={"prev_hash": prev_hash, "row_hash": row_hash})


def read_looks(connection: sqlite3.Connection) -> tuple[SealedLook, ...]:
    """Return the looks of an open journal in order. Raises `sqlite3.Error` and `ValueError`."""
    rows = connection.execute(f"SELECT {LOOK_COLUMNS} FROM looks ORDER BY number")
    names = LOOK_COLUMNS.split(", ")
    return tuple(SealedLook.model_validate(dict(zip(names, row, strict=True))) for row in rows)


def check_looks(looks: Sequence[SealedLook], run_id: str, recorded: Iterable[str] = ()) -> Seal:
    """Check the chain of a run's looks, and that it still holds every head that was recorded."""
    prev_hash, problem = first_hash(run_id), None
    known = {prev_hash}
    for look in looks:
        expected = sealed(look, prev_hash)
        if look != expected:
            problem = problem or _broken_link(look, expected)
        prev_hash = look.row_hash or ""
        known.add(prev_hash)
    lost = tuple(dict.fromkeys(head for head in recorded if head not in known))
    return Seal(head=prev_hash, problem=problem, lost=lost)


def recorded_heads(run_dir: Path) -> tuple[str, ...]:
    """Return the head that the run's `benchmark.json` recorded, and those it had found lost already.

    () without such a file, or when it cannot be read: it holds no proof then.
    """
    try:
        looks = read_json_file(run_dir, RECORD_NAME, RECORD_MAX_BYTES).get("looks")
    except JobError:
        return ()
    if not isinstance(looks, dict):
        return ()
    values = cast("dict[str, Any]", looks)
    lost: Any = values.get("lost", [])
    entries = cast("list[Any]", lost)[:_MAX_LOST] if isinstance(lost, list) else []
    heads = [values.get("head"), *entries]
    return tuple(head for head in heads if isinstance(head, str) and _HASH.fullmatch(head))


def verify_looks(database: Path) -> list[Problem]:
    """Return what is wrong with the looks in a run's `run.db`; [] when nothing is.

    The first broken link is named; `benchmark.json` beside the database tells whether looks are missing
    at the end. Raises `StateError` when the database cannot be read.
    """
    if not database.is_file():
        raise StateError(f"{database} is missing")
    try:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)
        try:
            row = connection.execute("SELECT value FROM run WHERE key = 'run_id'").fetchone()
            looks = read_looks(connection)
        finally:
            connection.close()
    except (sqlite3.Error, ValueError) as error:
        raise StateError(f"{database} cannot be read: {str(error).splitlines()[0]}") from None
    seal = check_looks(looks, str(row[0]) if row else "", recorded_heads(database.parent))
    fix = "restore run.db from a copy; a claim of this run proves nothing"
    problems: list[Problem] = []
    if seal.problem is not None:
        problems.append(Problem("looks", None, seal.problem, "state.looks_changed", fix))
    for head in seal.lost:
        rule = f"{RECORD_NAME} recorded this last look, and it is gone or was changed"
        problems.append(Problem("looks", head[:12], rule, "state.looks_missing", fix))
    return problems


def _broken_link(look: SealedLook, expected: SealedLook) -> str:
    if look.row_hash is None or look.prev_hash is None:
        return f"look {look.number} carries no hash"
    if look.prev_hash != expected.prev_hash:
        return f"look {look.number} does not follow the look before it"
    return f"look {look.number} was changed after it was written"
