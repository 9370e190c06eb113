"""Write rows for the program, the trainer and the harness, and read our own row files back.

All files are JSON lines, written whole or not at all. No text is changed on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rdagent_ft.data.rows import Row
from rdagent_ft.data.tokens import PLAIN_PROMPT_END, PromptFormat, TextEncoder
from rdagent_ft.errors import DataError
from rdagent_ft.values import Frozen, write_atomic

T = TypeVar("T", bound=Frozen)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows in the program's own form; `read_row_file` gives equal rows back."""
    write_lines(path, (row.model_dump(mode="json") for row in rows))


def read_row_file(path: Path) -> list[Row]:
    """Return the rows that `write_rows` wrote. Raises `DataError` naming file and line."""
    return read_stored(path, Row)


def read_stored(path: Path, kind: type[T]) -> list[T]:
    """Return what `write_lines` wrote of one kind of value. Raises `DataError` naming file and line."""
    values: list[T] = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    values.append(kind.model_validate_json(line))
                except ValidationError as error:
                    reason = error.errors()[0]["msg"]
                    what = f"not a stored {kind.__name__}"
                    raise DataError(f"{str(path)!r}, line {number}: {what}: {reason}") from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    return values


def write_trl_sft(path: Path, rows: Iterable[Row], prompt_format: PromptFormat) -> None:
    """Write what TRL's SFT reads: prompt and completion, so that only the completion is trained.

    `plain`: two strings, the end token is TRL's to add. `chat`: lists of turns, rendered by TRL with the
    model's own template.
    """
    write_lines(path, (_trl_record(row, prompt_format) for row in rows))


def write_trl_turns(path: Path, rows: Iterable[Row]) -> None:
    """Write whole conversations {messages}; which turns are trained is the trainer's template's to say."""
    write_lines(
        path,
        ({"messages": [turn.model_dump(mode="json") for turn in row.messages]} for row in rows),
    )


def write_eval_items(
    path: Path,
    rows: Sequence[Row],
    encoder: TextEncoder | None,
    prompt_format: PromptFormat,
    clusters: Mapping[str, int] | None = None,
) -> None:
    """Write items for a harness, as `evaluation.items.EvalItem` reads them.

    `clusters`: item id -> number; without it the cluster is the row's own (`meta["cluster"]`), if any.
    Without an `encoder` the prompt is the bare text: for endpoints that render the conversation themselves.
    """
    write_lines(path, (_eval_record(row, encoder, prompt_format, clusters) for row in rows))


def _eval_record(
    row: Row, encoder: TextEncoder | None, prompt_format: PromptFormat, clusters: Mapping[str, int] | None
) -> dict[str, Any]:
    cluster = row.meta.get("cluster") if clusters is None else clusters[row.item_id]
    return {
        "item_id": row.item_id,
        "prompt": row.prompt_text if encoder is None else encoder.render_prompt(row, prompt_format),
        "gold": row.completion,
        "cluster": None if cluster is None else str(cluster),
        "messages": [turn.model_dump(mode="json") for turn in row.messages[:-1]],
        "choices": row.meta.get("choices", []),
    }


def _trl_record(row: Row, prompt_format: PromptFormat) -> dict[str, Any]:
    if prompt_format == "plain":
        return {"prompt": row.prompt_text + PLAIN_PROMPT_END, "completion": row.completion}
    turns = [{"role": message.role, "content": message.content} for message in row.messages]
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records as JSON lines, whole or not at all. NaN is refused: it is not JSON."""
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    write_atomic(path, "".join(lines))
