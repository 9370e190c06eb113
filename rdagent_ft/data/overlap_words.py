"""Texts as words, and words as 64-bit numbers, so that shared phrases are found by array operations.

Two forms of a text. *Words* are letters and digits only: case, punctuation, spacing, accents and
invisible marks do not count. *Signed words* keep the marks of arithmetic too (`3 - 4` is not `3 + 4`); only
short texts need them. Numbers come from BLAKE2, so they are equal in every process. What is done with
the words is in `overlap_index.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Scripts that write no spaces give one word a character.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[.?!:;\n]+")
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
# Sentence punctuation, quotes, brackets and what only formats (LaTeX, Markdown) say nothing.
_SIGNED = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[^\w\s.,;:?!\"'()\[\]{{}}$\\&#@*|~`_]")
_WORD_JOINT = re.compile(r"(?<=[^\W\d_])\s*[-/]+\s*(?=[^\W\d_])")
# Drawing code of competition problems: the same axes and grids for any of them.
_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.IGNORECASE | re.DOTALL)
# LaTeX that only lays out: collections of the same problems differ in it.
_LAYOUT = re.compile(
    r"\\(?:begin|end)\s*\{(?:equation|align|aligned|alignat|gather|gathered|split|multline|array|center)\*?\}"
    r"|\\(?:left|right|bigl?|bigr?|displaystyle|textstyle|limits|quad|qquad|text|textrm|mathrm)(?![a-z])",
    re.IGNORECASE,
)
_LATEX_TWINS = re.compile(r"\\(?:(?P<dots>[cl]?dots)|[dt](?P<frac>frac|binom))(?![a-z])", re.IGNORECASE)
_NO_TEXT = re.compile(
    r"[\u0300-\u036f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
)
_PLAIN = str.maketrans(
    dict.fromkeys("‐‑‒–−﹣－", "-") | dict.fromkeys("×⋅·", " ") | {"÷": "/", "∕": "/", "⁄": "/"}
)
# Numbers below every word's: the end of a sentence, of a line or label, and the start of a turn.
_SENTENCE, _LINE, _TURN = 1, 2, 3
_MAX_CACHED = 2_000_000
_BASE = 0x9E3779B97F4A7C15 | 1


class Words(NamedTuple):
    """The words of many documents in one line, and where documents, turns, lines and sentences begin.

    Attributes:
        hashes: one number a word.
        doc: document of each word, never falling.
        turn, line, sentence: running number of the turn, the line (or what follows a label such as
            `Question:`) and the sentence of each word.
        prefix: prefix sums for `window_hashes`; one longer than `hashes`.
    """

    hashes: U64
    doc: Ints
    turn: Ints
    line: Ints
    sentence: Ints
    prefix: U64


def plain(text: str) -> str:
    """Return `text` in one case, without accents, invisible marks, figures and layout; lines stay."""
    if "[/" in text:
        text = _FIGURE.sub("\n", text)
    if "\\" in text:
        text = _LATEX_TWINS.sub(_one_spelling, _LAYOUT.sub(" ", text))
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", text.upper().casefold()).casefold()
    return unicodedata.normalize("NFC", _NO_TEXT.sub("", folded)).translate(_PLAIN)


def _one_spelling(found: re.Match[str]) -> str:
    return " dots" if found["dots"] else f" {found['frac']}"


def words_of(text: str) -> list[str]:
    """Return the words: runs of letters and digits."""
    return _WORD.findall(plain(text))


def signed_words(text: str) -> str:
    """Return the words and the marks of arithmetic, with a space around each; a hyphen joins no words."""
    return f" {' '.join(_SIGNED.findall(_WORD_JOINT.sub(' ', plain(text))))} "


class WordReader:
    """Turns documents into `Words`; remembers the numbers of words that it has seen."""

    def __init__(self) -> None:
        self._numbers = _Numbers()

    def read(self, documents: Iterable[Sequence[str]]) -> Words:
        """Return the words of documents; each is a sequence of turns."""
        tokens: list[int] = []
        sizes: list[int] = []
        number = self._numbers.__getitem__
        for turns in documents:
            before = len(tokens)
            for turn in turns:
                tokens.append(_TURN)
                tokens.extend(map(number, _TOKEN.findall(plain(turn))))
            sizes.append(len(tokens) - before)
        self._numbers.bound()
        values = np.array(tokens, dtype=np.uint64)
        words = values > _TURN
        hashes = values[words]
        return Words(
            hashes=hashes,
            doc=np.repeat(np.arange(len(sizes)), sizes)[words],
            turn=np.cumsum(values == _TURN, dtype=np.int64)[words],
            line=np.cumsum((values == _TURN) | (values == _LINE), dtype=np.int64)[words],
            sentence=np.cumsum(~words, dtype=np.int64)[words],
            prefix=np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * _powers(hashes.size)[0])]),
        )


def window_hashes(words: Words, starts: Ints, length: int) -> U64:
    """Return a number for the `length` words from each start; equal words give equal numbers.

    The starts have to leave room: `starts + length <= len(words.hashes)`.
    """
    sums = words.prefix[starts + length] - words.prefix[starts]
    return sums * _powers(words.hashes.size)[1][starts]


def window_starts(words: Words, length: int) -> Ints:
    """Return every place where `length` words of one document begin."""
    n_starts = words.hashes.size - length + 1
    if n_starts <= 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(words.doc[:n_starts] == words.doc[length - 1 :])


class _Numbers(dict[str, int]):
    """Token -> 64-bit number; punctuation that ends something has the small ones."""

    def __missing__(self, token: str) -> int:
        if token[0] in ".?!:;\n":
            number = _LINE if "\n" in token or ":" in token else _SENTENCE
        else:
            digest = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            number = max(int.from_bytes(digest, "little"), _TURN + 1)
        self[token] = number
        return number

    def bound(self) -> None:
        """Forget everything when there is too much of it."""
        if len(self) > _MAX_CACHED:
            self.clear()


_tables: list[U64] = []


def _powers(size: int) -> tuple[U64, U64]:
    """Return at least `size` powers of the base and of its inverse, modulo 2**64."""
    if not _tables or _tables[0].size < size:
        n_powers = max(1 << 16, 1 << size.bit_length())
        inverse = pow(_BASE, -1, 1 << 64)
        factors = np.array([[_BASE], [inverse]], dtype=np.uint64).repeat(n_powers, axis=1)
        factors[:, 0] = 1
        _tables[:] = np.cumprod(factors, axis=1, dtype=np.uint64)
    return _tables[0][:size], _tables[1][:size]
