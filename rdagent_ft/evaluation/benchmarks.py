"""Finding the local files of public benchmarks and reading their items.

Nothing is downloaded. A benchmark that the user named and that cannot be had stops the run before it
starts; the documented default that cannot be had costs one line.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.errors import DataError, Problem, UserError
from rdagent_ft.evaluation.benchmark_registry import ALIASES, BENCHMARKS, UNAVAILABLE, Benchmark
from rdagent_ft.evaluation.number_answers import gold_number, number_text
from rdagent_ft.settings import DEFAULT_BENCHMARKS
from rdagent_ft.values import Frozen, sha256_file, sha256_text

HELDOUT = "heldout"
"""The run's own benchmark: always scored, never a file."""

MAX_FILE_BYTES = 256 << 20


class FoundBenchmark(Frozen):
    """A benchmark whose file is on this machine, pinned by its hash."""

    benchmark: Benchmark
    path: Path
    sha256: str


def find_benchmark(name: str, file_path: Path) -> FoundBenchmark | None:
    """Return the benchmark when it is known, runnable and its file exists, else None.

    `file_path` is FT_FILE_PATH; files are looked for under `benchmarks/<name>/`.
    """
    benchmark = BENCHMARKS.get(_canonical_name(name))
    path = None if benchmark is None else _first_file(benchmark, file_path)
    if benchmark is None or path is None:
        return None
    return FoundBenchmark(benchmark=benchmark, path=path, sha256=sha256_file(path))


def check_benchmarks(named: tuple[str, ...] | None, file_path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Return (names to report beside the target, lines to show the user).

    `named` None means the documented default where its data is here. Aliases become registry names,
    doubles and `heldout` (always scored) are dropped. Raises `UserError` that lists every named
    benchmark that cannot be had, with near names or the place for its file.
    """
    if named is None:
        return _default_benchmarks(file_path)
    runnable: list[str] = []
    notices: list[str] = []
    problems: list[Problem] = []
    for name in named:
        known = _canonical_name(name)
        if known == HELDOUT:
            notices.append(f"`{HELDOUT}` is the run's own benchmark and is always scored")
        elif (problem := _why_not(name, file_path)) is not None:
            problems.append(problem)
        elif known not in runnable:
            runnable.append(known)
    if problems:
        plural = "s" if len(problems) > 1 else ""
        raise UserError(f"{len(problems)} benchmark{plural} cannot be run", problems=tuple(problems))
    return tuple(runnable), notices


def load_items(found: FoundBenchmark, limit: int | None, seed: int) -> list[Row]:
    """Return the benchmark's items as rows: question as user turn, the bare answer as completion.

    Items whose answer is no number are left out where the scorer needs one. `limit` keeps that many
    items, drawn by a hash of seed and item, in file order; items with equal text count once. Raises
    `DataError` with file and line on a bad record or when nothing is left.
    """
    benchmark = found.benchmark
    rows: dict[str, Row] = {}
    for place, record in _records(found.path):
        question = _field(record, benchmark.question, place)
        answer = _field(record, benchmark.answer, place)
        if benchmark.scorer == "numeric_match":
            number = gold_number(answer)
            if number is None:
                continue
            answer = number_text(number)
        content = f"{question}\n\n{benchmark.instruction}" if benchmark.instruction else question
        row = make_row((Message(role="user", content=content), Message(role="assistant", content=answer)))
        rows.setdefault(row.item_id, row)
    if not rows:
        raise DataError(f"{found.path} holds no item that {benchmark.scorer} can score")
    return _drawn(list(rows.values()), limit, seed)


def _drawn(rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    if limit is None or limit >= len(rows):
        return rows
    ranked = sorted(rows, key=lambda row: sha256_text(f"{seed}:{row.item_id}"))
    kept = {row.item_id for row in ranked[:limit]}
    return [row for row in rows if row.item_id in kept]


def _default_benchmarks(file_path: Path) -> tuple[tuple[str, ...], list[str]]:
    runnable = tuple(name for name in DEFAULT_BENCHMARKS if find_benchmark(name, file_path) is not None)
    missing = [name for name in DEFAULT_BENCHMARKS if name not in runnable]
    if not missing:
        return runnable, []
    places = ", ".join(str(_wanted_file(BENCHMARKS[name], file_path)) for name in missing)
    return runnable, [f"benchmark {', '.join(missing)} is not reported: no file at {places}"]


def _why_not(name: str, file_path: Path) -> Problem | None:
    known = _canonical_name(name)
    benchmark = BENCHMARKS.get(known)
    if benchmark is not None:
        if _first_file(benchmark, file_path) is not None:
            return None
        wanted = _wanted_file(benchmark, file_path)
        rule = f"its items are not on this machine ({benchmark.title})"
        fix = f"put the file at {wanted}; source: {benchmark.source}"
        return _problem(name, rule, "benchmark.no_data", fix)
    others = f"use one of: {', '.join(sorted(BENCHMARKS))}, or remove it"
    if known in UNAVAILABLE:
        return _problem(
            name, f"known, but it cannot run: {UNAVAILABLE[known]}", "benchmark.unavailable", others
        )
    names = [*BENCHMARKS, *UNAVAILABLE, *ALIASES, HELDOUT]
    near = difflib.get_close_matches(known, names, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(near)}?" if near else others
    return _problem(name, "no benchmark has this name", "benchmark.unknown", fix)


def _problem(name: str, rule: str, problem_class: str, fix: str) -> Problem:
    return Problem(key="benchmark", value=name, rule=rule, problem_class=problem_class, fix=fix)


def _canonical_name(name: str) -> str:
    lowered = name.strip().lower()
    return ALIASES.get(lowered, lowered)


def _first_file(benchmark: Benchmark, file_path: Path) -> Path | None:
    for folder in (benchmark.name, *benchmark.folders):
        for file_name in benchmark.files:
            path = file_path / "benchmarks" / folder / file_name
            if path.is_file():
                return path
    return None


def _wanted_file(benchmark: Benchmark, file_path: Path) -> Path:
    return file_path / "benchmarks" / benchmark.name / benchmark.files[0]


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (place, record) of every line of a JSON lines file."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    records: list[tuple[str, dict[str, Any]]] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                value: Any = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{place} is not JSON: {str(error)[:200]}") from None
            if not isinstance(value, dict):
                raise DataError(f"{place} is not a JSON object")
            records.append((place, cast(dict[str, Any], value)))
    return records


def _field(record: dict[str, Any], names: Sequence[str], place: str) -> str:
    for name in names:
        value = record.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise DataError(
        f"{place} has none of the fields {', '.join(names)} with text; it has: {', '.join(list(record)[:20])}"
    )
