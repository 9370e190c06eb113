"""A judge as a scorer's helper: open answers of any benchmark are graded by the rubric of their item."""

from __future__ import annotations

from collections.abc import Sequence

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.judge.grading import grade_rows
from rdagent_ft.evaluation.judge.judge import Judge
from rdagent_ft.evaluation.judge.rubrics import Criterion, Rubric, read_rubric, rubric_names
from rdagent_ft.evaluation.outside import GradeCase, Grader, GradeResult
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.values import content_hash

MAX_POINT_CHARS = 600
MAX_POINTS = 20


def grader_of(judge: Judge) -> Grader:
    """Return what grades answers with `judge`; cases of one rubric are asked together."""

    def grade(cases: Sequence[GradeCase]) -> list[GradeResult]:
        found: dict[str, GradeResult] = {}
        for text in dict.fromkeys(case.rubric for case in cases):
            group = [case for case in cases if case.rubric == text]
            graded = grade_rows(
                [_row(case) for case in group],
                {case.case_id: case.question for case in group},
                rubric_of(text),
                judge,
            )
            for row in graded.rows:
                found[row.item_id] = GradeResult(
                    case_id=row.item_id, score=row.score, parts=row.parts, reason=row.unscored_reason
                )
        return [found[case.case_id] for case in cases]

    return grade


def rubric_of(text: str) -> Rubric:
    """Return a shipped rubric by its name, one in a YAML file, or the text as a checklist, one point a line.

    Raises `UserError` for points that are too short, too long or too many.
    """
    wanted = text.strip()
    if wanted in rubric_names() or wanted.endswith((".yaml", ".yml")):
        return read_rubric(wanted)
    points = [line.strip() for line in wanted.splitlines() if line.strip()]
    bad = [point for point in points if not 10 <= len(point) <= MAX_POINT_CHARS]
    if bad or not 1 <= len(points) <= MAX_POINTS:
        raise UserError(
            f"{(bad or [wanted])[0][:60]!r} is no rubric",
            hint=f"write 1 to {MAX_POINTS} points of 10 to {MAX_POINT_CHARS} characters, one a line, or name "
            f"one of {', '.join(rubric_names())}",
        )
    return Rubric(
        id=f"own_{content_hash(wanted, n_chars=8)}",
        version=1,
        purpose="a rubric of the item's own",
        scale="checklist",
        instructions="Decide for each criterion whether the answer does what it asks.",
        criteria=tuple(
            Criterion(id=f"point_{number}", question=point) for number, point in enumerate(points, start=1)
        ),
    )


def _row(case: GradeCase) -> SampleRow:
    return SampleRow(
        benchmark="graded", split="test", item_id=case.case_id, prompt_hash="", prediction=case.answer,
        gold=case.reference,
    )  # fmt: skip
