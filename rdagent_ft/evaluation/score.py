"""From answers to SampleRows: the one place that decides which scorer looks at what.

Rules run here. Scorers that need something from outside (a sandbox for code, a judge) get it through
`Outside`, so that this package starts neither containers nor requests by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from rdagent_ft.evaluation.items import Answer, EvalItem, read_items
from rdagent_ft.evaluation.port import EvalRequest, EvalTask
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.scorers import Scored, score_answer

TRUNCATED_PROMPT = "the prompt does not fit the model's context beside the generation limit"


Samples = dict[tuple[str, str, str], list[SampleRow]]
"""(role, benchmark, split) -> rows."""


def score_request(request: EvalRequest, answers: dict[tuple[str, str, str], list[Answer]]) -> Samples:
    """Score everything that a harness left for one request."""
    samples: Samples = {}
    for task in request.tasks:
        items = read_items(task.items_file, task.n_items)
        for model in request.models:
            key = model.role, task.benchmark, task.split
            samples[key] = score_answers(task, items, answers[key])
    return samples


def score_answers(task: EvalTask, items: Sequence[EvalItem], answers: Sequence[Answer]) -> list[SampleRow]:
    """Return one row an answer, in item order and then by repeat.

    An answer that is none (a failed request, a prompt that was cut) is unscored with the reason.
    """
    by_item: dict[str, list[Answer]] = {}
    for answer in answers:
        by_item.setdefault(answer.item_id, []).append(answer)
    return [
        _row(task, item, answer)
        for item in items
        for answer in sorted(by_item.get(item.item_id, []), key=lambda found: found.repeat)
    ]


def _row(task: EvalTask, item: EvalItem, answer: Answer) -> SampleRow:
    reason = TRUNCATED_PROMPT if answer.prompt_truncated else answer.unanswered
    if reason is not None:
        scored = Scored(score=None, unscored_reason=reason)
    else:
        scored = score_answer(task.scorer, answer.prediction, item.gold)
    return SampleRow(
        benchmark=task.benchmark,
        split=task.split,
        item_id=item.item_id,
        cluster=item.cluster,
        repeat=answer.repeat,
        prompt_hash=answer.prompt_hash,
        prediction=answer.prediction,
        extracted=scored.extracted,
        gold=item.gold,
        score=scored.score,
        unscored_reason=scored.unscored_reason,
        finish_reason=answer.finish_reason,
        n_tokens=answer.n_tokens,
        latency_s=answer.latency_s,
    )
