"""A judge's scores beside the rule's, in the same rows: what one model's result on a suite needs.

The rule's score stays what it was. What the judge adds is a further measure of each answer
(`SampleRow.parts`), so that means, paired differences and tables treat it like any other measure, and like
any other measure it decides nothing. An answer without a verdict lacks the measure: it is never 0.
Not here: both sides of a claim at once (`cascade`), whether a judge may be believed (`calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.judge.cascade import judge_rule_misses
from rdagent_ft.evaluation.judge.grading import grade_rows
from rdagent_ft.evaluation.judge.judge import Judge, joined_health
from rdagent_ft.evaluation.judge.rubrics import read_rubric
from rdagent_ft.evaluation.judge.values import JudgeHealth
from rdagent_ft.evaluation.rows import SampleRow, ScorerName
from rdagent_ft.values import Frozen

WITH_JUDGE = "with_judge"
"""The measure of equivalence: the rule's score, or 1 where only the judge accepts the answer. A rubric's is
`with_judge/<rubric>`, each of its criteria's `with_judge/<rubric>/<criterion>`."""

JUDGED_SCORERS: frozenset[ScorerName] = frozenset({"numeric_match", "math_match", "token_f1"})
"""Rules that may miss a right answer in other words; labels, JSON, code and instructions are exact."""


class JudgeWish(Frozen):
    """What a judge is wanted for on one benchmark.

    Attributes:
        equivalence: whether answers that the rule rejects say the same as the reference.
        rubric: a rubric by which every answer is graded beside its score; a name or a YAML file.
    """

    equivalence: bool = False
    rubric: str | None = None


class JudgedColumn(Frozen):
    """Rows of one model with the judge's measures, and how the judge fared.

    `n_rescued` rows are those that only the judge accepts.
    """

    rows: tuple[SampleRow, ...]
    health: JudgeHealth
    n_rescued: int = 0


def wish_of(scorer: ScorerName, *, judge: str | None = None, rubric: str | None = None) -> JudgeWish:
    """Return what a judge does on a benchmark with this scorer.

    Args:
        judge: `equivalence`, `none`, or None for what the scorer allows.
        rubric: see `JudgeWish`.

    Raises `UserError` when equivalence is wanted of a scorer that is exact.
    """
    if judge == "equivalence" and scorer not in JUDGED_SCORERS:
        raise UserError(
            f"{scorer} is exact: a judge of equivalence has nothing to add",
            hint=f"leave `judge` out, or use a scorer of {', '.join(sorted(JUDGED_SCORERS))}",
        )
    return JudgeWish(equivalence=judge != "none" and scorer in JUDGED_SCORERS, rubric=rubric)


def judge_column(
    rows: Sequence[SampleRow], questions: Mapping[str, str], wish: JudgeWish, judge: Judge, *, seed: int
) -> JudgedColumn:
    """Return the rows with what the judge says of them; their scores are as they were.

    Args:
        rows: one model's answers to one benchmark, scored by its rule. What another judge said of them
            before is dropped.
        questions: item id -> the question as a person reads it.
        seed: chooses the accepted answers that are audited.

    Never raises for what the judge does. Raises `JobError` for a question that is missing, `UserError`
    for a rubric that is none.
    """
    column = JudgedColumn(rows=without_judge(rows), health=JudgeHealth(n_asked=0, n_unscored=0))
    if wish.equivalence:
        column = _with_equivalence(column, questions, judge, seed)
    if wish.rubric is not None:
        column = _with_rubric(column, questions, wish.rubric, judge)
    return column


def without_judge(rows: Sequence[SampleRow]) -> tuple[SampleRow, ...]:
    """Return the rows without any judge's measures."""
    return tuple(
        row.model_copy(update={"parts": {name: v for name, v in row.parts.items() if not is_judged(name)}})
        if any(map(is_judged, row.parts))
        else row
        for row in rows
    )


def is_judged(measure: str) -> bool:
    """Return whether a measure is a judge's."""
    return measure == WITH_JUDGE or measure.startswith(f"{WITH_JUDGE}/")


def _with_equivalence(
    before: JudgedColumn, questions: Mapping[str, str], judge: Judge, seed: int
) -> JudgedColumn:
    found = judge_rule_misses(before.rows, questions, judge, seed=seed)
    rows = tuple(
        _with_parts(row, {} if judged.score is None else {WITH_JUDGE: (judged.score,)})
        for row, judged in zip(before.rows, found.judged_rows, strict=True)
    )
    health = joined_health([before.health, found.health])
    return JudgedColumn(rows=rows, health=health, n_rescued=found.n_rescued)


def _with_rubric(before: JudgedColumn, questions: Mapping[str, str], name: str, judge: Judge) -> JudgedColumn:
    rubric = read_rubric(name)
    found = grade_rows(before.rows, questions, rubric, judge)
    rows: list[SampleRow] = []
    for row, graded in zip(before.rows, found.rows, strict=True):
        parts: dict[str, tuple[float, ...]] = {}
        if graded.score is not None:
            place = f"{WITH_JUDGE}/{rubric.id}"
            parts = {place: (graded.score,)}
            parts |= {f"{place}/{criterion.id}": graded.parts[criterion.id] for criterion in rubric.criteria}
        rows.append(_with_parts(row, parts))
    health = joined_health([before.health, found.health])
    return before.model_copy(update={"rows": tuple(rows), "health": health})


def _with_parts(row: SampleRow, parts: dict[str, tuple[float, ...]]) -> SampleRow:
    return row.model_copy(update={"parts": {**row.parts, **parts}}) if parts else row
