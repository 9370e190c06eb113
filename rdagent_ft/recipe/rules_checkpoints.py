"""Cross-field rules of `eval_share` and `keep`: which rows a stage holds out, and which weights it leaves.

Not covered: LLaMA-Factory, which has no counterpart (`llamafactory/fits.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rule_facts import Rule, StageCheck
from rdagent_ft.recipe.stages import DistillStage, GrpoStage, PreferenceStage, TrainedStage

USUAL_SHARE = 0.05
MIN_HELD_OUT = 8
"""With fewer rows a measurement hardly tells two checkpoints apart."""


def held_out_rows(stage: TrainedStage, n_rows: int) -> int:
    """Return about how many of a stage's rows are held out; rows of one prompt may move the number."""
    return 0 if stage.eval_share == 0 or n_rows < 2 else max(1, round(stage.eval_share * n_rows))


def stage_rows(check: StageCheck) -> int | None:
    """Return the rows that a stage reads; None where nobody knows before sampling."""
    stage, facts = check.stage, check.facts
    if isinstance(stage, PreferenceStage):
        return facts.n_preferences if stage.pairs == "given" else None
    rows, most = facts.n_train_rows, check.recipe.data.max_items
    return rows if rows is None or most is None else min(rows, most)


def _best_needs_rows(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if stage.keep == "best" and stage.eval_share == 0:
        rule = "needs rows that are held out to compare checkpoints on, and `eval_share` is 0"
        fix = f"write `eval_share: {USUAL_SHARE}`, or `keep: last`"
        yield check.problem("keep", "best", rule, fix, "config.eval_save")


def _own_samples(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if isinstance(stage, (GrpoStage, DistillStage)) and stage.eval_share > 0:
        rule = f"is not measured for {stage.kind}, whose loss on new samples does not rank checkpoints"
        fix = "write 0: candidates are compared on val" + ("; drop `keep`" if stage.keep == "best" else "")
        yield check.problem("eval_share", stage.eval_share, rule, fix, "config.eval_save")


def _enough_rows(check: StageCheck) -> Iterator[Problem]:
    stage, rows = check.stage, stage_rows(check)
    if rows is None or stage.eval_share == 0 or isinstance(stage, (GrpoStage, DistillStage)):
        return
    n_held_out = held_out_rows(stage, rows)
    if n_held_out < MIN_HELD_OUT:
        rule = f"holds out {n_held_out} of {rows} rows: below {MIN_HELD_OUT} checkpoints look alike"
        share = MIN_HELD_OUT / rows if rows else 1.0
        fix = f"write {share:.2g} or more, or 0" if share <= 0.3 else "write 0 and `keep: last`"
        yield check.problem("eval_share", stage.eval_share, rule, fix, "config.eval_save")


CHECKPOINT_RULES: tuple[Rule, ...] = (_best_needs_rows, _own_samples, _enough_rows)
