"""Audit a dataset of any size in one pass over its rows: what is in it, before anyone trains on it.

Keeps numbers and hashes, no rows: 100,000 rows take well under a minute and 1 GB (`bench/audit.py`).
Nothing here judges a recipe; a run's own rows are judged by `audit.py`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from rdagent_ft.data.audit_language import guess_language
from rdagent_ft.data.audit_near import MAX_TEXTS, NearCounter
from rdagent_ft.data.audit_personal import PersonalKind, personal_counts
from rdagent_ft.data.audit_report import DataAudit, LabelBalance, Lengths, PersonalHits
from rdagent_ft.data.near_duplicates import normalise
from rdagent_ft.data.preferences import PreferenceReport, read_preferences
from rdagent_ft.data.rows import DatasetSource, Row
from rdagent_ft.data.stream import Judged, row_mapping, scan, stream_rows
from rdagent_ft.data.tokens import PromptFormat, TextEncoder
from rdagent_ft.errors import DataError, UserError

DEFAULT_MAX_LENGTH = 1024
_BATCH = 1_000
_N_PLACES = 20
_N_DROPPED_PLACES = 3
_MAX_LABELS = 200
_MAX_LABEL_CHARS = 200
_ROWS_PER_LABEL = 5
_N_TOP_LABELS = 10


def audit_dataset(
    source: DatasetSource,
    columns: dict[str, str] | None = None,
    *,
    encoder: TextEncoder | None = None,
    prompt_format: PromptFormat = "chat",
    max_length: int = DEFAULT_MAX_LENGTH,
) -> DataAudit:
    """Return the audit of all rows of `source`.

    Args:
        source: from `resolve_dataset`.
        columns: canonical field -> column; overrides the alias table.
        encoder: counts tokens of this model; without it lengths are words.
        prompt_format: how the model's prompts are rendered.
        max_length: length from which a row is cut, in the same unit.

    Raises `DataError` for a malformed file, unusable columns, and when no row can be used.
    """
    found = scan(source, columns)
    numbers = _Numbers(encoder, prompt_format, max_length)
    preferences: PreferenceReport | None = None
    if found.preferences is not None:
        rows, preferences = read_preferences(source, columns)
        numbers.drop(preferences.dropped, preferences.examples)
        numbers.take_all(Judged(f"row {at}", row.as_row(), None) for at, row in enumerate(rows, start=1))
        form, mapping, notes = preferences.format, preferences.mapping, preferences.notes
    else:
        how = row_mapping(found, columns)
        numbers.take_all(stream_rows(source, found, how))
        form, mapping, notes = how.format, how.fields, (*source.notes, *how.notes)
    if numbers.n_rows == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in numbers.dropped.most_common(5))
        raise DataError(f"none of the {found.n_records} records of {source.name!r} can be used: {reasons}")
    return numbers.report(source, str(form), mapping, found.n_records, preferences, notes)


class _Numbers:
    """Everything that is counted while rows pass by."""

    def __init__(self, encoder: TextEncoder | None, prompt_format: PromptFormat, max_length: int) -> None:
        self._encoder = encoder
        self._prompt_format: PromptFormat = prompt_format
        self._max_length = max_length
        self.n_rows = 0
        self.dropped: Counter[str] = Counter()
        self._dropped_places: dict[str, list[str]] = {}
        self._totals, self._contexts = array("I"), array("I")
        self._word_totals, self._word_contexts = array("I"), array("I")
        self._template_error: str | None = None
        self._items: set[int] = set()
        self._texts: set[int] = set()
        self._prompts: set[int] = set()
        self._near = NearCounter()
        self._n_exact = self._n_same_text = self._n_same_prompt = 0
        self._languages: Counter[str] = Counter()
        self._labels: Counter[str] | None = Counter()
        self._personal_rows: Counter[PersonalKind] = Counter()
        self._personal_hits: Counter[PersonalKind] = Counter()
        self._personal_places: dict[PersonalKind, list[str]] = {}
        self._n_multi_turn = self._n_echoed = self._n_repeated = 0

    def take_all(self, judged: Iterable[Judged]) -> None:
        """Take all records."""
        for batch in _batches(judged):
            rows: list[Row] = []
            for place, row, reason in batch:
                if row is None:
                    self._drop(reason or "", place)
                else:
                    rows.append(row)
                    self._take(row, place)
            self._measure(rows)

    def drop(self, counts: dict[str, int], places: dict[str, tuple[str, ...]]) -> None:
        """Take over what another reader dropped."""
        self.dropped.update(counts)
        self._dropped_places.update({reason: list(found) for reason, found in places.items()})

    def _drop(self, reason: str, place: str) -> None:
        self.dropped[reason] += 1
        if len(places := self._dropped_places.setdefault(reason, [])) < _N_DROPPED_PLACES:
            places.append(place)

    def _take(self, row: Row, place: str) -> None:
        self.n_rows += 1
        text = f"{row.prompt_text}\n{row.completion}"
        self._count_repeats(row, text, place)
        self._count_turns(row)
        self._languages[guess_language(text)] += 1
        for kind, n_hits in personal_counts(text).items():
            self._personal_rows[kind] += 1
            self._personal_hits[kind] += n_hits
            if len(places := self._personal_places.setdefault(kind, [])) < _N_PLACES:
                places.append(place)
        if self._labels is not None:
            self._labels[row.completion[: _MAX_LABEL_CHARS + 1]] += 1
            if len(self._labels) > _MAX_LABELS:
                self._labels = None

    def _count_repeats(self, row: Row, text: str, place: str) -> None:
        """Count exact copies, equal texts in other spelling, and prompts with several answers."""
        item = int(row.item_id, 16)
        if item in self._items:
            self._n_exact += 1
            return
        self._items.add(item)
        normalised = normalise(text)
        if (key := hash(normalised)) in self._texts:
            self._n_same_text += 1
        else:
            self._texts.add(key)
            self._near.add(normalised, place)
        prompt = hash(normalise(row.prompt_text))
        self._n_same_prompt += prompt in self._prompts
        self._prompts.add(prompt)

    def _count_turns(self, row: Row) -> None:
        turns = [(turn.role, turn.content.strip()) for turn in row.messages]
        self._n_multi_turn += sum(role == "assistant" for role, _ in turns) > 1
        self._n_echoed += turns[-1][1] == turns[-2][1]
        self._n_repeated += len(set(turns)) < len(turns)

    def _measure(self, rows: Sequence[Row]) -> None:
        for row in rows:
            n_prompt = len(row.prompt_text.split())
            self._word_contexts.append(n_prompt)
            self._word_totals.append(n_prompt + len(row.completion.split()))
        if self._encoder is None or self._template_error is not None:
            return
        try:
            tokens = self._encoder.measure(rows, self._prompt_format)
        except UserError as error:
            self._template_error = error.message
            return
        self._contexts.extend(found.n_context for found in tokens)
        self._totals.extend(found.n_total for found in tokens)

    def report(
        self,
        source: DatasetSource,
        form: str,
        mapping: dict[str, str],
        n_read: int,
        preferences: PreferenceReport | None,
        notes: tuple[str, ...],
    ) -> DataAudit:
        """Return what was counted."""
        by_tokens = self._encoder is not None and self._template_error is None
        totals = self._totals if by_tokens else self._word_totals
        contexts = self._contexts if by_tokens else self._word_contexts
        pairs = list(zip(totals, contexts, strict=True))
        n_kept = sum(min(total, self._max_length) for total in totals)
        n_trained = sum(max(0, min(total, self._max_length) - context) for total, context in pairs)
        n_near, examples = self._near.finish()
        left_out = self._near.n_left_out
        if left_out:
            notes = (*notes, f"near-duplicates: {left_out:,} rows after the first {MAX_TEXTS:,} not compared")
        return DataAudit(
            name=source.name,
            files=source.files,
            format=form,
            mapping=mapping,
            n_read=n_read,
            n_rows=self.n_rows,
            dropped=dict(self.dropped.most_common()),
            dropped_places={reason: tuple(places) for reason, places in self._dropped_places.items()},
            unit="tokens" if by_tokens else "words",
            prompt_format=self._prompt_format if by_tokens else None,
            max_length=self._max_length,
            lengths=_lengths(totals),
            prompt_lengths=_lengths(contexts),
            answer_lengths=_lengths(total - context for total, context in pairs),
            n_truncated=sum(total > self._max_length for total in totals),
            n_prompt_fills_max_length=sum(context >= self._max_length for context in contexts),
            share_trained=round(n_trained / n_kept, 4) if n_kept else 0.0,
            template_error=self._template_error,
            n_exact_duplicates=self._n_exact,
            n_near_duplicates=n_near + self._n_same_text,
            near_examples=examples,
            n_repeated_prompts=self._n_same_prompt,
            languages=dict(self._languages.most_common()),
            labels=self._balance(),
            personal=self._personal(),
            n_multi_turn=self._n_multi_turn,
            n_echoed_answers=self._n_echoed,
            n_repeated_turns=self._n_repeated,
            preferences=preferences,
            notes=notes,
        )

    def _balance(self) -> LabelBalance | None:
        labels = self._labels
        if labels is None or len(labels) * _ROWS_PER_LABEL > self.n_rows:
            return None
        if any(len(label) > _MAX_LABEL_CHARS for label in labels):
            return None
        top = labels.most_common()
        return LabelBalance(
            n_labels=len(labels),
            top=dict(top[:_N_TOP_LABELS]),
            share_of_most_common=round(top[0][1] / self.n_rows, 4),
            fewest=top[-1][1],
        )

    def _personal(self) -> dict[str, PersonalHits]:
        return {
            kind: PersonalHits(
                n_rows=count, n_hits=self._personal_hits[kind], places=tuple(self._personal_places[kind])
            )
            for kind, count in self._personal_rows.most_common()
        }


def _batches(judged: Iterable[Judged]) -> Iterator[list[Judged]]:
    stream = iter(judged)
    while batch := list(islice(stream, _BATCH)):
        yield batch


def _lengths(values: Iterable[int]) -> Lengths:
    """Return nearest-rank percentiles."""
    ordered = sorted(values)
    p50, p90, p95, p99 = (ordered[max(0, -(-share * len(ordered) // 100) - 1)] for share in (50, 90, 95, 99))
    return Lengths(p50=p50, p90=p90, p95=p95, p99=p99, max=ordered[-1])
