"""What `rdagent-ft data audit` finds, as one value, and how it reads for people.

Made by `audit_stream.py`. The audit of a run's own training rows (rung V3) is `audit.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rdagent_ft.data.preferences import PreferenceReport
from rdagent_ft.data.rows import FileRef
from rdagent_ft.data.tokens import PromptFormat
from rdagent_ft.values import Frozen


class Lengths(Frozen):
    """Nearest-rank percentiles of one length over all rows."""

    p50: int
    p90: int
    p95: int
    p99: int
    max: int


class LabelBalance(Frozen):
    """The answers, where few different ones are given.

    Attributes:
        n_labels: different answers.
        top: up to ten most common answers -> rows.
        share_of_most_common: 0..1; what always giving that answer would score.
        fewest: rows of the rarest answer.
    """

    n_labels: int
    top: dict[str, int]
    share_of_most_common: float
    fewest: int


class PersonalHits(Frozen):
    """Rows with one kind of personal data, and where the first of them stand. Values are never kept."""

    n_rows: int
    n_hits: int
    places: tuple[str, ...]


class DataAudit(Frozen):
    """The audit of a dataset.

    Attributes:
        name: what the user typed.
        files: the files, pinned.
        format: the detected format; mapping: canonical field -> column.
        n_read, n_rows: records in the files, rows that can be used.
        dropped: reason -> records; `dropped_places`: reason -> up to three places.
        unit: what lengths count: the model's tokens, or words where no model was given.
        prompt_format: how prompts were rendered for counting tokens; None for words.
        max_length: length from which a row is cut.
        lengths, prompt_lengths, answer_lengths: percentiles of whole rows and of their parts.
        n_truncated: rows longer than `max_length`.
        n_prompt_fills_max_length: rows whose prompt leaves no room for an answer.
        share_trained: share of the kept tokens (words) that is trained, 0..1.
        template_error: why the model's template refused a row; then lengths are words.
        n_exact_duplicates: rows beyond the first of equal ones.
        n_near_duplicates: further rows that say nearly the same as an earlier one.
        near_examples: pairs of places.
        n_repeated_prompts: rows whose prompt stood before with another answer.
        languages: language -> rows, a guess by script and small words.
        labels: balance of the answers where they are few.
        personal: kind -> hits.
        n_multi_turn: rows with more than one answer.
        n_echoed_answers: rows whose answer is their last prompt turn again.
        n_repeated_turns: rows in which a turn repeats an earlier one of the same speaker.
        preferences: what reading found, where the rows are preferences; then the rest is about the better
            known answer of each row.
        notes: what a person should know.
    """

    schema_version: Literal[1] = 1
    name: str
    files: tuple[FileRef, ...]
    format: str
    mapping: dict[str, str]
    n_read: int
    n_rows: int
    dropped: dict[str, int]
    dropped_places: dict[str, tuple[str, ...]]
    unit: Literal["tokens", "words"]
    prompt_format: PromptFormat | None
    max_length: int
    lengths: Lengths
    prompt_lengths: Lengths
    answer_lengths: Lengths
    n_truncated: int
    n_prompt_fills_max_length: int
    share_trained: float
    template_error: str | None
    n_exact_duplicates: int
    n_near_duplicates: int
    near_examples: tuple[tuple[str, str], ...]
    n_repeated_prompts: int
    languages: dict[str, int]
    labels: LabelBalance | None
    personal: dict[str, PersonalHits]
    n_multi_turn: int
    n_echoed_answers: int
    n_repeated_turns: int
    preferences: PreferenceReport | None = None
    notes: tuple[str, ...] = ()


def audit_lines(audit: DataAudit) -> Iterator[str]:
    """Yield the report for people, one fact a line."""
    used = ", ".join(f"{field}={column}" for field, column in audit.mapping.items())
    yield f"{audit.name}: {audit.n_rows:,} rows of {audit.n_read:,} records, read as {audit.format} ({used})"
    for reason, count in audit.dropped.items():
        yield f"  dropped {count:,}: {reason} ({', '.join(audit.dropped_places.get(reason, ()))})"
    yield f"duplicates: {audit.n_exact_duplicates:,} exact, {audit.n_near_duplicates:,} near"
    for first, second in audit.near_examples:
        yield f"  {second} is nearly {first}"
    yield f"prompts that stand elsewhere with another answer: {audit.n_repeated_prompts:,}"
    for what, found in (
        ("row", audit.lengths), ("prompt", audit.prompt_lengths), ("answer", audit.answer_lengths)
    ):  # fmt: skip
        numbers = ", ".join(f"{name} {value:,}" for name, value in found.model_dump().items())
        yield f"{audit.unit} a {what}: {numbers}"
    share = audit.n_truncated / audit.n_rows
    yield f"longer than max_length {audit.max_length:,}: {audit.n_truncated:,} rows ({share:.1%})"
    if audit.n_prompt_fills_max_length:
        yield f"  prompt alone fills it: {audit.n_prompt_fills_max_length:,} rows"
    yield f"share of {audit.unit} trained: {audit.share_trained:.1%}"
    if audit.template_error is not None:
        yield f"the model's template refuses rows: {audit.template_error}"
    shown = (f"{name} {count / audit.n_rows:.1%}" for name, count in list(audit.languages.items())[:8])
    yield f"language (a guess): {', '.join(shown)}"
    if audit.labels is not None:
        top = ", ".join(f"{name!r} {count:,}" for name, count in audit.labels.top.items())
        yield f"labels: {audit.labels.n_labels:,}, the rarest {audit.labels.fewest:,} rows; {top}"
    for kind, hits in audit.personal.items():
        yield f"personal data, {kind}: {hits.n_rows:,} rows, e.g. {', '.join(hits.places[:5])}"
    if not audit.personal:
        yield "personal data: none of the known patterns"
    yield (
        f"turns: {audit.n_multi_turn:,} rows have several answers, {audit.n_echoed_answers:,} answer with "
        f"the question, {audit.n_repeated_turns:,} repeat a turn"
    )
    yield from (f"note: {note}" for note in audit.notes)
