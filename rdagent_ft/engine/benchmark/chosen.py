"""Benchmarks that a user names one by one, in the form of a suite: all items of each local file."""

from __future__ import annotations

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.benchmarks import check_benchmarks, find_benchmark, load_items
from rdagent_ft.evaluation.guards import GUARD_MARGINS
from rdagent_ft.evaluation.own_benchmark import is_own
from rdagent_ft.evaluation.suites import Suite, SuiteBenchmark, ids_sha256
from rdagent_ft.settings import Settings


def check_chosen(names: tuple[str, ...], settings: Settings) -> tuple[str, ...]:
    """Return the registry names. Raises `UserError` that lists every one that cannot be had."""
    own = [name for name in names if is_own(name)]
    if own:
        raise UserError(
            f"{', '.join(own)} is a file of your own, which only a run scores here",
            hint="see FT_BENCHMARK_DATASETS, or name benchmarks that `docs/benchmarks.md` lists",
        )
    return check_benchmarks(names, settings.file_path)[0]


def chosen_suite(names: tuple[str, ...], settings: Settings) -> Suite:
    """Return all items of these benchmarks, the first one as target, answered once and greedily.

    Raises `UserError` as `check_chosen` does, `DataError` for a file that cannot be read.
    """
    benchmarks: dict[str, SuiteBenchmark] = {}
    for name in check_chosen(names, settings):
        found = find_benchmark(name, settings.file_path)
        assert found is not None  # just checked
        rows = load_items(found)
        benchmarks[name] = SuiteBenchmark(
            role="guard" if benchmarks else "target",
            rule="all",
            n_items=len(rows),
            n_available=len(rows),
            seed=0,
            data_sha256=found.sha256,
            ids_sha256=ids_sha256([row.item_id for row in rows]),
        )
    if not benchmarks:
        raise UserError("--benchmarks names none", hint="e.g. --benchmarks gsm8k,aime25")
    return Suite(
        schema_version=1,
        name="full",
        version="1",
        title="chosen",
        purpose="benchmarks that were named one by one",
        guard_margin=GUARD_MARGINS["core"],
        benchmarks=benchmarks,
    )
