"""The contamination check: what it always finds, what it never flags, and that it equals plain counting."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.data.contamination import Overlap, find_overlaps
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.whole_overlap import Document

WORDS = [
    f"{first}{second}" for first in ("ka", "lo", "mi", "nu", "pe") for second in ("ra", "so", "ti", "vu")
]
OTHER = [f"{word}x" for word in WORDS]
TAIL = "Reason step by step, and put your final answer within \\boxed{}, as a single number please."


def item(question: str, answer: str = "", source: str = "bench") -> EvalItem:
    return EvalItem(f"{source}:{question[:20]}", source, question, answer)


def doc(*prompt: str, answer: str = "fine") -> Document:
    return Document(prompt, answer)


def text(seed: int, n_words: int, words: list[str] = WORDS) -> str:
    return " ".join(random.Random(seed).choices(words, k=n_words))


def numbered(prefix: str, n_words: int) -> str:
    """A text whose words stand nowhere else."""
    return " ".join(f"{prefix}{n}" for n in range(n_words))


def reasons(documents: list[Document], items: list[EvalItem]) -> dict[tuple[int, int], str]:
    return {(found.document, found.item): found.reason for found in find_overlaps(documents, items)}


def leaks(documents: list[Document], items: list[EvalItem]) -> set[tuple[int, int]]:
    return {(o.document, o.item) for o in find_overlaps(documents, items) if o.is_leak}


def respelled(words: list[str], rng: random.Random) -> str:
    """The same words with other case, sentence punctuation and spacing."""
    spelled = [rng.choice([word, word.upper(), word.title()]) for word in words]
    gaps = [" ", "  ", ", ", "! ", "\t", " (", '" ', "... ", "** "]
    return "".join(word + rng.choice(gaps) for word in spelled)


@given(st.integers(0, 10_000), st.integers(1, 80), st.booleans())
def test_a_respelled_copy_is_always_found(seed: int, n_words: int, hidden: bool) -> None:
    """As a turn of its own; from eight words on also inside a longer row, in question or answer."""
    rng = random.Random(seed)
    question = text(seed, n_words)
    copy = respelled(question.split(), rng)
    if hidden and n_words >= 8:
        around = text(seed + 1, 30, OTHER), text(seed + 2, 30, OTHER)
        copy = f"{around[0]} {copy} {around[1]}"
        rows = [doc("Go on", answer=copy), doc(copy)]
    else:
        rows = [doc(copy), doc("Be kind.", copy)]
    fillers = [doc(text(seed + n, 40, OTHER)) for n in range(3, 9)]
    items = [item(question), item(text(seed + 50, 25))]
    assert {(0, 0), (1, 0)} <= leaks([*rows, *fillers], items)


@given(
    st.integers(0, 10_000), st.lists(st.integers(0, 60), max_size=8), st.lists(st.integers(0, 60), max_size=8)
)
def test_rows_of_other_words_are_never_found(seed: int, rows: list[int], items: list[int]) -> None:
    documents = [doc(text(seed + n, size), answer=text(seed - n, size)) for n, size in enumerate(rows)]
    asked = [item(text(seed + n, size, OTHER), text(n, 3, OTHER)) for n, size in enumerate(items)]
    assert find_overlaps(documents, asked) == []


@given(st.integers(0, 10_000))
def test_order_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    words = WORDS[: rng.randint(4, 20)]
    items = [
        item(text(seed + n, rng.randint(1, 40), words), text(n, rng.randint(0, 4), words)) for n in range(8)
    ]
    documents = [doc(text(seed - n, rng.randint(1, 60), words), answer=text(n, 5, words)) for n in range(8)]
    documents += [doc(rng.choice(items).question, answer=text(n, 3, words)) for n in range(6)]

    def by_text(documents: list[Document], items: list[EvalItem]) -> list[tuple[object, ...]]:
        found = find_overlaps(documents, items)
        return sorted(
            (documents[o.document], items[o.item], o.reason, o.coverage, o.run_words, o.answer_attached)
            for o in found
        )

    shuffled = rng.sample(documents, len(documents)), rng.sample(items, len(items))
    assert by_text(*shuffled) == by_text(documents, items)


@given(st.integers(0, 10_000), st.integers(13, 60), st.floats(0.0, 0.3))
def test_it_finds_what_counting_finds(seed: int, n_words: int, share: float) -> None:
    """13-grams in plain Python sets, without boilerplate: few items, few rows."""
    rng = random.Random(seed)
    asked = [text(seed + n, n_words).split() for n in range(3)]
    rows = [[rng.choice(OTHER) if rng.random() < share else word for word in words] for words in asked]
    found = {(o.document, o.item): o for o in find_overlaps([doc(" ".join(r), answer="") for r in rows], [
        item(" ".join(words)) for words in asked])}  # fmt: skip

    def grams(words: list[str]) -> list[tuple[str, ...]]:
        return [tuple(words[at : at + 13]) for at in range(len(words) - 12)]

    for r, row in enumerate(rows):
        for a, words in enumerate(asked):
            held = [gram in set(grams(row)) for gram in grams(words)]
            distinct = set(grams(words))
            coverage = len(distinct & set(grams(row))) / len(distinct)
            run = max((len(piece) for piece in "".join("x" if h else " " for h in held).split()), default=0)
            overlap = found.get((r, a))
            is_leak = overlap is not None and overlap.is_leak
            assert is_leak == (coverage >= 0.5 or run + 12 >= 30 if run else False)
            if overlap is not None and is_leak:
                assert overlap.coverage == pytest.approx(coverage)
                assert overlap.run_words == run + 12


def test_every_reason_has_its_case() -> None:
    long, half, tail = numbered("a", 40), numbered("b", 40), numbered("c", 120)
    near = numbered("d", 20).split()
    changed = [*near[:10], "other", *near[11:]]
    items = [
        item(long, "42"), item(half), item(tail), item(" ".join(near)),
        item("What is the capital of Chad?", "N'Djamena"),
        item("Name the tallest tree", "redwood"),
    ]  # fmt: skip
    documents = [
        doc(f"Please: {long}", answer="It is 42."),
        doc(" ".join(half.split()[:27])),
        doc(" ".join(tail.split()[40:72])),
        doc(" ".join(changed)),
        doc("Q: what is the capital of Chad\nA:"),
        doc("it was in the quiz. name the tallest tree", answer="Redwood"),
    ]
    assert reasons(documents, items) == {
        (0, 0): "exact", (1, 1): "coverage", (2, 2): "run", (3, 3): "near", (4, 4): "short", (5, 5): "answer",
    }  # fmt: skip
    found = find_overlaps(documents, items)
    assert [o.answer_attached for o in found] == [True, False, False, False, False, True]
    assert (found[1].coverage, found[1].run_words) == (pytest.approx(15 / 28), 27)
    assert found[2].run_words == 32


def test_short_runs_and_little_coverage_are_clean() -> None:
    question = numbered("a", 100)
    words = question.split()
    assert leaks([doc(" ".join(words[:29]))], [item(question)]) == set()
    assert leaks([doc(" ".join(words[:30]))], [item(question)]) == {(0, 0)}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("What is 3 + 4?", True),
        ("what is 3+4", True),
        ("Task:\n1. Add.\nQuestion: What is 3 + 4 ?\nAnswer:", True),
        ("What is 3 - 4?", False),
        ("What is 3 + 4 + 5?", False),
        ("Tell me: what is 3 + 45?", False),
        ("I wonder what is 3 + 4 to a child", False),
    ],
)
def test_short_questions_stand_by_themselves_with_their_marks(row: str, found: bool) -> None:
    assert bool(find_overlaps([doc(row, answer="no idea")], [item("What is 3 + 4?", "7")])) == found


def test_a_very_short_question_is_a_whole_turn() -> None:
    asked = [item("Paris", "a city")]
    assert leaks([doc("paris!")], asked) == {(0, 0)}
    assert leaks([doc("Capital of France?", answer="Paris"), doc("Name one:\nParis\n")], asked) == set()


def test_a_question_inside_a_text_needs_its_answer() -> None:
    asked = [item("What is the capital of Chad?", "N'Djamena")]
    told = "Some quiz. what is the capital of chad the answer is N Djamena and so on"
    assert reasons([doc(told)], asked) == {(0, 0): "answer"}
    assert reasons([doc("Some quiz. what is the capital of chad nobody knows")], asked) == {}


def test_prompt_templates_of_the_items_are_boilerplate() -> None:
    """Every item carries 14 words that every training row carries too; one row is a copy."""
    items = [item(f"{numbered(f'q{n}_', 10)} {TAIL}", str(n)) for n in range(12)]
    documents = [doc(f"{numbered(f't{n}_', 10)} {TAIL}") for n in range(12)]
    assert find_overlaps(documents, items) == []
    assert leaks([*documents, doc(items[7].question)], items) == {(12, 7)}


def test_little_of_an_items_own_has_to_stand_there_whole() -> None:
    """Two of an item's four own words after a shared template of 16."""
    items = [item(f"{TAIL} {numbered(f'q{n}_', 4)}") for n in range(12)]
    assert find_overlaps([doc(f"{TAIL} q3_0 q3_1 other words")], items) == []
    assert leaks([doc(f"Now: {TAIL} {numbered('q3_', 4)} and go")], items) == {(0, 3)}


