"""One task put to one target: which questions it has, which are answered, and noting a new answer.

Questions are numbered, because lm-eval hands its requests back in another order and two items may have
the same prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from rdagent_ft.evaluation.endpoint.partial import PartialFile, PartialRow, row_fingerprint
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget
from rdagent_ft.evaluation.endpoint.sender import Refused
from rdagent_ft.evaluation.items import Answer, EvalItem, prompt_hash
from rdagent_ft.evaluation.port import EvalTask


@dataclass(frozen=True)
class Asked:
    """One task put to one target.

    Attributes:
        key: the API key, if the target names one.
        tokenizer: the model's, for choosing and for the generation limit.
        max_model_len: tokens that the server says fit, or None.
        on_answer: called with the number of answers that became known.
        outcomes: number of the question -> what came of it.
    """

    request: EndpointRequest
    target: EndpointTarget
    task: EvalTask
    items: list[EvalItem]
    partial: PartialFile
    key: str | None
    tokenizer: Tokenizer | None
    max_model_len: int | None
    on_answer: Callable[[int], None]
    outcomes: dict[int, PartialRow] = field(default_factory=dict[int, PartialRow])

    def question(self, number: int) -> tuple[EvalItem, int]:
        """Return item and repeat of a question; questions are numbered item by item."""
        return self.items[number // self.task.repeats], number % self.task.repeats

    def seed(self, item_id: str, repeat: int) -> int:
        """Return the seed of one answer: the same in every run, another one for every repeat."""
        if self.task.temperature <= 0:
            return self.request.seed
        digest = hashlib.sha256(f"{self.request.seed}:{item_id}:{repeat}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def known(self, number: int) -> bool:
        """Whether the question has an outcome, if need be from an earlier job's file."""
        if number not in self.outcomes:
            item, repeat = self.question(number)
            key = (
                self.target.role,
                self.task.benchmark,
                self.task.split,
                item.item_id,
                repeat,
                prompt_hash(item.prompt),
            )
            stored = self.partial.rows.get(key)
            if stored is not None and len(stored.logprobs) == self.n_choices(item):
                self.outcomes[number] = stored
                self.on_answer(1)
        return number in self.outcomes

    def n_choices(self, item: EvalItem) -> int:
        """Return how many log-probabilities an answer to the item holds."""
        return len(item.choices) if self.task.method == "choose" else 0

    def note(self, number: int, facts: dict[str, Any], logprobs: tuple[tuple[float, bool], ...] = ()) -> None:
        """Store an outcome, on disk first."""
        item, repeat = self.question(number)
        prediction = facts.pop("prediction", "").encode("utf-8", "replace").decode("utf-8")
        row = PartialRow(
            fingerprint=row_fingerprint(self.request, self.target, self.task),
            role=self.target.role,
            benchmark=self.task.benchmark,
            split=self.task.split,
            answer=Answer(
                item_id=item.item_id,
                repeat=repeat,
                prompt_hash=prompt_hash(item.prompt),
                prediction=prediction,
                **facts,
            ),
            logprobs=logprobs,
        )
        self.partial.add(row)
        self.outcomes[number] = row
        self.on_answer(1)

    def refused(self, number: int, refused: Refused) -> None:
        """Store that a question has no answer."""
        self.note(number, {"unanswered": refused.reason, "prompt_truncated": refused.too_long})
