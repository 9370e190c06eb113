"""A race on val: the candidate is asked 100 items, then 200, … and no more once it can hardly lead.

Only with a warm server, where a further round costs no start of anything; a job answers all of val at
once. The rule is `evaluation/racing.py`. A race that ends early can only say "no move".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.scoring import score_models
from rdagent_ft.engine.selection import past_trials
from rdagent_ft.evaluation.items import EvalItem, read_items
from rdagent_ft.evaluation.port import EvalModel, EvalTask
from rdagent_ft.evaluation.racing import RaceOver, RaceState, next_stage, race_order
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.evaluation.trials import belief_after
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.values import write_atomic


class Raced(NamedTuple):
    """The candidate's rows on the items that it was asked, in item order; or why there are none."""

    rows: list[SampleRow]
    share: float
    seconds: float
    failure: Failure | None


def race_val(
    ctx: RunContext, loop: int, model: EvalModel, leader: Sequence[SampleRow], task: EvalTask
) -> Raced:
    """Ask `model` about val in rounds, each compared with the leader's rows on the same items."""
    items = {item.item_id: item for item in read_items(task.items_file, task.n_items)}
    order = race_order(list(items), str(loop))
    belief = belief_after(past_trials(ctx, loop), over_base=ctx.parent_of(loop) is None)
    state = RaceState(n_items=len(order), belief=belief)
    rows: dict[str, SampleRow] = {}
    seconds = 0.0
    while not isinstance(stage := next_stage(state), RaceOver):
        wanted = [items[item_id] for item_id in order[state.n_scored : stage.n_items]]
        round_task = _round(ctx, loop, task, wanted, state.n_scored)
        scored = score_models(
            ctx, loop, "evaluate", (model,), (round_task,), ctx.loop_dir(loop) / "eval" / "race"
        )
        seconds += scored.seconds
        if scored.failure is not None:
            return Raced([], 0.0, seconds, scored.failure)
        found = scored.samples[model.role, task.benchmark, task.split]
        rows |= {row.item_id: row for row in found}
        theirs = [row for row in leader if row.item_id in rows]
        margin = ctx.settings.equivalence_margin
        seen = compare(theirs, [rows[row.item_id] for row in theirs], margin=margin)
        state = RaceState(n_items=len(order), belief=belief, n_scored=stage.n_items, seen=seen)
    if state.n_scored < len(order):
        ctx.progress.notice(
            f"the race of loop {loop} ended after {state.n_scored} of {len(order)} val items: a move has a "
            f"chance of {stage.p_move:.1%}"
        )
    in_order = [rows[item_id] for item_id in items if item_id in rows]
    return Raced(in_order, state.n_scored / len(order), seconds, None)


def _round(ctx: RunContext, loop: int, task: EvalTask, items: Sequence[EvalItem], start: int) -> EvalTask:
    """Return the task of one round; its items are written beside those of the whole split."""
    path = ctx.run_dir / "data" / "items" / "race" / f"{loop:03d}-{start}-{start + len(items)}.jsonl"
    write_atomic(path, "".join(json.dumps(item.model_dump(mode="json")) + "\n" for item in items))
    return task.model_copy(update={"items_file": path, "n_items": len(items)})
