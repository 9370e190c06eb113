"""What scoring may need from outside of this package: running code, and asking a judge.

Callables instead of imports, so that scoring knows neither sandboxes nor endpoints, and a caller who
has none is told before anything is generated. Covers no code execution itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.values import Frozen


class CodeCase(Frozen):
    """One complete Python program; exit status 0 means passed. Programs are hostile by assumption."""

    case_id: str
    program: str


class CodeResult(Frozen):
    """What became of one case. `not_run` is the sandbox's failure and scores nobody."""

    case_id: str
    outcome: Literal["passed", "failed", "timeout", "memory", "not_run"]
    detail: str = ""


CodeRunner = Callable[[Sequence[CodeCase]], list[CodeResult]]
"""Runs every case in isolation and returns one result each, in the same order."""


class GradeCase(Frozen):
    """One open answer. `rubric`: a shipped rubric's name, a YAML file, or a criterion in words."""

    case_id: str
    rubric: str
    reference: str
    question: str
    answer: str


class GradeResult(Frozen):
    """A judge's grade: 0..1 with the value of each criterion, or the reason why there is none."""

    case_id: str
    score: float | None
    parts: dict[str, tuple[float, ...]] = {}
    reason: str | None = None


Grader = Callable[[Sequence[GradeCase]], list[GradeResult]]
"""Grades every case and returns one result each, in the same order."""


class Outside(NamedTuple):
    """What the caller lends to scoring; None for what it has not.

    `nltk_data`: the folder with NLTK's `tokenizers/punkt_tab` (`ifeval_answers.find_nltk_data`).
    """

    run_code: CodeRunner | None = None
    nltk_data: Path | None = None
    grade: Grader | None = None
