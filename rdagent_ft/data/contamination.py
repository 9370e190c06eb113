"""Which training documents repeat which evaluation items, and by what evidence.

The one check of the package: for a training file on its own (`rdagent-ft data decontaminate`), for the train
split of a run, and for rows that a data script wrote. Only wording is compared: paraphrases and
translations are not found. Method, limits and sources: `docs/contamination.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

from rdagent_ft.data.eval_items import EvalItem, Group, group_items
from rdagent_ft.data.overlap_words import Ints, WordReader, signed_words
from rdagent_ft.data.partial_overlap import PartialOverlap
from rdagent_ft.data.rows import Row
from rdagent_ft.data.whole_overlap import Document, WholeOverlap
from rdagent_ft.values import Frozen

Reason = Literal["exact", "short", "answer", "coverage", "run", "near"]

_STRENGTH: tuple[Reason, ...] = ("exact", "short", "answer", "coverage", "run", "near")
# Answers sampled for one prompt count as one prompt, up to this many.
_SAMPLES_PER_PROMPT = 64
_CHUNK_CHARS = 8 << 20


class Overlap(Frozen):
    """One training document that repeats one evaluation item.

    Attributes:
        document, item: their numbers in the lists that were compared.
        reason: the strongest evidence.
            `exact`: the whole question (13 words or more) stands in the document;
            `short`: the same for a shorter question, with its marks of arithmetic;
            `answer`: a question that proves little alone stands there with its answer;
            `coverage`: half or more of the item's own 13-grams;
            `run`: 30 or more words in a row;
            `near`: 80 % or more of the item's 3-grams. Reported, but no leak: numbers may differ.
        coverage: share of the item's own 13-grams (3-grams for `near`) that stand in the document, 0..1.
        run_words: longest run of shared words outside boilerplate; 0 below 13.
        answer_attached: whether the item's answer stands in the document's answer.
    """

    document: int
    item: int
    reason: Reason
    coverage: float
    run_words: int
    answer_attached: bool

    @property
    def is_leak(self) -> bool:
        """Whether the document must not be trained on when the item is scored."""
        return self.reason != "near"


class _Evidence(NamedTuple):
    """What was found of a pair of document and group."""

    strength: int
    coverage: float
    run_words: int

    def joined(self, other: _Evidence | None) -> _Evidence:
        """Return the stronger reason with the larger figures; those of `near` are of another measure."""
        if other is None:
            return self
        strong, weak = (self, other) if self.strength <= other.strength else (other, self)
        if _STRENGTH[weak.strength] == "near":
            return strong
        return _Evidence(
            strong.strength, max(strong.coverage, weak.coverage), max(strong.run_words, weak.run_words)
        )


def document_of(row: Row) -> Document:
    """Return a row as the check reads it."""
    return Document(tuple(turn.content for turn in row.prompt), row.completion)


def item_of(row: Row, source: str) -> EvalItem:
    """Return a held-out row as an item; a system turn is no part of the question."""
    asked = [turn.content for turn in row.prompt if turn.role != "system"] or [row.prompt_text]
    return EvalItem(row.item_id, source, "\n".join(asked), row.completion)


def held_out_copies(rows: Sequence[Row], held_out: Sequence[EvalItem], train: Sequence[Row]) -> set[str]:
    """Return the item ids of rows, made after the split, that repeat a held-out item, nearly or whole.

    Rows of the train split are never among them: the split has judged them. What stands in the train
    split too (an instruction, a template) is no evidence.

    Args:
        rows: the new rows.
        held_out: items of dev, val, test and benchmarks.
        train: the train split.
    """
    own_ids = {row.item_id for row in train}
    made = [row for row in rows if row.item_id not in own_ids]
    overlaps = find_overlaps(
        [document_of(row) for row in made], held_out, known=[document_of(row) for row in train]
    )
    return {made[overlap.document].item_id for overlap in overlaps}


def find_overlaps(
    documents: Sequence[Document],
    items: Sequence[EvalItem],
    known: Iterable[Document] = (),
    *,
    max_template_share: float = 0.002,
) -> list[Overlap]:
    """Return every pair of document and item that share wording, by document and then item.

    The order of documents or items changes nothing but the numbers. Beside its arguments it keeps the
    n-grams of the items and what they share with documents, and reads documents in chunks.

    Args:
        documents: training rows.
        items: evaluation items; equal ones are compared once and all reported.
        known: documents known to be clean: what they share with items is no evidence.
        max_template_share: n-grams of more prompts than this share (0..1), and of more than five, are a
            template of the training data.
    """
    groups = group_items(items)
    if not groups or not documents:
        return []
    order, prompts = _by_prompt(documents)
    reader = WordReader()
    whole = WholeOverlap(groups, reader)
    partial = PartialOverlap(groups, reader, int(max_template_share * (int(prompts[-1]) + 1)))
    clean = list(known)
    for first, end in _chunks(clean, np.arange(len(clean))):
        words = reader.read(document.turns for document in clean[first:end])
        whole.mark_known(words)
        partial.mark_known(words)
    found: dict[tuple[int, int], _Evidence] = {}

    def note(document: int, group: int, reason: Reason, coverage: float, run_words: int) -> None:
        evidence = _Evidence(_STRENGTH.index(reason), coverage, run_words)
        found[document, group] = evidence.joined(found.get((document, group)))

    ordered = [documents[number] for number in order]
    for first, end in _chunks(ordered, prompts):
        numbers, chunk = order[first:end], ordered[first:end]
        words = reader.read(document.turns for document in chunk)
        for find in whole.find(words, chunk):
            note(numbers[find.document], find.group, find.reason, 1.0, groups[find.group].n_question)
        for find in partial.add(words, np.array(numbers, dtype=np.int64), prompts[first:end]):
            note(*find)
    for find in partial.finish():
        note(*find)
    return _overlaps(found, documents, groups)


def _by_prompt(documents: Sequence[Document]) -> tuple[list[int], Ints]:
    """Return the documents' numbers with equal prompts together, and a number for the prompt of each."""
    order = sorted(range(len(documents)), key=lambda number: documents[number])
    prompts: list[int] = []
    n_prompts = 0
    for _, same in groupby(order, key=lambda number: documents[number].prompt):
        n_samples = len(list(same))
        prompts += [n_prompts + sample // _SAMPLES_PER_PROMPT for sample in range(n_samples)]
        n_prompts = prompts[-1] + 1
    return order, np.array(prompts, dtype=np.int64)


def _chunks(documents: Sequence[Document], prompts: Ints) -> Iterator[tuple[int, int]]:
    """Yield ranges of documents with about 8 million characters each; a prompt stays in one of them."""
    first, n_chars = 0, 0
    for at, document in enumerate(documents):
        if n_chars >= _CHUNK_CHARS and prompts[at] != prompts[at - 1]:
            yield first, at
            first, n_chars = at, 0
        n_chars += sum(map(len, document.turns))
    if documents:
        yield first, len(documents)


def _overlaps(
    found: dict[tuple[int, int], _Evidence], documents: Sequence[Document], groups: Sequence[Group]
) -> list[Overlap]:
    """Return one overlap for every item of every group that was found."""
    overlaps: list[Overlap] = []
    answers: dict[int, str] = {}
    for (document, group), evidence in found.items():
        if document not in answers:
            told = documents[document]
            answers[document] = signed_words(told.answer or " ".join(told.prompt))
        wanted = signed_words(groups[group].answer)
        overlaps += (
            Overlap(
                document=document,
                item=item,
                reason=_STRENGTH[evidence.strength],
                coverage=evidence.coverage,
                run_words=evidence.run_words,
                answer_attached=bool(wanted.strip()) and wanted in answers[document],
            )
            for item in groups[group].items
        )
    return sorted(overlaps, key=lambda overlap: (overlap.document, overlap.item))
