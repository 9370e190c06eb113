"""How much of an evaluation item stands in a document, in n-grams of words; boilerplate does not count.

An n-gram that more than five items share says nothing about any of them, and neither does one that is
marked as known. What is left of an item are its *own* grams. Counting is done on arrays for many documents
at once; nothing is estimated.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from rdagent_ft.data.overlap_words import U64, Flags, Ints, Words, window_hashes, window_starts
from rdagent_ft.data.phrase_index import is_in

MAX_ITEMS_PER_GRAM = 5


class Shared(NamedTuple):
    """Pairs of document and item that share own grams, and how many, in the question and in all."""

    docs: Ints
    items: Ints
    n_question: Ints
    n_all: Ints


class GramIndex:
    """The n-grams of evaluation items.

    Attributes:
        n_words: words of a gram.
        keys: all distinct grams of the items, sorted.
        own: which of them count.
    """

    def __init__(self, words: Words, question_ends: Ints, n_items: int, n_words: int) -> None:
        """Index the items that `words` holds as documents.

        Args:
            words: question and answer of every item as one document.
            question_ends: where in `words` the question of each item ends.
            n_items: number of items; some may have no word.
            n_words: words of a gram.
        """
        self.n_words = n_words
        self.n_items = n_items
        starts = window_starts(words, n_words)
        self.keys, places = np.unique(window_hashes(words, starts, n_words), return_inverse=True)
        item_of = words.doc[starts]
        self._sequence, self._sequence_items = places.astype(np.int64), item_of
        in_question = starts + n_words <= question_ends[item_of]
        # One posting a gram and item; it stands in the question when any of its places does.
        codes, first = np.unique(self._sequence * n_items + item_of, return_inverse=True)
        self._key_of, self._item_of = np.divmod(codes, max(n_items, 1))
        self._in_question = np.bincount(first, weights=in_question, minlength=codes.size) > 0
        self._bounds = np.searchsorted(self._key_of, np.arange(self.keys.size + 1))
        self.own = np.diff(self._bounds) <= MAX_ITEMS_PER_GRAM

    def drop(self, places: Ints) -> None:
        """Let these keys count no more."""
        self.own[places] = False

    def held(self, words: Words) -> tuple[Ints, Ints]:
        """Return (document, place of key) for every own gram of the items in `words`, each pair once."""
        starts = window_starts(words, self.n_words)
        hashes = window_hashes(words, starts, self.n_words)
        known = is_in(hashes, self.keys)
        places = np.searchsorted(self.keys, hashes[known])
        docs = words.doc[starts[known]]
        own = self.own[places]
        codes = np.unique(docs[own] * max(self.keys.size, 1) + places[own])
        docs, places = np.divmod(codes, max(self.keys.size, 1))
        return docs, places

    def shared(self, docs: Ints, places: Ints) -> Shared:
        """Return the pairs that share grams, from what `held` found; grams that do not count are left out."""
        own = self.own[places]
        docs, places = docs[own], places[own]
        n_items = self._bounds[places + 1] - self._bounds[places]
        ends = np.cumsum(n_items)
        posting: Ints = np.arange(int(n_items.sum())) + np.repeat(
            self._bounds[places] - (ends - n_items), n_items
        )
        pairs = np.repeat(docs, n_items) * max(self.n_items, 1) + self._item_of[posting]
        codes, first = np.unique(pairs, return_inverse=True)
        n_question = np.bincount(first, weights=self._in_question[posting], minlength=codes.size)
        n_all = np.bincount(first, minlength=codes.size)
        docs, items = np.divmod(codes, max(self.n_items, 1))
        return Shared(docs, items, n_question.astype(np.int64), n_all.astype(np.int64))

    def sizes(self, own: Flags | None) -> tuple[Ints, Ints]:
        """Return the number of grams of each item: of its question, and of all; of own ones if given."""
        counted = np.ones(self._key_of.size, np.bool_) if own is None else own[self._key_of]
        items, in_question = self._item_of[counted], self._in_question[counted]
        return (
            np.bincount(items[in_question], minlength=self.n_items),
            np.bincount(items, minlength=self.n_items),
        )

    def grams_of(self, item: int, *, question: bool) -> U64:
        """Return the distinct grams of an item, or of its question, sorted."""
        order, bounds = self._by_item
        mine = order[bounds[item] : bounds[item + 1]]
        if question:
            mine = mine[self._in_question[mine]]
        return self.keys[self._key_of[mine]]

    @cached_property
    def _by_item(self) -> tuple[Ints, Ints]:
        """Return the postings in the order of their items, and where each item begins."""
        order = np.argsort(self._item_of, kind="stable")
        return order, np.searchsorted(self._item_of[order], np.arange(self.n_items + 1))

    def longest_run(self, item: int, held: Ints) -> int:
        """Return how many words in a row of an item are covered by the given own grams; 0 for none."""
        first, end = np.searchsorted(self._sequence_items, [item, item + 1])
        sequence = self._sequence[first:end]
        hit = np.isin(sequence, held) & self.own[sequence]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hit.astype(np.int8), [0]])))
        longest = int((edges[1::2] - edges[::2]).max(initial=0))
        return longest + self.n_words - 1 if longest else 0
