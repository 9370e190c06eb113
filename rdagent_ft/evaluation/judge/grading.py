"""Rubric scores: an open-ended answer against each criterion, and their weighted mean from 0 to 1.

Each criterion is also a measure of its own (`SampleRow.parts`), e.g. the rate of Socratic steps. An
answer whose judge left one criterion open is unscored as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rdagent_ft.evaluation.judge.judge import Judge, health_of, joined_health
from rdagent_ft.evaluation.judge.replies import JudgeReply, rubric_reply
from rdagent_ft.evaluation.judge.rubrics import Rubric
from rdagent_ft.evaluation.judge.sides import interleaved, question_of, without_half_pairs
from rdagent_ft.evaluation.judge.texts import visible_text
from rdagent_ft.evaluation.judge.values import JudgeHealth, Opinion, Question
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.values import Frozen

N_LEVELS = 5


class GradedRows(Frozen):
    """One side, graded.

    Attributes:
        rubric: key of the rubric.
        rows: score 0..1 and `parts` (criterion -> one value 0..1); unscored with the reason where the judge
            gave none. An answer without visible text meets no criterion and scores 0 unasked.
        criteria: criterion -> mean over scored rows; empty when there is none.
    """

    rubric: str
    rows: tuple[SampleRow, ...]
    criteria: dict[str, float]
    health: JudgeHealth


class GradedPair(Frozen):
    """Both sides, with the same rows scored on both."""

    base: GradedRows
    tuned: GradedRows
    n_half_pairs: int
    health: JudgeHealth


def grade_rows(
    rows: Sequence[SampleRow], questions: Mapping[str, str], rubric: Rubric, judge: Judge
) -> GradedRows:
    """Grade one side. `questions`: item id -> conversation as a person reads it. One request a row."""
    asked = _asked(rows)
    schema = rubric_reply(rubric)
    opinions = judge.ask([_question(row, questions, rubric, schema) for row in asked])
    return _graded(rows, asked, opinions, rubric)


def grade_both_sides(
    base: Sequence[SampleRow],
    tuned: Sequence[SampleRow],
    questions: Mapping[str, str],
    rubric: Rubric,
    judge: Judge,
) -> GradedPair:
    """Grade both sides in turn; `statistics.compare` of the two row lists is then fair."""
    sides, schema = (base, tuned), rubric_reply(rubric)
    asked = [_asked(side) for side in sides]
    marked = interleaved(*([(n, row) for row in rows] for n, rows in enumerate(asked)))
    opinions = judge.ask([_question(row, questions, rubric, schema) for _, row in marked])
    by_side = [[o for (n, _), o in zip(marked, opinions, strict=True) if n == side] for side in (0, 1)]
    graded = [_graded(sides[n], asked[n], by_side[n], rubric) for n in (0, 1)]
    base_rows, tuned_rows, n_half = without_half_pairs(graded[0].rows, graded[1].rows)
    return GradedPair(
        base=_of_rows(base_rows, rubric, graded[0].health),
        tuned=_of_rows(tuned_rows, rubric, graded[1].health),
        n_half_pairs=n_half,
        health=joined_health([graded[0].health, graded[1].health]),
    )


def rubric_score(rubric: Rubric, reply: JudgeReply) -> tuple[float, dict[str, tuple[float, ...]]]:
    """Return (score, criterion -> its value), all 0..1. A missed essential criterion makes the score 0.

    Checklist: yes 1, no 0. Levels: (level - 1) / 4. Score: mean weighted by the criteria's weights.
    """
    given: dict[str, object] = reply.model_dump()
    values = {criterion.id: _value(str(given[criterion.id])) for criterion in rubric.criteria}
    total = math.fsum(criterion.weight for criterion in rubric.criteria)
    score = math.fsum(criterion.weight * values[criterion.id] for criterion in rubric.criteria) / total
    if any(criterion.essential and values[criterion.id] == 0.0 for criterion in rubric.criteria):
        score = 0.0
    return score, {name: (value,) for name, value in values.items()}


def _value(choice: str) -> float:
    return float(choice == "yes") if choice in ("yes", "no") else (int(choice) - 1) / (N_LEVELS - 1)


def _asked(rows: Sequence[SampleRow]) -> list[SampleRow]:
    return [row for row in rows if _is_gradable(row) and visible_text(row.prediction)]


def _is_gradable(row: SampleRow) -> bool:
    """A row that something else left unscored has no answer that could be judged."""
    return row.unscored_reason is None


def _question(
    row: SampleRow, questions: Mapping[str, str], rubric: Rubric, schema: type[JudgeReply]
) -> Question:
    reference = visible_text(row.gold)
    return Question(
        prompt="judge_rubric",
        texts=(
            ("conversation", visible_text(question_of(questions, row.item_id))),
            *((("reference", reference),) if reference else ()),
            ("answer", visible_text(row.prediction)),
        ),
        reply=schema,
        values=(("instructions", rubric.instructions), ("criteria", rubric.criteria_text())),
        version=rubric.key,
    )


def _graded(
    rows: Sequence[SampleRow], asked: Sequence[SampleRow], opinions: Sequence[Opinion], rubric: Rubric
) -> GradedRows:
    by_row = {(row.item_id, row.repeat): opinion for row, opinion in zip(asked, opinions, strict=True)}
    graded = tuple(_with_grade(row, by_row.get((row.item_id, row.repeat)), rubric) for row in rows)
    return _of_rows(graded, rubric, health_of(opinions))


def _with_grade(row: SampleRow, opinion: Opinion | None, rubric: Rubric) -> SampleRow:
    if not _is_gradable(row):
        return row
    if opinion is None:
        nothing = {criterion.id: (0.0,) for criterion in rubric.criteria}
        return row.model_copy(update={"score": 0.0, "parts": nothing})
    if opinion.unscored is not None or opinion.reply is None:
        reason = f"judge: {opinion.unscored}"
        return row.model_copy(update={"score": None, "unscored_reason": reason, "parts": {}})
    score, parts = rubric_score(rubric, opinion.reply)
    return row.model_copy(update={"score": score, "parts": parts})


def _of_rows(rows: tuple[SampleRow, ...], rubric: Rubric, health: JudgeHealth) -> GradedRows:
    scored = [row for row in rows if row.score is not None]
    names = [criterion.id for criterion in rubric.criteria] if scored else []
    means = {name: math.fsum(row.parts[name][0] for row in scored) / len(scored) for name in names}
    return GradedRows(rubric=rubric.key, rows=rows, criteria=means, health=health)
