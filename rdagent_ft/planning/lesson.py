"""A short lesson in words from the facts that code measured. It decides nothing.

Not here: the facts themselves (`engine/steps/feedback.py`) and the verdict (selection by statistics).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rdagent_ft.llm.port import LlmClient
from rdagent_ft.llm.prompts import delimited, render_prompt
from rdagent_ft.planning.port import LoopStatus
from rdagent_ft.values import Frozen

MAX_LESSON_CHARS = 300


class LessonReply(Frozen):
    """What the LLM returns; longer text is cut, it is not worth another call."""

    lesson: Annotated[str, Field(min_length=1)]


def write_lesson(
    client: LlmClient,
    facts: tuple[str, ...],
    hypothesis: str,
    prediction: str,
    status: LoopStatus,
    loop: int,
) -> str:
    """Return one lesson of at most 300 characters on one line.

    Raises `LlmError` or `BudgetError`; the loop's verdict does not depend on it.
    """
    salt = f"lesson:{loop}"
    messages = render_prompt(
        "lesson",
        status=status,
        hypothesis=delimited("hypothesis", hypothesis, salt=salt, max_chars=1_000),
        prediction=delimited("prediction", prediction, salt=salt, max_chars=1_000),
        facts=delimited("facts", "\n".join(f"- {fact}" for fact in facts), salt=salt, max_chars=8_000),
    )
    reply, _ = client.complete("feedback", messages, LessonReply, salt=salt)
    lesson = " ".join(reply.lesson.split())
    return lesson if len(lesson) <= MAX_LESSON_CHARS else lesson[: MAX_LESSON_CHARS - 1].rstrip() + "…"
