"""Finding the local files of benchmarks and reading their items: public ones and the user's own.

Nothing is downloaded. A benchmark that the user named and that cannot be had stops the run before it
starts; the documented default that cannot be had costs one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from rdagent_ft.data.contamination import item_of
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.rows import Row
from rdagent_ft.errors import DataError, Problem, UserError
from rdagent_ft.evaluation.benchmark_registry import (
    ALIASES,
    BENCHMARKS,
    UNAVAILABLE,
    Benchmark,
    canonical_name,
)
from rdagent_ft.evaluation.own_benchmark import is_own, own_problems, own_spec, read_own
from rdagent_ft.evaluation.public.readers import read_benchmark
from rdagent_ft.evaluation.public.records import fingerprint
from rdagent_ft.settings import DEFAULT_BENCHMARKS
from rdagent_ft.values import Frozen, sha256_text

HELDOUT = "heldout"
"""The run's own benchmark: always scored, never a file."""


class FoundBenchmark(Frozen):
    """A benchmark whose file is on this machine, pinned by its hash."""

    benchmark: Benchmark
    path: Path
    sha256: str


def find_benchmark(name: str, file_path: Path) -> FoundBenchmark | None:
    """Return the benchmark when it is known, runnable and its file exists, else None.

    `name` is a registry name, an alias, another harness's config name, or the user's own
    `file.jsonl[:scorer]`. `file_path` is FT_FILE_PATH; public files lie under `benchmarks/<name>/`.
    """
    if is_own(name):
        if own_problems(name):
            return None
        benchmark, path = read_own(name)[0], own_spec(name)[0]
    else:
        benchmark = BENCHMARKS.get(canonical_name(name))
        path = None if benchmark is None else _first_file(benchmark, file_path)
    if benchmark is None or path is None:
        return None
    return FoundBenchmark(benchmark=benchmark, path=path, sha256=fingerprint(path))


def check_benchmarks(named: tuple[str, ...] | None, file_path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Return (names to report beside the target, lines to show the user).

    `named` None means the documented default where its data is here. Aliases become registry names,
    own files absolute paths; doubles and `heldout` (always scored) are dropped. Raises `UserError` that
    lists every named benchmark that cannot be had, with near names, the place for its file, or what is
    wrong inside an own file.
    """
    if named is None:
        return _default_benchmarks(file_path)
    runnable: list[str] = []
    notices: list[str] = []
    problems: list[Problem] = []
    for name in named:
        known = _known_name(name)
        if known == HELDOUT:
            notices.append(f"`{HELDOUT}` is the run's own benchmark and is always scored")
        elif found := _why_not(name, file_path):
            problems += found
        elif known not in runnable:
            runnable.append(known)
    problems += _same_own_names(runnable)
    if problems:
        plural = "s" if len(problems) > 1 else ""
        raise UserError(
            f"the benchmarks cannot be run: {len(problems)} problem{plural}", problems=tuple(problems)
        )
    return tuple(runnable), notices


def load_items(
    found: FoundBenchmark, limit: int | None = None, seed: int = 0, *, ids: Collection[str] | None = None
) -> list[Row]:
    """Return the benchmark's items as rows: question as user turn, the reference as completion.

    The completion has the form that the scorer reads (`public.readers`). Items whose answer is no
    number are left out where the scorer needs one. `limit` keeps that many items, drawn by a hash of
    seed and item, in file order; items with equal text count once. `ids` takes exactly these items
    instead. Raises `DataError` with file and line on a bad record, when nothing is left, or with the
    ids that the file has not.
    """
    benchmark = found.benchmark
    rows = (
        read_own(_own_name(found))[1] if benchmark.reader == "own" else read_benchmark(benchmark, found.path)
    )
    if not rows:
        raise DataError(f"{found.path} holds no item that {benchmark.scorer} can score")
    return _drawn(rows, limit, seed) if ids is None else _named_rows(rows, ids, found)


def compared_item(row: Row, source: str) -> EvalItem:
    """Return an item as the contamination check compares it: its question, its answer as plain text.

    The reference of a code or instruction benchmark is JSON for a scorer, which no training data holds;
    training data that repeats a question of many words rarely has its options, or has them in other forms.
    """
    item = item_of(row, source)
    question, answer = row.meta.get("question_text"), row.meta.get("answer_text")
    return item._replace(
        question=question if isinstance(question, str) else item.question,
        answer=answer if isinstance(answer, str) else item.answer,
    )


def clusters_of(rows: Collection[Row]) -> dict[str, str]:
    """Return item id -> cluster, for the rows whose file names clusters."""
    return {row.item_id: str(row.meta["cluster"]) for row in rows if row.meta.get("cluster") is not None}


def _named_rows(rows: list[Row], ids: Collection[str], found: FoundBenchmark) -> list[Row]:
    wanted = set(ids)
    kept = [row for row in rows if row.item_id in wanted]
    if len(kept) != len(wanted):
        absent = sorted(wanted - {row.item_id for row in kept})
        raise DataError(
            f"{found.path} has not {len(absent)} of {len(wanted)} items: {', '.join(absent[:5])}",
            hint="the file is another version than the one the items were named for",
        )
    return kept


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


def _why_not(name: str, file_path: Path) -> list[Problem]:
    if is_own(name):
        return own_problems(name)
    known = canonical_name(name)
    benchmark = BENCHMARKS.get(known)
    if benchmark is not None:
        if _first_file(benchmark, file_path) is not None:
            return []
        wanted = _wanted_file(benchmark, file_path)
        rule = f"its items are not on this machine ({benchmark.title})"
        fix = f"put the file at {wanted}; source: {benchmark.source}"
        return [_problem(name, rule, "benchmark.no_data", fix)]
    others = f"use one of: {', '.join(sorted(BENCHMARKS))}, or remove it"
    if known in UNAVAILABLE:
        rule = f"known, but it cannot run: {UNAVAILABLE[known]}"
        return [_problem(name, rule, "benchmark.unavailable", others)]
    names = [*BENCHMARKS, *UNAVAILABLE, *ALIASES, HELDOUT]
    near = difflib.get_close_matches(known, names, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(near)}?" if near else others
    return [_problem(name, "no benchmark has this name", "benchmark.unknown", fix)]


def _same_own_names(runnable: list[str]) -> list[Problem]:
    taken: dict[str, str] = {}
    problems: list[Problem] = []
    for name in runnable:
        if is_own(name):
            short = own_spec(name)[2]
            if short in taken:
                rule = f"its file has the same short name as {taken[short]}: {short}"
                problems.append(_problem(name, rule, "benchmark.unknown", "rename one of the files"))
            taken[short] = name
    return problems


def _problem(name: str, rule: str, problem_class: str, fix: str) -> Problem:
    return Problem(key="benchmark", value=name, rule=rule, problem_class=problem_class, fix=fix)


def _known_name(name: str) -> str:
    if not is_own(name):
        return canonical_name(name)
    path, scorer, _ = own_spec(name)
    return f"{path}:{scorer}" if scorer else str(path)


def _own_name(found: FoundBenchmark) -> str:
    return f"{found.path}:{found.benchmark.scorer}"


def _first_file(benchmark: Benchmark, file_path: Path) -> Path | None:
    for folder in (benchmark.name, *benchmark.folders):
        for file_name in benchmark.files:
            path = file_path / "benchmarks" / folder / file_name
            if path.is_file() or (path.is_dir() and benchmark.reader in ("mmlu", "mmlu_ll")):
                return path
    return None


def _wanted_file(benchmark: Benchmark, file_path: Path) -> Path:
    return file_path / "benchmarks" / benchmark.name / benchmark.files[0]
