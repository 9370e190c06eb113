"""What the judge's parts hand to each other: questions, opinions, and the status of a judge's numbers."""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.judge.replies import JudgeReply
from rdagent_ft.values import Frozen

JudgeStatus = Literal["ok", "skipped", "degraded", "failed_gate", "uncalibrated", "invalid"]
"""Only `ok` may decide; every other status shows the judge's numbers beside the rules' and no more."""

PromptName = Literal["judge_equivalence", "judge_rubric", "judge_pairwise"]
UnscoredReason = Literal[
    "cannot_judge", "malformed", "truncated", "refused", "outage", "bad_request", "budget", "stopped"
]
"""Why there is no verdict. `stopped`: not asked any more, after too many failures in a row."""

MAX_RATIONALE_CHARS = 300


class JudgeIdentity(Frozen):
    """Who judges and how it is asked: everything of it shapes verdicts, so it is part of every cache key.

    Attributes:
        server: base URL without user info; empty for a provider's own address.
    """

    model: str
    server: str = ""
    temperature: float | None = None
    max_output_tokens: int = 0


class Question(Frozen):
    """One request to the judge.

    Attributes:
        prompt: which of the shipped prompts.
        texts: (name of the text, foreign text); shown between marks, in this order.
        reply: class of the reply, verdict first.
        values: our own words for the prompt, e.g. a rubric's criteria. Never foreign text.
        version: version of what else shapes the verdict, e.g. `helpfulness@1`.
    """

    prompt: PromptName
    texts: tuple[tuple[str, str], ...]
    reply: type[JudgeReply]
    values: tuple[tuple[str, str], ...] = ()
    version: str = ""


class Opinion(Frozen):
    """What came back: a reply that fits its schema, or the reason why there is none.

    `cannot_judge` keeps the reply and has a reason too.
    """

    reply: JudgeReply | None = None
    unscored: UnscoredReason | None = None
    detail: str = ""
    is_cached: bool = False


class JudgeHealth(Frozen):
    """How a judge fared with the questions of one job.

    Attributes:
        n_asked: verdicts that were wanted (equal questions are asked once and count each time).
        n_unscored: of those, without a verdict.
        unscored: reason -> count.
        n_cached: verdicts that needed no request.
    """

    n_asked: int
    n_unscored: int
    unscored: dict[UnscoredReason, int] = {}
    n_cached: int = 0