def test_lines_that_a_benchmark_adds_are_taken_off() -> None:
    items = [item(f"What is {n} plus {n}?\n\nPut the final answer in a box.", str(2 * n)) for n in range(20)]
    assert leaks([doc("What is 3 plus 3?")], items) == {(0, 3)}


def test_templates_of_the_training_data_are_boilerplate() -> None:
    """One item only, so that only the training rows can tell that 40 of its words are a template."""
    rules = numbered("rule", 40)
    documents = [doc(f"{rules} {numbered(f't{n}_', 12)}") for n in range(30)]
    assert find_overlaps(documents, [item(f"{rules} {numbered('own', 12)}")]) == []
    asked = item(f"{rules} {numbered('t4_', 12)} and so forth")
    assert leaks(documents, [asked]) == {(4, 0)}


@pytest.mark.parametrize("n_samples", [8, 200])
def test_a_leak_that_was_sampled_often_is_no_boilerplate(n_samples: int) -> None:
    """Many answers to one question, and many wrappings of it."""
    question = numbered("q", 30)
    sampled = [doc(question, answer=f"thought {n}: {question} so it is {n}") for n in range(n_samples)]
    wrapped = [doc(f"Variant {n} of it: {question} Think {n} times.") for n in range(n_samples)]
    other = [doc(numbered(f"t{n}_", 30)) for n in range(50)]
    expected = {(n, 0) for n in range(n_samples)}
    assert leaks([*sampled, *other], [item(question)]) == expected
    assert leaks([*wrapped, *other], [item(question)]) == expected


