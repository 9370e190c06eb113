"""The stated option letter: real forms, no luck with substrings, the last statement, linear time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.evaluation.choice_answers import LETTERS, gold_letter, stated_letter
from rdagent_ft.evaluation.scorers import score_answer

STATEMENTS = (
    "{}",
    "({})",
    "{}.",
    "**{}**",
    "{})",
    "Answer: {}",
    "answer: {}",
    "**Answer:** {}",
    "**Answer**: {}",
    "Answer: **{}**",
    "Answer: ({})",
    "ANSWER: {}.",
    "The answer is {}.",
    "The answer is ({}).",
    "The correct answer is: {}",
    "The correct answer is option {}.",
    "The best choice is {}",
    "So the final answer is $\\boxed{{{}}}$.",
    "\\boxed{{\\text{{{}}}}}",
    "\\boxed{{({})}}",
    "Option {} is correct.",
    "I would choose ({}).",
    "Let me think about it.\n\n{}",
    "Because of this, the answer must be {} because nothing else fits.",
    "Answer => {}",
    "The answer is {}, as shown.",
)


@pytest.mark.parametrize("form", STATEMENTS)
@pytest.mark.parametrize("letter", ["A", "B", "E", "I"])
def test_every_form_states_every_letter(form: str, letter: str) -> None:
    assert stated_letter(form.format(letter)) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B) mall", "B"),
        ("(B) mall", "B"),
        ("B. mall", "B"),
        ("C: the third one", "C"),
        ("answer: b", "B"),
        ("The answer is A. No wait, the answer is C.", "C"),
        ("Option A is wrong.\nAnswer: D", "D"),
        ("Answer: A. bank", "A"),
        ("Answer: C mall", "C"),
        ("D is right? No.\nA) is wrong\nB", "B"),
        ("A dog", None),
        ("A", "A"),
        ("I think so", None),
        ("I", "I"),
        ("A man walks into a bar", None),
        ("The answer is a dog", None),
        ("The answer is A dog", None),
        ("The answer is Apple", None),
        ("The answer is not B", None),
        ("The answer is B-flat", "B"),
        ("Answer: bank", None),
        ("Answer: B or C", None),
        ("Answer: (B) and (C)", None),
        ("The answer is A/B", None),
        ("Answer: K", None),
        ("B is a letter of the alphabet", None),
        ("it is either A or B", None),
        ("vitamin C", None),
        ("The answer is I'm not sure", None),
        ("a", "A"),
        ("", None),
        ("\\boxed{Apple}", None),
        ("\\boxed{12}", None),
    ],
)
def test_stated_letter(text: str, letter: str | None) -> None:
    assert stated_letter(text) == letter


def test_gold_letter() -> None:
    assert [gold_letter(text) for text in ("B", "b", "(B)", " B. ")] == ["B"] * 4
    assert [gold_letter(text) for text in ("", "BC", "K", "Answer B")] == [None] * 4


def test_scores() -> None:
    assert score_answer("choice_match", "Answer: B", "B").score == 1.0
    assert score_answer("choice_match", "Answer: B", "b").extracted == "B"
    assert score_answer("choice_match", "Answer: B", "A").score == 0.0
    silent = score_answer("choice_match", "A dog", "A")
    assert (silent.score, silent.extracted) == (0.0, None)
    assert score_answer("choice_match", "A", "dog").score is None


@given(st.text(max_size=300))
def test_any_text_gives_a_letter_or_none(text: str) -> None:
    assert stated_letter(text) in {None, *LETTERS}


@given(st.sampled_from(LETTERS), st.sampled_from(STATEMENTS), st.text(alphabet="xyz .,\n", max_size=80))
def test_the_last_statement_wins_after_any_reasoning(letter: str, form: str, reasoning: str) -> None:
    other = "A" if letter != "A" else "B"
    text = f"The answer is {other}. {reasoning}\nNo: Answer: {letter}"
    assert stated_letter(text) == letter
    assert stated_letter(f"{reasoning}\n{form.format(letter)}") == letter


@pytest.mark.parametrize(
    "piece", ["answer ", "answer is ", " ", "\n", "(", "answer:" + " " * 9, "option a is "]
)
def test_runaway_text_is_read_to_its_end(piece: str) -> None:
    """Quadratic time would not come back within the test's time limit."""
    text = piece * (200_000 // len(piece))
    assert stated_letter(text + "\nAnswer: B") == "B"
