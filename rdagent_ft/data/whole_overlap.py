"""Evaluation questions that stand whole in a training document.

Long questions count wherever they stand. Short ones are ordinary phrases too often: they have to stand
by themselves, with the same marks of arithmetic, or with their answer attached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from rdagent_ft.data.eval_items import SHORT_WORDS, Group, Question, attached_phrases, distinct_questions
from rdagent_ft.data.overlap_words import WordReader, Words, signed_words
from rdagent_ft.data.phrase_index import Phrase, PhraseIndex


class Document(NamedTuple):
    """One training row: what is asked (turns), and what is trained. `answer` may be empty."""

    prompt: tuple[str, ...]
    answer: str

    @property
    def turns(self) -> tuple[str, ...]:
        """All turns in order."""
        return (*self.prompt, self.answer)


class WholeFind(NamedTuple):
    """A group of items whose question stands in a document (by its number in the words searched)."""

    document: int
    group: int
    reason: Literal["exact", "short", "answer"]


class WholeOverlap:
    """The questions of all groups, alone and with their answers attached."""

    def __init__(self, groups: Sequence[Group], reader: WordReader) -> None:
        self._groups = groups
        self._reader = reader
        self._questions = distinct_questions(groups)
        self._meaning: list[int] = []
        self._alone: set[int] = {
            number for number, question in enumerate(self._questions) if not question.is_shared
        }
        self._index()

    def mark_known(self, words: Words) -> None:
        """Let the questions in clean documents prove nothing without their answers."""
        _, phrases = self._phrases.find(words)
        self._alone -= {self._meaning[phrase] for phrase in phrases.tolist() if phrase < self._n_alone}
        self._index()

    def find(self, words: Words, documents: Sequence[Document]) -> Iterator[WholeFind]:
        """Yield what stands in `documents`, whose words are `words`; a pair may come with two reasons."""
        signed = _Signed(documents)
        found, phrases = self._phrases.find(words)
        finds: list[tuple[int, int]] = list(zip(found.tolist(), phrases.tolist(), strict=True))
        for document, phrase in finds:
            if phrase < self._n_alone:
                yield from self._questions_in(signed, document, self._questions[self._meaning[phrase]])
            elif self._is_attached(signed, document, self._groups[self._meaning[phrase]]):
                yield WholeFind(document, self._meaning[phrase], "answer")

    def _index(self) -> None:
        """Make the phrases: questions that prove something alone, then questions with answers."""
        alone = sorted(self._alone)
        phrases = [Phrase((self._questions[n].text,), self._questions[n].where) for n in alone]
        self._n_alone = len(alone)
        self._meaning = list(alone)
        for number, question in enumerate(self._questions):
            if number not in self._alone or question.where != "anywhere":
                for group in question.groups:
                    attached = attached_phrases(self._groups[group])
                    phrases += attached
                    self._meaning += [group] * len(attached)
        self._phrases = PhraseIndex(phrases, self._reader)

    def _questions_in(self, signed: _Signed, document: int, question: Question) -> Iterator[WholeFind]:
        if question.n_words >= SHORT_WORDS:
            yield from (WholeFind(document, group, "exact") for group in question.groups)
            return
        same_marks = signed.holds(document, question.text, whole_turn=question.where == "turn")
        for group in question.groups:
            if same_marks:
                yield WholeFind(document, group, "short")
            elif signed.is_answer(document, self._groups[group].answer):
                yield WholeFind(document, group, "answer")

    def _is_attached(self, signed: _Signed, document: int, group: Group) -> bool:
        if group.n_question >= SHORT_WORDS:
            return True
        return signed.holds(document, group.question) and signed.holds(document, group.answer)


class _Signed:
    """Documents with their marks of arithmetic, made when asked for."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = documents
        self._turns: dict[int, tuple[str, ...]] = {}

    def holds(self, document: int, text: str, *, whole_turn: bool = False) -> bool:
        """Return whether `text` stands in the document, or is one of the turns of its prompt."""
        turns, wanted = self._of(document), signed_words(text)
        if whole_turn:
            return wanted in turns[:-1]
        return any(wanted in turn for turn in turns) or wanted in " ".join(turns).replace("   ", " ")

    def is_answer(self, document: int, text: str) -> bool:
        """Return whether the document's answer is `text`."""
        return self._of(document)[-1] == signed_words(text) != "  "

    def _of(self, document: int) -> tuple[str, ...]:
        if document not in self._turns:
            self._turns[document] = tuple(map(signed_words, self._documents[document].turns))
        return self._turns[document]
