"""How many rows say nearly the same, counted in one pass and bounded memory.

MinHash over word 3-grams (32-bit hashes) proposes pairs; a pair counts when the Jaccard similarity of the
3-grams reaches the threshold. Texts of up to 256 different 3-grams are compared exactly, longer ones by
their 256 smallest hashes (standard error 0.025 at 0.8). Splits use `near_duplicates.py`, which compares
everything exactly and needs more memory.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

from rdagent_ft.data.near_duplicates import MIN_WORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint32]
    Keys = NDArray[np.uint64]

THRESHOLD = 0.8
MAX_TEXTS = 500_000
"""Further texts are not compared: this many need about 0.7 GB."""

_N_BANDS = 16
_BAND_WIDTH = 5
_SKETCH = 256
_WINDOW = 4
# Small enough for a batch to stay in the processor's cache.
_BATCH = 200
_N_EXAMPLES = 5
_MAX_WORDS_KEPT = 500_000
# As in `near_duplicates.py`: scripts without spaces give one word a character.
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")


class _WordHashes(dict[str, int]):
    """CRC-32 of words, remembered: a few thousand words make most of any text."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_WORDS_KEPT:
            self.clear()
        self[word] = found = zlib.crc32(word.encode())
        return found


class NearCounter:
    """Takes normalised texts one by one; `finish` counts groups. Exact copies stay with the caller."""

    def __init__(self) -> None:
        import numpy as np

        random = np.random.default_rng(1)
        n_hashes = _N_BANDS * _BAND_WIDTH
        # An odd factor permutes the 32-bit hashes, which are well mixed before.
        self._factors = random.integers(1, 2**31, n_hashes, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._mixers = random.integers(1, 2**63, _BAND_WIDTH, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._words = _WordHashes()
        self._sketches: list[Hashes] = []
        self._places: list[str] = []
        self._keys: list[Keys] = []
        self._pending: list[Hashes] = []
        self.n_left_out = 0

    @property
    def n_compared(self) -> int:
        """Texts that are compared with each other: those of at least eight words, up to the limit."""
        return len(self._places)

    def add(self, normalised: str, place: str) -> None:
        """Take one text; `place` names it in the examples."""
        import numpy as np

        words = (normalised if normalised.isascii() else _CJK.sub(r" \1 ", normalised)).split()
        if len(words) < MIN_WORDS:
            return
        if len(self._places) >= MAX_TEXTS:
            self.n_left_out += 1
            return
        hashes = np.fromiter(map(self._words.__getitem__, words), dtype=np.uint64, count=len(words))
        mixed = hashes[:-2] * self._mixers[0] + hashes[1:-1] * self._mixers[1] + hashes[2:] * self._mixers[2]
        found = np.sort((mixed >> np.uint64(32)).astype(np.uint32))
        found = found[np.concatenate(([True], found[1:] != found[:-1]))]
        self._pending.append(found)
        self._sketches.append(found[:_SKETCH].copy())
        self._places.append(place)
        if len(self._pending) >= _BATCH:
            self._flush()

    def finish(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Return the number of rows beyond the first of each group, and example pairs of places."""
        import numpy as np

        self._flush()
        if len(self._places) < 2:
            return 0, ()
        parent = list(range(len(self._places)))
        examples: list[tuple[str, str]] = []
        keys = np.concatenate(self._keys)
        for band in range(_N_BANDS):
            for left, right in _neighbours(keys[:, band]):
                one, other = _root(parent, left), _root(parent, right)
                if one == other or not _similar(self._sketches[left], self._sketches[right]):
                    continue
                parent[max(one, other)] = min(one, other)
                if len(examples) < _N_EXAMPLES:
                    first, second = sorted((left, right))
                    examples.append((self._places[first], self._places[second]))
        n_groups = sum(_root(parent, index) == index for index in range(len(parent)))
        return len(parent) - n_groups, tuple(examples)

    def _flush(self) -> None:
        """Turn the pending 3-grams into band keys, all texts of the batch in one go."""
        import numpy as np

        if not self._pending:
            return
        starts = np.cumsum([0, *(part.size for part in self._pending[:-1])])
        grams = np.concatenate(self._pending)
        keys = np.zeros((len(self._pending), _N_BANDS), dtype=np.uint64)
        for number, factor in enumerate(self._factors):
            smallest = np.minimum.reduceat(grams * factor, starts)
            band, place = divmod(number, _BAND_WIDTH)
            keys[:, band] += smallest * self._mixers[place]
        self._keys.append(keys)
        self._pending = []


def _neighbours(keys: Keys) -> list[tuple[int, int]]:
    """Return pairs of rows with the same key; in a crowd each row meets its next neighbours only."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    pairs: list[tuple[int, int]] = []
    for step in range(1, min(_WINDOW, keys.size - 1) + 1):
        same = np.flatnonzero(ranked[step:] == ranked[:-step])
        if same.size == 0:
            break
        pairs += zip(order[same].tolist(), order[same + step].tolist(), strict=True)
    return pairs


def _similar(one: Hashes, other: Hashes) -> bool:
    """Return whether two sketches are similar; the smallest hashes of the union are a sample of it."""
    import numpy as np

    union: Any = np.union1d(one, other)
    if one.size == _SKETCH or other.size == _SKETCH:
        union = union[:_SKETCH]
    shared = np.intersect1d(np.intersect1d(one, other, assume_unique=True), union, assume_unique=True)
    return bool(shared.size >= THRESHOLD * union.size)


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
