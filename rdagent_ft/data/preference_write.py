"""Write preference rows and bare prompts as TRL's DPO, KTO, reward, GRPO and distillation trainers read them.

Prompts are rendered as for SFT (`write.write_trl_sft`): `plain` gives texts, `chat` lists of turns. All
files are JSON lines, written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.data.preferences import PreferenceRow
from rdagent_ft.data.rows import Message, Row
from rdagent_ft.data.tokens import PLAIN_PROMPT_END, PromptFormat
from rdagent_ft.data.write import write_lines
from rdagent_ft.errors import DataError

RESERVED = frozenset(
    {"prompt", "gold", "prompts", "completion", "completions", "completion_ids", "messages", "chosen",
     "rejected", "trainer_state", "images", "image", "tools"}
)  # fmt: skip
"""Columns that TRL's trainers give a meaning of their own, or hand to rewards themselves."""


def write_trl_pairs(path: Path, rows: Sequence[PreferenceRow], prompt_format: PromptFormat) -> None:
    """Write {prompt, chosen, rejected}. Raises `DataError` for rows with one answer only."""
    single = sum(not row.is_pair for row in rows)
    if single:
        raise DataError(
            f"{single} of {len(rows)} preference rows have one answer only, and pairs are needed",
            hint="train on them with a kto stage, or give chosen and rejected",
        )
    write_lines(
        path,
        (
            {
                "prompt": rendered_prompt(row.prompt, prompt_format),
                "chosen": _answer(row.chosen, prompt_format),
                "rejected": _answer(row.rejected, prompt_format),
            }
            for row in rows
        ),
    )


def write_trl_kto(path: Path, rows: Iterable[PreferenceRow], prompt_format: PromptFormat) -> None:
    """Write {prompt, completion, label}; a pair becomes two rows, the chosen answer first."""
    write_lines(path, _labelled(rows, prompt_format))


def write_trl_prompts(path: Path, rows: Sequence[Row], prompt_format: PromptFormat) -> tuple[str, ...]:
    """Write {prompt, gold} and the rows' other columns (such as tests), which rewards may read.

    Every record has every column, None where the row has no value: the trainer's tables need that. Returns
    the names of the columns left out: those whose values differ in type from row to row, and those whose
    name the trainer uses itself.
    """
    kept = table_columns(rows)
    write_lines(
        path,
        (
            {
                "prompt": rendered_prompt(row.prompt, prompt_format),
                "gold": row.completion,
                **{name: row.meta.get(name) for name in kept},
            }
            for row in rows
        ),
    )
    return tuple(sorted({name for row in rows for name in row.meta} - set(kept)))


def table_columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the rows' other columns that fit into one table: no name of the trainer's, one type of value."""
    names = sorted({name for row in rows for name in row.meta} - RESERVED)
    return tuple(name for name in names if _one_kind(row.meta.get(name) for row in rows))


def rendered_prompt(prompt: Sequence[Message], prompt_format: PromptFormat) -> str | list[dict[str, str]]:
    """Return a prompt as the trainer reads it: text that ends as in training, or turns."""
    if prompt_format == "plain":
        return "\n\n".join(turn.content for turn in prompt) + PLAIN_PROMPT_END
    return [{"role": turn.role, "content": turn.content} for turn in prompt]


def _answer(text: str | None, prompt_format: PromptFormat) -> str | list[dict[str, str]]:
    content = text or ""
    return content if prompt_format == "plain" else [{"role": "assistant", "content": content}]


def _labelled(rows: Iterable[PreferenceRow], prompt_format: PromptFormat) -> Iterator[dict[str, Any]]:
    for row in rows:
        for answer, label in ((row.chosen, True), (row.rejected, False)):
            if answer is not None:
                yield {
                    "prompt": rendered_prompt(row.prompt, prompt_format),
                    "completion": _answer(answer, prompt_format),
                    "label": label,
                }


def _one_kind(values: Iterable[Any]) -> bool:
    """Return whether all values that are there have one type, down to the entries of lists."""
    given = [value for value in values if value is not None]
    if len({isinstance(value, list) for value in given}) > 1:
        return False
    return len({kind for value in given for kind in _kinds(value)}) <= 1


def _kinds(value: Any) -> set[str]:
    """Return the type of a value as a path such as `list.text`; none for None and empty lists."""
    if value is None:
        return set()
    if isinstance(value, list):
        return {f"list.{kind}" for item in cast("list[Any]", value) for kind in _kinds(item)}
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, (int, float)):
        return {"number"}
    return {"text" if isinstance(value, str) else "object"}
