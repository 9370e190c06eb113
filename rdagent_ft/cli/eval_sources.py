"""What `--against` names: files as they are, or benchmarks, whose items are read as for scoring.

A benchmark's file may be a zip, a folder or JSON for a scorer; `evaluation/benchmarks` knows its form and
gives question and plain answer. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rdagent_ft.data.data_files import DATA_SUFFIXES, local_path, path_exists
from rdagent_ft.data.decontaminate import read_file
from rdagent_ft.data.eval_files import eval_items
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.errors import Problem, UserError
from rdagent_ft.evaluation.benchmark_registry import canonical_name
from rdagent_ft.evaluation.benchmarks import (
    HELDOUT,
    FoundBenchmark,
    check_benchmarks,
    compared_item,
    find_benchmark,
    load_items,
)
from rdagent_ft.settings_sources import load_settings
from rdagent_ft.values import sha256_file

KNOWN_FILES = f"name a file that ends in {', '.join(DATA_SUFFIXES)}"


class EvalSource(NamedTuple):
    """One source of items: its path, and the benchmark where a name stood for it."""

    path: Path
    found: FoundBenchmark | None

    def described(self, n_items: int) -> dict[str, Any]:
        """Return the source as the JSON document names it."""
        digest = self.found.sha256 if self.found else sha256_file(self.path)
        benchmark = self.found.benchmark.name if self.found else None
        return {"file": str(self.path), "benchmark": benchmark, "sha256": digest, "n_items": n_items}


def eval_sources(names: list[str], env_file: Path | None) -> list[EvalSource]:
    """Return what the names mean: a path first, then the benchmark of that name; doubles once.

    Settings are read only where a name is no path. Raises `UserError` that lists every name that means
    nothing, with near names and where a benchmark's file is wanted.
    """
    paths = {name: local_path(name) for name in names}
    others = [name for name, path in paths.items() if not path_exists(path)]
    file_path = load_settings(env_file=env_file).settings.file_path if others else Path()
    sources: list[EvalSource] = []
    problems: list[Problem] = []
    for name, path in paths.items():
        if name not in others:
            problems += _file_problems(name, path)
            source = EvalSource(path, None)
        elif found := find_benchmark(name, file_path):
            source = EvalSource(found.path, found)
        else:
            problems += _why_not(name, file_path)
            continue
        if all(source.path != other.path for other in sources):
            sources.append(source)
    if problems:
        said = ", ".join(repr(problem.value) for problem in problems)
        plural = "is not a file" if len(problems) == 1 else "are not files"
        raise UserError(f"{said} {plural} or benchmark that can be read", problems=tuple(problems))
    return sources


def items_of(source: EvalSource, columns: dict[str, str]) -> list[EvalItem]:
    """Return the items of a source; `columns` are for files, a benchmark's are known."""
    if source.found is None:
        return eval_items(read_file(source.path), source.path.name, columns)
    return [compared_item(row, source.found.benchmark.name) for row in load_items(source.found)]


def check_data_file(path: Path) -> None:
    """Raise `UserError` for what is no file, or has an ending that is not read."""
    if not path_exists(path) or not path.is_file():
        raise UserError(f"{str(path)!r} is not a file", hint=KNOWN_FILES)
    if not path.name.lower().endswith(DATA_SUFFIXES):
        raise UserError(f"{str(path)!r} is not a data file", hint=KNOWN_FILES)


def _file_problems(name: str, path: Path) -> list[Problem]:
    try:
        check_data_file(path)
    except UserError as error:
        return [_problem(name, error.message)]
    return []


def _why_not(name: str, file_path: Path) -> list[Problem]:
    """Return what is wrong with a name that is no path."""
    if canonical_name(name) == HELDOUT:
        return [_problem(name, "the held-out items of a run are in no benchmark's file")]
    if name.lower().endswith(DATA_SUFFIXES):
        return [_problem(name, "there is no such file")]
    try:
        check_benchmarks((name,), file_path)
    except UserError as error:
        return list(error.problems)
    return [_problem(name, "it cannot be read")]


def _problem(name: str, rule: str) -> Problem:
    return Problem(key="against", value=name, rule=rule, problem_class="benchmark.unknown", fix=KNOWN_FILES)
