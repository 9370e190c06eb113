"""Rows that repeat held-out items are found among rows that were made after the split."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from rdagent_ft.data.contamination import held_out_copies, item_of
from rdagent_ft.data.rows import Message, Row, make_row

OneTurn = Callable[..., Row]
WORDS = [f"word{n}" for n in range(400)]
QUESTION = "A baker has 12 trays with 8 rolls each and sells 50 rolls before noon; how many are left at noon?"


def copies_among(rows: list[Row], held_out: list[Row], train: list[Row]) -> set[str]:
    return held_out_copies(rows, [item_of(row, "val") for row in held_out], train)


def text(seed: int, n_words: int = 30) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n_words))


def test_equal_prompts_are_copies_whatever_the_answer(row: OneTurn) -> None:
    held_out = [row(QUESTION, "46")]
    again = row(f"  {QUESTION.upper()} ", "I do not know")
    assert copies_among([again], held_out, []) == {again.item_id}


@pytest.mark.parametrize(
    "prompt",
    [
        QUESTION.replace("before noon", "until noon"),
        QUESTION.replace("A baker has", "Anna, who is a baker, has"),
        f"Solve this step by step and be careful with the numbers.\n\nQuestion: {QUESTION}\nAnswer:",
        f"Here is an example of what to do with such tasks. {text(1)} {QUESTION} {text(2)}",
    ],
)
def test_nearly_equal_and_wrapped_prompts_are_copies(row: OneTurn, prompt: str) -> None:
    held_out = [row(QUESTION, "46"), row(text(5), "x")]
    copy = row(prompt, "96 - 50 = 46")
    assert copies_among([copy, row(text(7), "y")], held_out, [row(text(8), "z")]) == {copy.item_id}


def test_an_item_hidden_in_an_answer_is_a_copy(row: OneTurn) -> None:
    copy = row("Give me an example.", f"{QUESTION} 46")
    assert copies_among([copy], [row(QUESTION, "46")], []) == {copy.item_id}


def test_a_system_turn_hides_nothing() -> None:
    def chat(system: str, asked: str) -> Row:
        turns = [("system", system), ("user", asked), ("assistant", "46")]
        return make_row(tuple(Message.model_validate({"role": r, "content": c}) for r, c in turns))

    rules = text(3, 200)
    train = [chat(rules, text(n)) for n in range(10)]
    copy = chat("You are kind.", QUESTION)
    fresh = chat(rules, text(99))
    assert copies_among([copy, fresh], [chat(rules, QUESTION)], train) == {copy.item_id}


def test_rows_of_the_train_split_and_new_rows_stay(row: OneTurn) -> None:
    train = [row(text(n), "a") for n in range(50)]
    held_out = [row(text(n), "a") for n in range(100, 150)]
    made = [*train, *(row(text(n), "b") for n in range(50)), *(row(text(n), "c") for n in range(200, 250))]
    assert copies_among(made, held_out, train) == set()


def test_a_template_that_the_train_split_shares_is_no_evidence(row: OneTurn) -> None:
    """The prompts are 90 % template in every split; only repeating the item itself counts."""
    rules = text(4, 60)

    def asked(n: int) -> str:
        return f"{rules} The request is item{n} alpha{n}"

    train = [row(asked(n), f"route {n} " + text(1000 + n)) for n in range(30)]
    held_out = [row(asked(n), f"route {n} " + text(1000 + n)) for n in range(30, 60)]
    fresh = [row(asked(n), f"route {n} " + text(1000 + n)) for n in range(60, 90)]
    copies = [row(asked(31), "another answer"), row(asked(32) + " please", held_out[2].completion)]
    found = copies_among([*train, *fresh, *copies], held_out, train)
    assert found == {copy.item_id for copy in copies}


def test_an_instruction_common_to_the_dataset_is_no_evidence(row: OneTurn) -> None:
    train = [row("Write a poem.", text(n)) for n in range(5)]
    held_out = [row("Write a poem.", text(10))]
    same, new = row("Write a poem.", text(10).upper()), row("Write a poem.", text(11))
    assert copies_among([same, new], held_out, train) == {same.item_id}


def test_short_texts_are_compared_by_equality_only(row: OneTurn) -> None:
    held_out = [row("red or blue", "red")]
    equal, other = row("Red or  blue", "blue"), row("red or green", "red")
    assert copies_among([equal, other], held_out, []) == {equal.item_id}
