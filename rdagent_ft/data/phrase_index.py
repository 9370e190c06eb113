"""Finds whole phrases of any length in documents: the questions of evaluation items.

A phrase is looked for by its first words, and its hash is computed only where these stand. How much a
place proves depends on the length of the phrase, see `Where`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from rdagent_ft.data.overlap_words import U64, Flags, Ints, WordReader, Words, window_hashes, window_starts

Where = Literal["anywhere", "line", "turn", "attached"]
"""`anywhere`; `line`: as a whole line or what follows a label; `turn`: as a whole turn; `attached`: inside
one turn, or from the start of a sentence."""

_ANCHORS = (1, 2, 3, 8)


class Phrase(NamedTuple):
    """Words to look for: turns that follow each other, and what must surround them."""

    turns: tuple[str, ...]
    where: Where


class _OneLength(NamedTuple):
    """All phrases of one number of words, sorted by hash."""

    hashes: U64
    numbers: Ints
    where: Ints


_WHERE: tuple[Where, ...] = ("anywhere", "line", "turn", "attached")


class PhraseIndex:
    """Phrases by length and hash. Phrases without a word are never found."""

    def __init__(self, phrases: Sequence[Phrase], reader: WordReader) -> None:
        words = reader.read(phrase.turns for phrase in phrases)
        lengths = np.bincount(words.doc, minlength=len(phrases))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])[:-1]
        where = np.array([_WHERE.index(phrase.where) for phrase in phrases], dtype=np.int64)
        self._by_length: dict[int, _OneLength] = {}
        self._anchors: dict[int, U64] = {}
        for length in sorted(set(lengths[lengths > 0].tolist())):
            numbers = np.flatnonzero(lengths == length)
            hashes = window_hashes(words, starts[numbers], length)
            order = np.argsort(hashes, kind="stable")
            self._by_length[length] = _OneLength(hashes[order], numbers[order], where[numbers[order]])
        for anchor in _ANCHORS:
            numbers = np.flatnonzero((lengths > 0) & (_anchor_lengths(lengths) == anchor))
            if numbers.size:
                self._anchors[anchor] = np.unique(window_hashes(words, starts[numbers], anchor))

    def find(self, words: Words) -> tuple[Ints, Ints]:
        """Return the documents and the phrase numbers of all finds; each pair once, sorted."""
        docs: list[Ints] = [np.zeros(0, np.int64)]
        numbers: list[Ints] = [np.zeros(0, np.int64)]
        for anchor, known in self._anchors.items():
            places = window_starts(words, anchor)
            places = places[is_in(window_hashes(words, places, anchor), known)]
            for length in (length for length in self._by_length if _anchor_length(length) == anchor):
                found, phrase_numbers = _find_length(words, places, length, self._by_length[length])
                docs.append(words.doc[found])
                numbers.append(phrase_numbers)
        pairs = np.unique(np.stack([np.concatenate(docs), np.concatenate(numbers)]), axis=1)
        return pairs[0], pairs[1]


def is_in(values: U64, known: U64) -> Flags:
    """Return which values stand in the sorted array `known`."""
    if not known.size:
        return np.zeros(values.size, np.bool_)
    at = np.searchsorted(known, values)
    at[at == known.size] = 0
    return known[at] == values


def _anchor_length(length: int) -> int:
    return max(anchor for anchor in _ANCHORS if anchor <= length)


def _anchor_lengths(lengths: Ints) -> Ints:
    anchors = np.array(_ANCHORS)
    return anchors[np.maximum(np.searchsorted(anchors, lengths, side="right") - 1, 0)]


def _find_length(words: Words, places: Ints, length: int, phrases: _OneLength) -> tuple[Ints, Ints]:
    """Return the places where a phrase of this length stands as it has to, and which one."""
    n_words = words.hashes.size
    places = places[places + length <= n_words]
    places = places[words.doc[places] == words.doc[places + length - 1]]
    hashes = window_hashes(words, places, length)
    first = np.searchsorted(phrases.hashes, hashes, side="left")
    n_equal = np.searchsorted(phrases.hashes, hashes, side="right") - first
    found = np.repeat(places, n_equal)
    within = np.arange(found.size) - np.repeat(np.cumsum(n_equal) - n_equal, n_equal)
    at = np.repeat(first, n_equal) + within
    where = phrases.where[at]
    one_turn = words.turn[found] == words.turn[found + length - 1]
    fits = (
        (where == 0)
        | ((where == 1) & _begins(words.line, found) & _ends(words.line, found + length))
        | ((where == 2) & _begins(words.turn, found) & _ends(words.turn, found + length))
        | ((where == 3) & (one_turn | _begins(words.sentence, found)))
    )
    return found[fits], phrases.numbers[at[fits]]


def _begins(part: Ints, starts: Ints) -> Flags:
    """Return where a part (a turn, a line, a sentence) begins at the start of a window."""
    return (starts == 0) | (part[starts] != part[starts - 1])


def _ends(part: Ints, ends: Ints) -> Flags:
    """Return where a part ends before the place after a window."""
    return (ends == part.size) | (part[ends - 1] != part[np.minimum(ends, part.size - 1)])
