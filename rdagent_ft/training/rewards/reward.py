"""What a reward is: a name, a weight, and a call as TRL makes it. How each kind scores stands beside it.

Every kind of our own is total: whatever a model wrote gets a score, because one odd completion must not
end a training. None means that the reward does not apply to a row. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from rdagent_ft.errors import JobError

Score = float | None
"""1 is best and 0 is worst for every kind but `python`; None where the reward does not apply."""

MAX_CHARS = 200_000
"""A longer completion is a runaway generation: it scores as an empty one."""

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


class RewardError(JobError):
    """A reward cannot do its work, whatever the completion: the message names it."""


class Batch(NamedTuple):
    """What TRL hands to a reward: completions with their prompts and the columns of their rows.

    A completion is a text, or the turns that the model added. `columns` has one list a column.
    """

    prompts: Sequence[Any]
    completions: Sequence[Any]
    columns: Mapping[str, Any]

    def texts(self) -> list[str]:
        """Return what the model wrote, one text a completion."""
        return [text_of(completion) for completion in self.completions]

    def answers(self) -> list[str]:
        """Return the completions without their reasoning."""
        return [answer_of(text) for text in self.texts()]

    def golds(self) -> list[str | None]:
        """Return the rows' gold answers without reasoning; None where a row has none."""
        return [gold_of(value) for value in self.column("gold")]

    def column(self, name: str) -> Sequence[Any]:
        """Return a column, None for each row when there is no such column. Raises `RewardError`."""
        values = self.columns.get(name)
        if values is None:
            return [None] * len(self.completions)
        if len(values) != len(self.completions):
            n, n_values = len(self.completions), len(values)
            raise RewardError(f"the column `{name}` has {n_values} values for {n} completions")
        return values


@dataclass(frozen=True, eq=False)
class RewardFunction:
    """One reward of a recipe, callable as TRL calls reward functions.

    Attributes:
        name: unique in the recipe; metrics carry it (`rewards/NAME/mean`).
        kind: of the declaration.
        weight: in the sum of all rewards.
        score: returns one score a completion of a batch.
    """

    name: str
    kind: str
    weight: float
    score: Callable[[Batch], list[Score]]

    @property
    def __name__(self) -> str:
        """The name, where TRL looks for it."""
        return self.name

    def __call__(
        self, prompts: Sequence[Any] = (), completions: Sequence[Any] = (), **columns: Any
    ) -> list[Score]:
        """Return one score a completion. Raises `RewardError` when the reward itself is broken."""
        return self.score(Batch(prompts or [""] * len(completions), completions, columns))


def each(rule: Callable[[str, str], Score]) -> Callable[[Batch], list[Score]]:
    """Return a reward's `score` from a rule on (answer, gold); rows without a gold answer get None."""

    def score(batch: Batch) -> list[Score]:
        pairs = zip(batch.answers(), batch.golds(), strict=True)
        return [None if gold is None else rule(answer, gold) for answer, gold in pairs]

    return score


def text_of(completion: object) -> str:
    """Return what the model wrote: the text, or the last assistant turn's content.

    A turn without a role counts as the assistant's; of a content in parts, the texts count. Anything
    else, and more than 200,000 characters, is "".
    """
    text = completion
    if isinstance(completion, Sequence) and not isinstance(completion, str):
        text = _last_content(cast("Sequence[object]", completion))
    return text if isinstance(text, str) and len(text) <= MAX_CHARS else ""


def answer_of(text: str) -> str:
    """Return the text after its last `</think>`; "" when reasoning was begun and not ended."""
    _, closed, after = text.rpartition(THINK_CLOSE)
    if THINK_OPEN in after:
        return ""
    return after if closed else text


def gold_of(value: object) -> str | None:
    """Return a gold answer as text, without reasoning; None when there is none or it is blank.

    Turns give the last assistant turn; numbers, booleans, objects and other lists their JSON.
    """
    match value:
        case None:
            return None
        case str():
            text = value
        case list() if _are_turns(cast("list[object]", value)):
            text = text_of(cast("list[object]", value))
        case _:
            text = _json_of(value)
    text = answer_of(text)
    return text if text.strip() and len(text) <= MAX_CHARS else None


def _json_of(value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return ""


def _are_turns(value: list[object]) -> bool:
    return bool(value) and all(isinstance(turn, dict) and "content" in turn for turn in value)


def _last_content(turns: Sequence[object]) -> object:
    for turn in reversed(turns):
        if isinstance(turn, Mapping):
            values = cast("Mapping[str, object]", turn)
            if values.get("role", "assistant") == "assistant":
                content = values.get("content")
                return _joined(cast("list[object]", content)) if isinstance(content, list) else content
    return ""


def _joined(parts: list[object]) -> str:
    found = [cast("dict[str, object]", part).get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in found if isinstance(text, str))
