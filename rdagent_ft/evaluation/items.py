"""What a model is asked and what it answered, before any score: the two ends of every harness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_json_lines
from rdagent_ft.values import Frozen, sha256_text

ITEMS_MAX_BYTES = 512 << 20


class Turn(Frozen):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class EvalItem(Frozen):
    """One item, as a line of `EvalTask.items_file` holds it. Other keys of the line are ignored.

    Attributes:
        item_id: content hash of the item.
        prompt: the exact text the model sees, template applied.
        gold: the reference answer, in the form that the scorer reads (for `ifeval` and `code_pass` a
            JSON object).
        cluster: items that share a cluster are not independent; None means its own.
        messages: the conversation before the template, for endpoints that apply their own.
        choices: the possible continuations of a task with `method="choose"`.
    """

    item_id: str
    prompt: str
    gold: str
    cluster: str | None = None
    messages: tuple[Turn, ...] = ()
    choices: tuple[str, ...] = ()


class Answer(Frozen):
    """What a model answered to one item, as far as it is believed. Not scored yet.

    Attributes:
        repeat: index of the sample for this item, from 0.
        prompt_hash: `prompt_hash` of the text the model really saw.
        prediction: the generated text, or the likeliest of `EvalItem.choices`.
        finish_reason: why generation ended; None when unknown.
        n_tokens: generated tokens; None when unknown.
        latency_s: seconds from request to answer; None when unknown.
        prompt_truncated: the prompt did not fit the context: the item cannot be scored.
        unanswered: why there is no answer (a request that failed for good); None when there is one.
        normalised_prediction: of `method="choose"`, the choice with the largest log-probability per
            character (lm-eval's `acc_norm`); None where it is not measured.
    """

    item_id: str
    repeat: Annotated[int, Field(ge=0, le=10**6)] = 0
    prompt_hash: str
    prediction: str
    finish_reason: Literal["stop", "length"] | None = None
    n_tokens: Annotated[int, Field(ge=0, le=10**9)] | None = None
    latency_s: Annotated[float, Field(ge=0, le=1e9)] | None = None
    prompt_truncated: bool = False
    unanswered: str | None = None
    normalised_prediction: str | None = None


def prompt_hash(prompt: str) -> str:
    """Return 16 hex digits of the exact prompt text."""
    return sha256_text(prompt)[:16]


def read_items(items_file: Path, n_items: int) -> list[EvalItem]:
    """Return the items in file order. Raises `JobError` on a wrong count or a doubled id."""
    lines = read_json_lines(items_file.parent, items_file.name, ITEMS_MAX_BYTES)
    known = EvalItem.model_fields.keys()
    try:
        items = [EvalItem.model_validate({key: line[key] for key in known if key in line}) for line in lines]
    except ValueError as error:
        raise JobError(f"{items_file} holds a line that is no item: {_first_line(error)}") from None
    if len(items) != n_items or not items:
        raise JobError(f"{items_file} holds {len(items)} items, the task says {n_items}")
    if len({item.item_id for item in items}) != len(items):
        raise JobError(f"{items_file} holds an item id twice")
    return items


def refuse_incomplete(answers: Sequence[Answer], items: Sequence[EvalItem], repeats: int, name: str) -> None:
    """Raise `JobError` unless every item has each of its repeats exactly once, to its own prompt."""
    found = {(answer.item_id, answer.repeat) for answer in answers}
    if len(found) != len(answers):
        raise JobError(f"{name} answers an item a second time")
    expected = {(item.item_id, repeat) for item in items for repeat in range(repeats)}
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise JobError(
            f"{name} has {len(answers)} answers to {len(expected)} questions: {len(missing)} missing "
            f"({_ids(missing)}), {len(unknown)} unknown ({_ids(unknown)})"
        )
    wanted = {item.item_id: prompt_hash(item.prompt) for item in items}
    for answer in answers:
        if answer.prompt_hash != wanted[answer.item_id]:
            raise JobError(
                f"{name}: item {answer.item_id} was answered to another prompt than the rendered one"
            )


def _ids(pairs: Sequence[tuple[str, int]]) -> str:
    return ", ".join(item_id for item_id, _ in pairs[:5])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
