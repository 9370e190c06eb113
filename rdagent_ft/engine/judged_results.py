"""A judge over whole results outside of a run: every model's rows get the judge's measures beside the score.

`rdagent-ft benchmark` scores models one by one and may take the base's result from an earlier call. So each
model's rows are judged for themselves; a comparison pairs only answers with a verdict on both sides. What
the judge is worth stands in a `JudgeReport`; it decides nothing by these measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

from rdagent_ft.engine.judging import Judging
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.judge.judge import joined_health
from rdagent_ft.evaluation.judge.side_by_side import JudgeWish, judge_column
from rdagent_ft.evaluation.judge.status import JudgeReport
from rdagent_ft.evaluation.judge.values import JudgeHealth, UnscoredReason
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.score import question_text

RoleRows = dict[str, dict[str, list[SampleRow]]]
"""role -> benchmark -> scored answers."""
_REASON = "judge: "
_REASONS: tuple[UnscoredReason, ...] = get_args(UnscoredReason)


class JudgedRoles(NamedTuple):
    """Rows with the judge's measures, and role -> what the judge's numbers are worth there.

    A role for which a judge had nothing to do has no report.
    """

    rows: RoleRows
    reports: dict[str, JudgeReport]


def judge_roles(
    judging: Judging,
    tasks: Sequence[EvalTask],
    wishes: Mapping[str, JudgeWish],
    rows: RoleRows,
    *,
    tuned_names: Sequence[str],
    seed: int,
) -> JudgedRoles:
    """Return all roles' rows judged, benchmark by benchmark, so that what ends early ends for all of them.

    Args:
        wishes: benchmark -> what a judge is wanted for; benchmarks scored by rubric need none.
        tuned_names: the tuned model's name and architecture, for cautions.

    Never raises for what the judge does. Raises `UserError` for a rubric that is none.
    """
    judging.calibration()  # first: a judge that an outage ends below could not be measured any more
    judged: RoleRows = {role: dict(found) for role, found in rows.items()}
    healths: dict[str, list[JudgeHealth]] = {role: [] for role in rows}
    rubrics: dict[str, None] = {}
    for task in tasks:
        wish = wishes.get(task.benchmark, JudgeWish())
        if task.scorer != "rubric" and not (wish.equivalence or wish.rubric):
            continue
        rubrics |= dict.fromkeys([wish.rubric] if wish.rubric else [])
        items = read_items(task.items_file, task.n_items)
        questions = {item.item_id: question_text(item) for item in items}
        for role, found in rows.items():
            if task.benchmark not in found:
                continue
            column = judge_column(found[task.benchmark], questions, wish, judging.judge, seed=seed)
            judged[role][task.benchmark] = list(column.rows)
            healths[role].append(column.health)
            if task.scorer == "rubric":
                healths[role].append(_grader_health(column.rows))
    named = ", ".join(rubrics) or None
    reports = {
        role: judging.report(joined_health(parts), tuned_names).model_copy(update={"rubric": named})
        for role, parts in healths.items()
        if parts
    }
    return JudgedRoles(judged, reports)


def report_warnings(report: JudgeReport) -> tuple[str, ...]:
    """Return what a reader must know of a judge's numbers, one line each."""
    lines: list[str] = []
    if not report.decides:
        reasons = "; ".join(report.reasons)
        lines.append(f"the judge {report.model} is {report.status}, its numbers decide nothing: {reasons}")
    return (*lines, *(caution.message for caution in report.cautions))


def _grader_health(rows: Sequence[SampleRow]) -> JudgeHealth:
    """Return how the judge fared as the scorer, from the reasons that rows without a grade carry."""
    found: dict[UnscoredReason, int] = {}
    for row in rows:
        for reason in _REASONS:
            if row.score is None and row.unscored_reason == f"{_REASON}{reason}":
                found[reason] = found.get(reason, 0) + 1
    n_asked = sum(row.score is not None and bool(row.prediction.strip()) for row in rows)
    return JudgeHealth(n_asked=n_asked + sum(found.values()), n_unscored=sum(found.values()), unscored=found)
