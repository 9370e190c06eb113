"""What asking left, whichever way was taken: answers, why some are missing, and the harness's own files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.benchmark.ask_plan import AskPlan
from rdagent_ft.engine.benchmark.subjects import Subject, Subjects
from rdagent_ft.evaluation.items import Answer
from rdagent_ft.settings import Settings

LIFE_S = 30 * 86_400.0
"""What stands for no time limit."""

RESUME = "what was answered is kept: the same call with --resume goes on"

Answers = dict[tuple[str, str, str], list[Answer]]
"""(role, benchmark, split) -> answers."""
Notice = Callable[[str], None]


class HarnessFiles(NamedTuple):
    """A folder with lm-eval's own files, and the tasks in it that count (a job may leave others)."""

    folder: Path
    tasks: frozenset[str]


class Call(NamedTuple):
    """One call of the verb while it asks.

    Attributes:
        work: absolute folder of items, jobs and stored answers; only this call writes there.
        ends: `time.monotonic()` at which the time is up; None without a limit.
    """

    plan: AskPlan
    settings: Settings
    subjects: Subjects
    work: Path
    ends: float | None
    notice: Notice

    def left_s(self) -> float | None:
        """Return the seconds left, at least 0; None without a limit."""
        return None if self.ends is None else max(0.0, self.ends - time.monotonic())


class Asked(NamedTuple):
    """What was answered.

    Attributes:
        answers: only the tasks that have one.
        seconds: spent on asking.
        failures: role -> why answers of it are missing or do not count.
        timed_out: roles for which the time was up.
        files: role -> lm-eval's own result files, oldest first.
        asked_sha256: role -> benchmark -> hash of what OpenCompass sent; empty for lm-eval.
        limits: role -> benchmark -> tokens an answer could have, where the context took some away.
    """

    answers: Answers = {}
    seconds: float = 0.0
    failures: dict[str, str] = {}
    timed_out: frozenset[str] = frozenset()
    files: dict[str, tuple[HarnessFiles, ...]] = {}
    asked_sha256: dict[str, dict[str, str]] = {}
    limits: dict[str, dict[str, int]] = {}


def together(parts: Sequence[Asked]) -> Asked:
    """Return several roles' asking as one."""
    return Asked(
        answers={key: found for part in parts for key, found in part.answers.items() if found},
        seconds=sum(part.seconds for part in parts),
        failures={role: text for part in parts for role, text in part.failures.items()},
        timed_out=frozenset(role for part in parts for role in part.timed_out),
        files={role: folders for part in parts for role, folders in part.files.items()},
        asked_sha256={role: found for part in parts for role, found in part.asked_sha256.items()},
        limits={role: found for part in parts for role, found in part.limits.items()},
    )


def not_asked(subjects: Sequence[Subject], reason: str, *, timed_out: bool = False) -> Asked:
    """Return that these models gave no answer, and why."""
    roles = [subject.role for subject in subjects]
    return Asked(
        failures=dict.fromkeys(roles, reason), timed_out=frozenset(roles) if timed_out else frozenset()
    )
