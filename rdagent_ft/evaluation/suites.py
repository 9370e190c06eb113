"""Suites: which items of which benchmarks are asked how often, frozen by hashes in `suites/*.yaml`.

A suite holds no item, only what pins them: the file's SHA-256, the rule that selects, and the SHA-256
of the sorted ids. `scripts/freeze_suites.py` writes the files. Another version of a data file is
refused, because scores on other items are other scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from rdagent_ft.data.rows import Row
from rdagent_ft.errors import DataError, Problem, StateError, UserError
from rdagent_ft.evaluation.benchmarks import FoundBenchmark, check_benchmarks, find_benchmark, load_items
from rdagent_ft.evaluation.judge.rubrics import read_rubric
from rdagent_ft.evaluation.judge.side_by_side import JudgeWish, wish_of
from rdagent_ft.evaluation.rows import ScorerName
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen, sha256_text

SuiteName = Literal["test", "quick", "core", "full"]
SelectionRule = Literal["all", "hash_rank", "per_subject"]
SUITE_NAMES: tuple[SuiteName, ...] = ("test", "quick", "core", "full")
ALIASES: dict[str, SuiteName] = {
    "test-mode": "test",
    "standard": "core",
    "comprehensive": "full",
}

_Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SuiteBenchmark(Frozen):
    """One benchmark of a suite.

    Attributes:
        role: `target` should improve, a `guard` must not get worse. A caller may name another target.
        rule: `all` items, `hash_rank` draws n of them, `per_subject` draws the same number of each
            subject (n over the number of subjects).
        n_items: items asked; `n_available` are in the file.
        repeats, temperature: answers an item and how random they are.
        seed: of the selection.
        judge: `equivalence` lets a judge look at answers that the rule rejects, `none` never; unset, where
            the scorer is one that may miss a right answer. Only where FT_JUDGE_* name a judge.
        rubric: a shipped rubric by which a judge grades every answer beside its score.
        data_sha256: of the data file (or of the files of a folder) in the registry's form.
        ids_sha256: of the sorted item ids, one a line.
    """

    role: Literal["target", "guard"]
    rule: SelectionRule
    n_items: Annotated[int, Field(ge=1)]
    n_available: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=1, le=1_000)] = 1
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    seed: int
    judge: Literal["equivalence", "none"] | None = None
    rubric: str | None = None
    data_sha256: _Hex64
    ids_sha256: _Hex64


class Suite(Frozen):
    """One suite, as its file holds it.

    Attributes:
        title, purpose: for people.
        guard_margin: loss that a guard tolerates, as a share.
        benchmarks: registry name -> what is asked of it.
    """

    schema_version: Literal[1]
    name: SuiteName
    version: str
    title: str
    purpose: str
    guard_margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    benchmarks: dict[str, SuiteBenchmark]

    @property
    def n_requests(self) -> int:
        """Answers that one model gives on this suite."""
        return sum(benchmark.n_items * benchmark.repeats for benchmark in self.benchmarks.values())

    @property
    def target(self) -> str | None:
        """The benchmark that should improve, where the suite names one."""
        return next((name for name, used in self.benchmarks.items() if used.role == "target"), None)

    @property
    def items_sha(self) -> str:
        """Hash of all selected items."""
        return sha256_text("".join(f"{name} {used.ids_sha256}\n" for name, used in self.benchmarks.items()))


def suite_name(name: str) -> SuiteName:
    """Return the suite that a name or alias means (`standard` is core). Raises `UserError`."""
    lowered = "-".join(name.strip().lower().replace("_", " ").split())
    known = ALIASES.get(lowered, lowered)
    for suite in SUITE_NAMES:
        if suite == known:
            return suite
    shown = ", ".join([*SUITE_NAMES, *ALIASES])
    raise UserError(f"no suite {name!r}", hint=f"one of: {shown}")


def load_suite(name: str) -> Suite:
    """Return the suite of that name or alias. Raises `UserError`, `StateError` for a damaged file."""
    known = suite_name(name)
    path = shipped_folder("suites") / f"{known}.yaml"
    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        suite = Suite.model_validate(value)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        lines = str(error).splitlines()
        raise StateError(f"{path} is no suite: {' '.join(lines[:3])[:300]}") from None
    if suite.name != known:
        raise StateError(f"{path} is the suite {suite.name}")
    return suite


def check_suite(suite: Suite, file_path: Path) -> tuple[Problem, ...]:
    """Return everything that keeps the suite from being asked: missing files, other versions of them.

    `file_path` is FT_FILE_PATH. Empty when all is there; items are not read.
    """
    problems: list[Problem] = []
    for name, used in suite.benchmarks.items():
        found = find_benchmark(name, file_path)
        if found is None:
            problems += _missing(name, file_path)
            continue
        if found.sha256 != used.data_sha256:
            problems.append(_other_file(name, found, used))
        problems += _judge_problems(name, found, used)
    return tuple(problems)


def judge_wish(used: SuiteBenchmark, scorer: ScorerName) -> JudgeWish:
    """Return what a judge does on this benchmark of a suite. Raises `UserError` for what it cannot do."""
    if used.rubric is not None:
        read_rubric(used.rubric)
    return wish_of(scorer, judge=used.judge, rubric=used.rubric)


def items_of(suite: Suite, name: str, file_path: Path, limit: int | None = None) -> list[Row]:
    """Return the frozen items of one of the suite's benchmarks, in file order.

    `limit` keeps that many of them, the first by hash: a try-out, never the suite. Raises `DataError`
    when the file is not there, is another version, or selects other items than were frozen.
    """
    used = suite.benchmarks[name]
    found = find_benchmark(name, file_path)
    if found is None:
        raise DataError(
            f"the items of {name} are not on this machine", problems=tuple(_missing(name, file_path))
        )
    if found.sha256 != used.data_sha256:
        raise DataError(
            f"the items of {name} are another version", problems=(_other_file(name, found, used),)
        )
    rows = selected_rows(load_items(found), used.rule, used.n_items, used.seed)
    if ids_sha256([row.item_id for row in rows]) != used.ids_sha256:
        raise DataError(
            f"suite {suite.name} selects other items of {name} than were frozen",
            hint="its items are read differently now: this needs a new version of the suite",
        )
    return rows if limit is None else _ranked(rows, limit, used.seed)


def selected_rows(rows: Sequence[Row], rule: SelectionRule, n_items: int, seed: int) -> list[Row]:
    """Return the rows that a rule selects, in their order. Raises `DataError` when they are too few."""
    if rule == "all":
        return list(rows)
    if rule == "hash_rank":
        if n_items > len(rows):
            raise DataError(f"{n_items} items are wanted, there are {len(rows)}")
        return _ranked(rows, n_items, seed)
    subjects: dict[str, list[Row]] = {}
    for row in rows:
        subjects.setdefault(str(row.meta.get("subject")), []).append(row)
    per_subject, rest = divmod(n_items, len(subjects))
    if rest or not per_subject or any(len(group) < per_subject for group in subjects.values()):
        raise DataError(f"{n_items} items cannot be spread evenly over {len(subjects)} subjects")
    kept = {row.item_id for group in subjects.values() for row in _ranked(group, per_subject, seed)}
    return [row for row in rows if row.item_id in kept]


def ids_sha256(ids: Sequence[str]) -> str:
    """Return the hash that freezes a selection: of the sorted ids, one a line."""
    return sha256_text("".join(f"{item_id}\n" for item_id in sorted(ids)))


def _ranked(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    ranked = sorted(rows, key=lambda row: sha256_text(f"{seed}:{row.item_id}"))
    kept = {row.item_id for row in ranked[:n]}
    return [row for row in rows if row.item_id in kept]


def _judge_problems(name: str, found: FoundBenchmark, used: SuiteBenchmark) -> list[Problem]:
    try:
        judge_wish(used, found.benchmark.scorer)
    except UserError as error:
        fix = error.hint or "leave `judge` and `rubric` out"
        return [Problem(f"suite.{name}", used.rubric or used.judge, error.message, "suite.judge", fix)]
    return []


def _missing(name: str, file_path: Path) -> list[Problem]:
    try:
        check_benchmarks((name,), file_path)
    except UserError as error:
        return list(error.problems)
    return []


def _other_file(name: str, found: FoundBenchmark, used: SuiteBenchmark) -> Problem:
    return Problem(
        key=f"suite.{name}",
        value=found.sha256[:16],
        rule=f"{found.path} is another version of the file than the suite's ({used.data_sha256[:16]})",
        problem_class="suite.data",
        fix=f"put the file from {found.benchmark.source} there",
    )
