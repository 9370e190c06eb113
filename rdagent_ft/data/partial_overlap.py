"""Parts of evaluation items in training documents: 13-grams by coverage and run, 3-grams for near copies.

Boilerplate is left out: n-grams of more than five items, of many prompts of the training data, or of
documents that are known to be clean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rdagent_ft.data.eval_items import SHORT_WORDS, Group
from rdagent_ft.data.gram_index import GramIndex
from rdagent_ft.data.overlap_words import Flags, Floats, Ints, WordReader, Words, window_hashes, window_starts

GRAM_WORDS = 13
MIN_COVERAGE = 0.5
MIN_RUN_WORDS = 30
NEAR_WORDS = 3
MIN_NEAR_SHARE = 0.8
_MIN_NEAR_ITEM_WORDS = 8
_MIN_TEMPLATE_PROMPTS = 5


class PartialFind(NamedTuple):
    """A group of items that stands in a document in part.

    `coverage` is a share of own n-grams, 0..1; `run_words` the longest run of shared words.
    """

    document: int
    group: int
    reason: Literal["coverage", "run", "near"]
    coverage: float
    run_words: int


class PartialOverlap:
    """Counts shared n-grams over chunks of documents; whole prompts have to stay in one chunk."""

    def __init__(self, groups: Sequence[Group], reader: WordReader, max_prompts: int) -> None:
        """Index the groups. N-grams of more prompts than `max_prompts`, and than five, are templates."""
        words = reader.read((group.question, group.answer) for group in groups)
        n_question = np.array([group.n_question for group in groups], dtype=np.int64)
        n_answer = np.array([group.n_answer for group in groups], dtype=np.int64)
        ends = np.cumsum(n_question + n_answer) - n_answer
        self._long = GramIndex(words, ends, len(groups), GRAM_WORDS)
        self._near = GramIndex(words, ends, len(groups), NEAR_WORDS)
        self._is_long_question = n_question >= SHORT_WORDS
        self._is_long_answer = n_answer >= SHORT_WORDS
        self._near_question = n_question >= _MIN_NEAR_ITEM_WORDS
        self._near_all = n_question + n_answer >= _MIN_NEAR_ITEM_WORDS
        self._max_prompts = max(_MIN_TEMPLATE_PROMPTS, max_prompts)
        self._prompts_of_gram = np.zeros(self._long.keys.size, np.int64)
        self._docs: list[Ints] = []
        self._places: list[Ints] = []

    def mark_known(self, words: Words) -> None:
        """Let the n-grams of clean documents count no more."""
        for index in (self._long, self._near):
            index.drop(index.held(words)[1])

    def add(self, words: Words, numbers: Ints, prompts: Ints) -> Iterator[PartialFind]:
        """Take in a chunk and yield its near copies.

        Args:
            words: the words of the chunk's documents.
            numbers: the number of each document in the whole list.
            prompts: a number for the prompt of each document.
        """
        docs, places = self._long.held(words)
        n_keys = max(self._long.keys.size, 1)
        seen = np.unique(prompts[docs] * n_keys + places) % n_keys
        self._prompts_of_gram += np.bincount(seen, minlength=self._prompts_of_gram.size)
        self._long.drop(np.flatnonzero(self._prompts_of_gram > self._max_prompts))
        kept = self._long.own[places]
        self._docs.append(numbers[docs[kept]])
        self._places.append(places[kept])
        yield from self._near_copies(words, numbers)

    def finish(self) -> Iterator[PartialFind]:
        """Yield the pairs with enough coverage, or a run that is long enough, over all chunks."""
        index = self._long
        if not self._docs:
            return
        docs, places = np.concatenate(self._docs), np.concatenate(self._places)
        kept = index.own[places]
        docs, places = docs[kept], places[kept]
        order = np.argsort(docs, kind="stable")
        docs, places = docs[order], places[order]
        shared = index.shared(docs, places)
        covered = self._coverage(shared.items, shared.n_question, shared.n_all)
        may_run = shared.n_all > MIN_RUN_WORDS - GRAM_WORDS
        for at in np.flatnonzero((covered > 0) | may_run).tolist():
            document, group = int(shared.docs[at]), int(shared.items[at])
            first, end = np.searchsorted(docs, [document, document + 1])
            run = index.longest_run(group, places[first:end])
            if covered[at] > 0:
                yield PartialFind(document, group, "coverage", float(covered[at]), run)
            elif run >= MIN_RUN_WORDS:
                share = shared.n_all[at] / max(1, index.sizes(index.own)[1][group])
                yield PartialFind(document, group, "run", float(share), run)

    def _coverage(self, items: Ints, n_question: Ints, n_all: Ints) -> Floats:
        """Return the coverage of each pair where it is enough, else 0."""
        best = np.zeros(items.size)
        every, own = self._long.sizes(None), self._long.sizes(self._long.own)
        for part, counted, applies in (
            (0, n_question, self._is_long_question),
            (1, n_all, self._is_long_answer),
        ):
            size = own[part][items]
            share = counted / np.maximum(size, 1)
            # An item of which boilerplate left little has to stand there with all that is left.
            little = (size < GRAM_WORDS) & (size < every[part][items])
            enough = applies[items] & (share >= np.where(little, 1.0, MIN_COVERAGE)) & (size > 0)
            best = np.where(enough, np.maximum(best, share), best)
        return best

    def _near_copies(self, words: Words, numbers: Ints) -> Iterator[PartialFind]:
        """Yield the pairs that share 80 % of an item's 3-grams, and 80 % of those that are its own."""
        index = self._near
        shared = index.shared(*index.held(words))
        own_question, own_all = (size[shared.items] for size in index.sizes(index.own))
        question = _enough(shared.n_question, own_question, self._near_question[shared.items])
        both = _enough(shared.n_all, own_all, self._near_all[shared.items])
        places = np.flatnonzero(question | both)
        if not places.size:
            return
        starts = window_starts(words, NEAR_WORDS)
        hashes, docs = window_hashes(words, starts, NEAR_WORDS), words.doc[starts]
        for at in places.tolist():
            document, group = int(shared.docs[at]), int(shared.items[at])
            first, end = np.searchsorted(docs, [document, document + 1])
            mine = np.unique(hashes[first:end])
            share = max(
                np.isin(grams, mine).mean() if flag else 0.0
                for flag, grams in (
                    (question[at], index.grams_of(group, question=True)),
                    (both[at], index.grams_of(group, question=False)),
                )
            )
            if share >= MIN_NEAR_SHARE:
                yield PartialFind(int(numbers[document]), group, "near", float(share), 0)


def _enough(counted: Ints, size: Ints, applies: Flags) -> Flags:
    return applies & (size > 0) & (counted >= MIN_NEAR_SHARE * size)
