"""The one internal row, and what is known of a dataset after reading it.

Every reader ends in `Row`, every writer starts from it. A row is single- or multi-turn chat whose
last turn is the assistant's: that turn is what is trained and what is scored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from rdagent_ft.values import Frozen, content_hash

Role = Literal["system", "user", "assistant", "tool"]
SplitName = Literal["train", "dev", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "dev", "val", "test")


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    content: str


class Row(Frozen):
    """One item. `item_id` is the content hash of its messages, so equal items share an id.

    Attributes:
        item_id: 16 hex digits over the messages.
        messages: at least two turns; the last one is the assistant's and not empty.
        source: where the row came from inside the dataset (a `source` column, else None).
        meta: other columns, JSON values only; never shown to a trainer.
    """

    item_id: str
    messages: tuple[Message, ...]
    source: str | None = None
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _last_turn_is_assistant(self) -> Row:
        if len(self.messages) < 2 or self.messages[-1].role != "assistant":
            raise ValueError("the last of at least two turns must be the assistant's")
        return self

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All turns before the completion."""
        return self.messages[:-1]

    @property
    def completion(self) -> str:
        """The assistant's last turn: the gold answer."""
        return self.messages[-1].content

    @property
    def prompt_text(self) -> str:
        """The prompt as plain text: contents joined by blank lines (the `plain` format)."""
        return "\n\n".join(message.content for message in self.prompt)


def make_row(
    messages: tuple[Message, ...], *, source: str | None = None, meta: dict[str, Any] | None = None
) -> Row:
    """Return a row with its content id. Raises `pydantic.ValidationError` on a bad turn order."""
    item_id = content_hash([[m.role, m.content] for m in messages], n_chars=16)
    return Row(item_id=item_id, messages=messages, source=source, meta=meta or {})


class FileRef(Frozen):
    """One pinned file: path as given to the program, size in bytes, SHA-256."""

    path: str
    n_bytes: int
    sha256: str


class ReadReport(Frozen):
    """What reading found: format, mapping of columns, and every dropped row by reason.

    Attributes:
        format: the detected format.
        mapping: canonical field -> column it came from.
        columns: all columns seen.
        n_read: records in the files.
        n_rows: rows kept.
        dropped: reason -> count, for records that could not become a row.
        examples: reason -> up to three places ("file:line").
        notes: what a person should know besides: files left out, columns the model does not see.
    """

    format: Literal["alpaca", "sharegpt", "messages", "prompt_completion", "question_answer"]
    mapping: dict[str, str]
    columns: tuple[str, ...]
    n_read: int
    n_rows: int
    dropped: dict[str, int] = {}
    examples: dict[str, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()


class DatasetSource(Frozen):
    """A dataset that was found and pinned, before its rows are read.

    Attributes:
        name: what the user typed.
        kind: `hub`, `local` or `registered` (under FT_FILE_PATH/datasets).
        revision: hub commit, or the content hash of the local files.
        files: data files in reading order.
        notes: what a person should know, e.g. test files that were left out.
    """

    name: str
    kind: Literal["hub", "local", "registered"]
    revision: str
    files: tuple[FileRef, ...]
    notes: tuple[str, ...] = ()


class ModelSource(Frozen):
    """A base model that was found and pinned.

    Attributes:
        name: what the user typed, or the chosen one.
        path: local directory with config.json, tokenizer and safetensors.
        revision: hub commit, or the fingerprint for a local directory.
        fingerprint: 16 hex digits over config, tokenizer, template and weight files.
        architecture: first entry of `architectures` in config.json.
        n_params: number of weights from the safetensors headers.
        max_positions: context length in tokens.
        vocab_size: size of the embedding.
        has_chat_template: whether the tokenizer carries one.
        choice_reason: why this model, when the program chose it.
    """

    name: str
    path: str
    revision: str
    fingerprint: str
    architecture: str
    n_params: int
    max_positions: int
    vocab_size: int
    has_chat_template: bool
    choice_reason: str | None = None