def test_what_clean_documents_hold_is_no_evidence() -> None:
    shared, own = numbered("s", 30), numbered("own", 20)
    asked = [item(f"{shared} {own}")]
    new = doc(f"{shared} {numbered('new', 20)}")
    assert leaks([new], asked) == {(0, 0)}
    known = [doc(f"{shared} {numbered('old', 20)}")]
    assert find_overlaps([new], asked, known) == []
    (copy,) = find_overlaps([doc(f"Go: {' '.join(shared.split()[-8:])} {own}")], asked, known)
    assert copy.reason == "coverage"


def test_a_question_that_many_items_share_needs_its_answer() -> None:
    asked = "Write a short poem about the sea, and let it rhyme well, please, my friend."
    items = [item(asked, numbered(f"p{n}_", 20)) for n in range(9)]
    documents = [doc(asked, answer=numbered("new", 20)), doc(asked.upper(), answer=items[4].answer)]
    assert leaks(documents, items) == {(1, 4)}


def test_equal_items_of_two_files_are_both_named() -> None:
    question = numbered("q", 20)
    items = [item(question, "1", "a"), item(question.upper(), "1", "b"), item(numbered("z", 20))]
    assert leaks([doc(question)], items) == {(0, 0), (0, 1)}


@pytest.mark.parametrize(
    "spell",
    [
        lambda t: unicodedata.normalize("NFD", t),
        lambda t: unicodedata.normalize("NFC", t),
        lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
        lambda t: t.replace("a", "a\u200b").replace("e", "e\u00ad"),
        lambda t: t.replace("é", "e").replace("ü", "u"),
        lambda t: t.upper(),
        lambda t: t.replace("-", "–").replace(" ", "\u00a0"),
    ],
)
@pytest.mark.parametrize(
    "question", ["Où est le café près de la Straße-Brücke, und wie groß ist 3-4?", "Ist 5 - 3 für Zoé?"]
)
def test_unicode_spellings_are_one(spell: Callable[[str], str], question: str) -> None:
    assert leaks([doc(spell(question))], [item(question)]) == {(0, 0)}


