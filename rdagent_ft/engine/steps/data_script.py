"""Part of step 2: run the recipe's data script in a container and take its rows in place of the split's.

The script sees the train split and nothing else: dev, val and test are not in its container, and rows that
repeat one of their items, or one of a reported benchmark, are dropped before anything is counted or
trained. What it leaves is read as hostile input. The mix and the audit (V3) come after this, in `code`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.data.contamination import held_out_copies
from rdagent_ft.data.rows import Row
from rdagent_ft.data.script_rows import max_script_bytes, max_script_rows, row_count_problem, script_rows
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.steps.held_out import held_out_items
from rdagent_ft.engine.steps.rejection import rejected
from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_numbered_json_lines
from rdagent_ft.recipe.data_script import SCRIPT_NAME
from rdagent_ft.reporting.records import ScriptedData
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.training.data_script import (
    DATA_PLACE,
    INPUT_NAME,
    OUT_PLACE,
    OUTPUT_NAME,
    data_script_argv,
    script_failure,
)
from rdagent_ft.values import sha256_file, write_atomic

_README = """\
# /data

`train.jsonl`: the train split, one JSON object a line.

- `messages`: list of `{"role", "content"}`; the last one is the assistant's, the answer that is trained.
- `source`: where the row came from inside the dataset, or null.
- `item_id`: hash of the messages.
- `meta`: other columns of the dataset.

Write `/out/data.jsonl`: `messages`, or `prompt` and `completion`; `source` may be given.
"""


class Scripted(NamedTuple):
    """The rows that replace the train split, and the record of how they came about."""

    rows: list[Row]
    record: ScriptedData


def script_data(ctx: RunContext, loop: int, script: str, train: list[Row]) -> Scripted | Failure:
    """Run `script` over the train split and return its rows, or why there are none to train on.

    Raises `StopRun` when the run has to stop meanwhile: the step is then unfinished.
    """
    source = ctx.loop_dir(loop) / "files" / SCRIPT_NAME
    write_atomic(source, script)
    split = ctx.run_dir / "data" / INPUT_NAME
    outcome = _run(ctx, loop, source, split)
    failure = script_failure(outcome.result, outcome.out_dir, ctx.settings.debug_timeout)
    if failure is not None:
        return failure
    rows = _read(outcome.out_dir, n_train=len(train), train_bytes=split.stat().st_size)
    if isinstance(rows, Failure):
        return rows
    copies = held_out_copies(rows, held_out_items(ctx), train)
    kept = [row for row in rows if row.item_id not in copies]
    problem = row_count_problem(len(kept), len(rows) - len(kept))
    if problem is not None:
        return rejected((problem,))
    record = ScriptedData(
        sha256=sha256_file(source),
        n_in=len(train),
        n_out=len(rows),
        n_copies=len(rows) - len(kept),
        n_repeats=len(kept) - len({row.item_id for row in kept}),
        seconds=outcome.result.ended_unix - outcome.result.started_unix,
    )
    return Scripted(kept, record)


def _run(ctx: RunContext, loop: int, source: Path, split: Path) -> JobOutcome:
    """Run the job to its end; the copy of the split that it reads is there only meanwhile."""
    work = ctx.loop_dir(loop) / "data-script"

    def prepare(_out_dir: Path, _previous: Path | None) -> tuple[str, ...]:
        _show_only(split, work / "input")
        return data_script_argv(source)

    request = JobRequest(
        kind="data",
        out_root=work,
        inputs={"data": work / "input", "script": source},
        aliases={DATA_PLACE: "data", OUT_PLACE: "out"},
        limit_s=ctx.settings.debug_timeout,
        metrics_name=None,  # a script must not write what the progress line shows
    )
    outcome = run_job(ctx, loop, "code", request, prepare)
    shutil.rmtree(work / "input", ignore_errors=True)
    return outcome


def _show_only(split: Path, folder: Path) -> None:
    """Make a folder with the train split alone: the run's own data folder holds the other splits too."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(split, folder / INPUT_NAME)
    write_atomic(folder / "README.md", _README)


def _read(out_dir: Path, *, n_train: int, train_bytes: int) -> list[Row] | Failure:
    """Return the script's rows in its order, or everything that is wrong with its output."""
    try:
        lines = read_numbered_json_lines(
            out_dir, OUTPUT_NAME, max_script_bytes(train_bytes), max_script_rows(n_train)
        )
    except JobError as error:
        fix = f"write one JSON object a line, at most {max_script_rows(n_train):,} rows"
        return Failure(
            failure_class="data.script_output", blame="candidate", message=error.message[:500], fix=fix
        )
    rows, problems = script_rows(lines, OUTPUT_NAME)
    return rejected(problems) if problems else rows
