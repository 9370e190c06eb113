"""Everything that a score of the run rests on, as items that training rows are compared with."""

from __future__ import annotations

from rdagent_ft.data.contamination import item_of
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.rows import SplitName
from rdagent_ft.data.write import read_row_file
from rdagent_ft.engine.context import RunContext
from rdagent_ft.evaluation.benchmarks import compared_item, find_benchmark, load_items

HELD_OUT: tuple[SplitName, ...] = ("dev", "val", "test")


def held_out_items(ctx: RunContext) -> list[EvalItem]:
    """Return the items of dev, val and test, and of every reported benchmark."""
    items = [
        item_of(row, name)
        for name in HELD_OUT
        for row in read_row_file(ctx.run_dir / "data" / f"{name}.jsonl")
    ]
    for name in ctx.prepared.reported_benchmarks:
        found = find_benchmark(name, ctx.settings.file_path)
        if found is not None:
            items += [compared_item(row, name) for row in load_items(found, None, ctx.settings.seed)]
    return items
