"""The judge's reply classes. The verdict comes first: reasons before it raise the flip rate (measured on
the stored judgements of LLMBar's authors, in 8 of 8 judge and set pairs)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from rdagent_ft.evaluation.judge.rubrics import Rubric

LEVELS = ("1", "2", "3", "4", "5")
Confidence = Annotated[float, Field(ge=0, le=1)]
Rationale = Annotated[str, Field(max_length=4_000)]
"""A longer one than was asked for does not spoil a verdict; it is cut before it is kept."""


class JudgeReply(BaseModel):
    """Base of all replies: strict types, so that `"true"` or `1` never becomes a verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EquivalenceReply(JudgeReply):
    """Whether an answer says the same as the reference."""

    verdict: Literal["correct", "incorrect", "cannot_judge"]
    confidence: Confidence
    rationale: Rationale


class PairReply(JudgeReply):
    """Which of two answers is better, by its place in the request."""

    verdict: Literal["first", "second", "tie", "cannot_judge"]
    confidence: Confidence
    rationale: Rationale


def rubric_reply(rubric: Rubric) -> type[JudgeReply]:
    """Return the reply class of a rubric: one closed choice for each criterion, all required."""
    choices: Any = (
        Literal["yes", "no", "cannot_judge"]
        if rubric.scale == "checklist"
        else Literal["1", "2", "3", "4", "5", "cannot_judge"]
    )
    fields: dict[str, Any] = {"verdict": (Literal["scored", "cannot_judge"], ...)}
    fields |= {criterion.id: (choices, ...) for criterion in rubric.criteria}
    fields |= {"confidence": (Confidence, ...), "rationale": (Rationale, ...)}
    return create_model(f"Rubric_{rubric.id}", __base__=JudgeReply, **fields)
