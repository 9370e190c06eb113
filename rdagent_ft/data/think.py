"""The `think` operation of a data mix: reasoning put before answers in a `<think>` block, or taken away.

What a block is stands in `thinking.py`. Whether blocks can be trained at all is a matter of the model's
chat template, which may write or remove them itself: `template_problem` finds that out by rendering.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.thinking import has_thinking, with_thinking, without_thinking
from rdagent_ft.errors import DataError, Problem
from rdagent_ft.recipe.data_mix import DataMix

if TYPE_CHECKING:
    from rdagent_ft.data.tokens import PromptFormat, TextEncoder

_OPEN = "<think>"


class Thought(NamedTuple):
    """Rows with their new answers, in their order; reason -> rows left out; change -> rows changed."""

    rows: list[Row]
    dropped: dict[str, int]
    changed: dict[str, int]


def think_rows(rows: Sequence[Row], mix: DataMix) -> Thought:
    """Return the rows with `<think>` blocks added or removed as `mix.think` says.

    A row that has a block keeps it under `wrap` and `empty`. `strip` drops a row whose answer is a block
    only, and `wrap` with a column drops a row without text in it.
    """
    if mix.think is None:
        return Thought(list(rows), {}, {})
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    kept: list[Row] = []
    for row in rows:
        answer = _answer(row, mix)
        if answer is None:
            dropped[_reason(mix)] += 1
        elif answer == row.completion:
            kept.append(row)
        else:
            changed[f"think {mix.think}"] += 1
            kept.append(with_answer(row, answer))
    return Thought(kept, dict(dropped), dict(changed))


def split_reasoning(answer: str) -> tuple[str, str]:
    """Return (reasoning, final answer): all lines before the last one that is not empty, and that line.

    An answer of one line has no reasoning. Neither has one whose last line holds no letter or digit: the
    end of a JSON object or of a code block alone is no answer.
    """
    head, newline, last = answer.strip().rpartition("\n")
    if not newline or not any(mark.isalnum() for mark in last):
        return "", answer
    return head.strip(), last.strip()


def with_answer(row: Row, answer: str) -> Row:
    """Return the row with another answer, and the item id that goes with it."""
    return make_row(
        (*row.prompt, Message(role="assistant", content=answer)), source=row.source, meta=row.meta
    )


def template_problem(mix: DataMix, encoder: TextEncoder, prompt_format: PromptFormat) -> Problem | None:
    """Return what the model's chat template would do to a think block, if it does not keep it as it is.

    Some templates open a block at the end of the prompt, and some write or remove blocks in answers.
    """
    if mix.think not in ("wrap", "empty") or prompt_format == "plain":
        return None
    thoughts = "" if mix.think == "empty" else "one two"
    turns = (Message(role="user", content="ask"), Message(role="assistant", content="answer"))
    row = with_answer(make_row(turns), with_thinking("answer", thoughts))
    try:
        in_prompt = encoder.render_prompt(row, "chat").count(_OPEN)
        in_whole = encoder.render_whole(row, "chat").count(_OPEN)
    except DataError:  # the audit reports a template that refuses conversations
        return None
    if in_prompt:
        rule = "is trained after a prompt in which the model's chat template opens a block already"
    elif in_whole > 1:
        rule = "is doubled: the model's chat template writes a block of its own"
    elif not in_whole:
        rule = "is lost: the model's chat template removes blocks from answers"
    else:
        return None
    fix = "write strip, or null and leave the block to the template"
    return Problem("data.think", mix.think, rule, "data.think_template", fix)


def _answer(row: Row, mix: DataMix) -> str | None:
    """Return the row's new answer; None where it cannot have one."""
    if mix.think == "strip":
        rest = without_thinking(row.completion)
        return rest if rest.strip() else None
    if mix.think == "empty" or has_thinking(row.completion):
        return with_thinking(row.completion)
    if mix.think_column is None:
        thoughts, answer = split_reasoning(row.completion)
        return with_thinking(answer, thoughts)
    thoughts = row.meta.get(mix.think_column)
    if not isinstance(thoughts, str) or not thoughts.strip():
        return None
    return with_thinking(row.completion, thoughts)


def _reason(mix: DataMix) -> str:
    if mix.think == "strip":
        return "think block only"
    return f"no text in the think column {mix.think_column}"
