"""Finds training rows that repeat an evaluation item, for rows that were made after the split.

`split.py` keeps whole groups of near-duplicates apart, but a data script may write rows that were never
in the dataset, benchmark items from an LLM's memory among them. Each new row is compared directly with
each held-out item; groups are not used, because a chain of similar rows would drag rows of the train
split along. Paraphrases are not found: that needs a model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from rdagent_ft.data.near_duplicates import normalise, normalised_text, word_grams
from rdagent_ft.data.rows import Row

THRESHOLD = 0.8


def held_out_copies(rows: Sequence[Row], held_out: Sequence[Row], train: Sequence[Row]) -> set[str]:
    """Return the item ids of the rows that repeat a held-out item.

    A row that stands in the train split is never one: the split has judged it. Any other row is one when

    - its text, its prompt or its last user turn equals a held-out one (case and spacing aside), or
    - its word 3-grams and those of a whole held-out item have a Jaccard similarity of 0.8 or more, or
    - it holds 0.8 or more of the 3-grams of a held-out prompt or last user turn, wherever they stand.

    A prompt that the train split has too (an instruction common to the dataset), or that some train row
    holds to that degree (a template), is no evidence and is not used as a prompt. Prompts and items of
    fewer than 8 words are compared by equality only. About 0.1 ms a row of 100 words.

    Args:
        rows: the new rows.
        held_out: items of dev, val, test and benchmarks.
        train: the train split.
    """
    own_ids = {row.item_id for row in train}
    own_prompts = {prompt for row in train for prompt in _prompts(row)}
    texts = {normalised_text(row) for row in held_out}
    prompts = {prompt for row in held_out for prompt in _prompts(row)} - own_prompts
    whole = _GramIndex(texts)
    asked = _GramIndex(prompts)
    for row in train:
        asked.forget(place for place, _ in asked.held_by(word_grams(normalised_text(row))))
    found: set[str] = set()
    for row in rows:
        if row.item_id in own_ids or row.item_id in found:
            continue
        text = normalised_text(row)
        if text in texts or not prompts.isdisjoint(_prompts(row)):
            found.add(row.item_id)
            continue
        grams = word_grams(text)
        if asked.held_by(grams) or any(
            n_shared >= THRESHOLD * (len(grams) + whole.size(place) - n_shared)
            for place, n_shared in whole.held_by(grams)
        ):
            found.add(row.item_id)
    return found


def _prompts(row: Row) -> set[str]:
    """Return the whole prompt and its last user turn, which a long system turn must not hide."""
    asked = next((turn.content for turn in reversed(row.prompt) if turn.role == "user"), "")
    return {normalise(row.prompt_text), normalise(asked)}


class _GramIndex:
    """Texts as sets of word 3-grams, to find those that another set holds to `THRESHOLD` or more.

    Exact: a set that shares 80 % of a text's grams shares at least one of any fifth of them and one
    more, so only the rarest fifth of each text is looked up.
    """

    def __init__(self, texts: Collection[str]) -> None:
        # Sorted, and grams by count and then text: nothing may depend on Python's hash seed.
        self._grams = [grams for grams in map(word_grams, sorted(texts)) if grams]
        counts = Counter(gram for grams in self._grams for gram in grams)
        self._rare = [
            sorted(grams, key=lambda gram: (counts[gram], gram))[
                : int((1 - THRESHOLD) * len(grams) + 1e-9) + 1
            ]
            for grams in self._grams
        ]
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, rare in enumerate(self._rare):
            for gram in rare:
                self._places[gram].append(place)

    def size(self, place: int) -> int:
        """Return how many grams a text has."""
        return len(self._grams[place])

    def held_by(self, grams: Collection[str]) -> list[tuple[int, int]]:
        """Return (place, shared grams) of every text whose grams are in `grams` to the threshold."""
        places = {place for gram in grams if gram in self._places for place in self._places[gram]}
        shared = ((place, len(self._grams[place].intersection(grams))) for place in sorted(places))
        return [(place, n) for place, n in shared if n >= THRESHOLD * len(self._grams[place])]

    def forget(self, places: Iterable[int]) -> None:
        """Leave texts out of later answers."""
        for place in places:
            for gram in self._rare[place]:
                self._places[gram].remove(place)
