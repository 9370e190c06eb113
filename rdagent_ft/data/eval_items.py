"""Evaluation items as the contamination check compares them: distinct questions with their answers.

Equal items of several files are compared once. Lines that a file adds to its questions ("Put the final
answer in a box") are taken off, because training data rarely has them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from rdagent_ft.data.overlap_words import words_of
from rdagent_ft.data.phrase_index import Phrase, Where

SHORT_WORDS = 13
"""Questions with fewer words have no 13-gram and are compared whole."""

MAX_SHARING = 5
"""What more items than this have in common says nothing about any of them."""

_FREE_WORDS = 8
_TURN_WORDS = 3
_MIN_ATTACHED_WORDS = 4
_MAX_LABELLED_WORDS = 20
_LABELS = ((), ("a",), ("answer",), ("the answer is",))


class EvalItem(NamedTuple):
    """One item that a score rests on. `answer` is empty where it is not known."""

    item_id: str
    source: str
    question: str
    answer: str


class Group(NamedTuple):
    """Items that are equal but for punctuation and case. `items` are their numbers."""

    question: str
    answer: str
    n_question: int
    n_answer: int
    items: tuple[int, ...]


class Question(NamedTuple):
    """A distinct question, and the numbers of the groups that ask it."""

    text: str
    n_words: int
    groups: tuple[int, ...]

    @property
    def where(self) -> Where:
        """How the question has to stand in a document: the shorter, the more by itself."""
        if self.n_words >= _FREE_WORDS:
            return "anywhere"
        return "line" if self.n_words > _TURN_WORDS else "turn"

    @property
    def is_shared(self) -> bool:
        """Whether so many items ask it that it identifies none."""
        return len(self.groups) > MAX_SHARING


def group_items(items: Sequence[EvalItem]) -> list[Group]:
    """Return the distinct items; those without a word are left out."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    stripped = without_shared_lines(items)
    for number, item in enumerate(stripped):
        numbers[" ".join(words_of(item.question)), " ".join(words_of(item.answer))].append(number)
    return [
        Group(
            stripped[same[0]].question,
            stripped[same[0]].answer,
            question.count(" ") + 1,
            answer.count(" ") + 1 if answer else 0,
            tuple(same),
        )
        for (question, answer), same in numbers.items()
        if question
    ]


def distinct_questions(groups: Sequence[Group]) -> list[Question]:
    """Return the questions of groups, each once."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        numbers[" ".join(words_of(group.question))].append(number)
    return [
        Question(groups[same[0]].question, groups[same[0]].n_question, tuple(same))
        for same in numbers.values()
    ]


def without_shared_lines(items: Sequence[EvalItem]) -> list[EvalItem]:
    """Return the items without first and last lines that most items of their source share.

    Most: at least half of the source's distinct questions, and more than five. A question keeps a line.
    """
    by_source: dict[str, set[str]] = defaultdict(set)
    for item in items:
        by_source[item.source].add(item.question)
    shared: dict[str, set[str]] = {}
    for source, questions in by_source.items():
        counts = Counter(line for question in questions for line in set(_lines(question)))
        least = max(MAX_SHARING + 1, len(questions) / 2)
        shared[source] = {line for line, count in counts.items() if count >= least}
    return [item._replace(question=_stripped(item.question, shared[item.source])) for item in items]


def attached_phrases(group: Group) -> list[Phrase]:
    """Return the question directly followed by its answer, also with the usual words between."""
    if not group.n_answer or group.n_question + group.n_answer < _MIN_ATTACHED_WORDS:
        return []
    where: Where = "attached" if group.n_question < _FREE_WORDS else "anywhere"
    labels = _LABELS if group.n_answer <= _MAX_LABELLED_WORDS else ((),)
    return [Phrase((group.question, *label, group.answer), where) for label in labels]


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line]


def _stripped(question: str, shared: set[str]) -> str:
    lines = _lines(question) if shared else []
    first, end = 0, len(lines)
    while first < end and lines[first] in shared:
        first += 1
    while end > first and lines[end - 1] in shared:
        end -= 1
    return "\n".join(lines[first:end]) if 0 < end - first < len(lines) else question