def test_scripts_without_spaces_have_words() -> None:
    question = "小明有十二个苹果，他给了小红五个，又买了八个，现在他一共有多少个苹果？"
    assert leaks([doc(f"请回答：{question}谢谢")], [item(question)]) == {(0, 0)}
    assert (
        find_overlaps([doc("小红有三本书，她想买一支新的铅笔送给她的弟弟，请问可以吗？")], [item(question)])
        == []
    )


@given(st.lists(st.text(max_size=60), max_size=4), st.lists(st.text(max_size=60), max_size=4))
def test_any_text_is_taken(rows: list[str], asked: list[str]) -> None:
    found = find_overlaps([doc(row, answer=row) for row in rows], [item(text, text) for text in asked])
    assert all(isinstance(overlap, Overlap) for overlap in found)


def test_empty_and_huge_rows() -> None:
    question = numbered("q", 30)
    huge = " ".join(f"w{n}" for n in range(300_000))
    documents = [
        doc("", answer=""),
        Document((), ""),
        doc("?!"),
        doc(f"{huge} {question} {huge}"),
        doc("a" * 1_000_000),
    ]
    items = [item(""), item("   "), item("?"), item(question), item(huge)]
    assert leaks(documents, items) == {(3, 3), (3, 4)}


def test_many_chunks_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(text(n, 30), "yes") for n in range(20)]
    documents = [doc(text(n, 60)) for n in range(40)] + [
        doc(i.question, answer=str(n)) for n in range(3) for i in items
    ]
    whole = find_overlaps(documents, items)
    monkeypatch.setattr("rdagent_ft.data.contamination._CHUNK_CHARS", 500)
    assert find_overlaps(documents, items) == whole
    assert len(whole) >= 60


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
def test_layout_of_formulas_is_no_text(change: Callable[[str], str]) -> None:
    question = r"Find $\left(\dfrac{a}{b}\right)$ with \[a^2 + \ldots + z^2 = 6,000 \text{ and } b > 1.\]"
    other = (
        r"Find \(( \frac{a}{b} )\) with \begin{equation*} a^2 + \cdots + z^2 = 6{,}000 and b > 1. "
        r"\end{equation*}"
    )
    assert leaks([doc(change(other)), doc(change(question))], [item(question)]) == {(0, 0), (1, 0)}


def test_drawing_code_is_no_text() -> None:
    grid = "[asy] " + " ".join(f"draw(({n},0)--({n},9));" for n in range(30)) + " [/asy]"
    rows = [doc(f"Find the slope of the line. {grid}"), doc(f"Where does {numbered('q', 15)} end?")]
    items = [item(f"Where does {numbered('q', 15)} end? {grid}")]
    assert leaks(rows, items) == {(1, 0)}
