"""Preference rows from scored samples: who is paired with whom, and what is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.engine.sampled_pairs import labelled_from_samples, pairs_from_samples
from rdagent_ft.evaluation.rows import SampleRow


def row_of(question: str, gold: str) -> Row:
    return make_row((Message(role="user", content=question), Message(role="assistant", content=gold)))


def sample(row: Row, repeat: int, text: str, score: float | None) -> SampleRow:
    return SampleRow(
        benchmark="heldout", split="train", item_id=row.item_id, repeat=repeat, prompt_hash="0" * 16,
        prediction=text, gold=row.completion, score=score, unscored_reason="none" if score is None else None,
    )  # fmt: skip


def test_wrong_samples_are_paired_with_right_ones_in_turn() -> None:
    row = row_of("2+2?", "4")
    samples = [
        sample(row, n, text, float(text in "four 4")) for n, text in enumerate(["4", "5", "four", "6", "7"])
    ]
    pairs = pairs_from_samples([row], samples)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("4", "5"), ("four", "6"), ("4", "7")]


def test_gold_is_chosen_where_no_sample_is_right() -> None:
    row = row_of("2+2?", "4")
    (pair,) = pairs_from_samples([row], [sample(row, 0, "5", 0.0)])
    assert (pair.chosen, pair.rejected) == ("4", "5")


def test_all_right_unscored_empty_and_half_right_samples_teach_nothing() -> None:
    row = row_of("2+2?", "4")
    samples = [
        sample(row, 0, "4", 1.0),
        sample(row, 1, "5", None),
        sample(row, 2, " ", 0.0),
        sample(row, 3, "x", 0.5),
    ]
    assert pairs_from_samples([row], samples) == []


def test_labels_follow_the_scores() -> None:
    row, other = row_of("2+2?", "4"), row_of("3+3?", "6")
    samples = [sample(row, 0, "4", 1.0), sample(row, 1, "5", 0.0), sample(other, 0, "7", 0.0)]
    labelled = labelled_from_samples([row, other], samples)
    assert [(each.chosen, each.rejected) for each in labelled] == [
        ("4", None),
        (None, "5"),
        ("6", None),
        (None, "7"),
    ]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 1.0, None])), max_size=12))
def test_a_pair_is_never_of_equal_answers_and_never_repeats(drawn: list[tuple[str, float | None]]) -> None:
    row = row_of("q", "a")
    samples = [sample(row, n, text, score) for n, (text, score) in enumerate(drawn)]
    pairs = pairs_from_samples([row], samples)
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert len({(pair.chosen, pair.rejected) for pair in pairs}) == len(pairs)
