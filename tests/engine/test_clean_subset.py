"""The clean subset knows what a loop really trained on: its mix, made rows, given pairs and samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from container_double import ContainerDouble
from script_world import SPLITS, at_code_step, item

from rdagent_ft.data.contamination import document_of, item_of
from rdagent_ft.data.preference_store import write_preference_rows
from rdagent_ft.data.preferences import make_preference
from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.write import write_lines, write_rows
from rdagent_ft.engine.steps.clean import clean_subset, near_items
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, LoraAdapter, PairSampling, SftStage

TEST = SPLITS["test"]
SFT = SftStage(adapter=LoraAdapter())
PLAIN = Recipe(data=DataMix(), stages=(SFT,))
GIVEN = Recipe(data=DataMix(), stages=(SFT, DpoStage(adapter=LoraAdapter())))
ONLY_GIVEN = Recipe(data=DataMix(), stages=(DpoStage(adapter=LoraAdapter()),))


def near_text(row: Row, at: int = 14) -> str:
    """Return the row's question with one word changed: no copy, but near."""
    words = row.prompt_text.split()
    return " ".join([*words[:at], "changed", *words[at + 1 :]])


def made(prompt: str, answer: str = "something else") -> Row:
    return make_row((Message(role="user", content=prompt), Message(role="assistant", content=answer)))


def found(
    tmp_path: Path, recipe: Recipe, mix: list[Row], *, train: list[Row] | None = None,
    pairs: tuple[str, ...] = (), sampled: tuple[str, ...] = (),
) -> set[str]:  # fmt: skip
    """Return the test items that the clean subset of a loop leaves out."""
    ctx = at_code_step(tmp_path, recipe, ContainerDouble())
    write_rows(ctx.run_dir / "data" / "train.jsonl", train or SPLITS["train"])
    write_preference_rows(
        ctx.run_dir / "data" / "preferences.jsonl",
        [make_preference((Message(role="user", content=text),), "good answer", "bad") for text in pairs],
    )
    folder = ctx.loop_dir(0) / "data"
    write_rows(folder / "mix.jsonl", mix)
    write_lines(folder / "train.jsonl", ({"prompt": row.prompt_text, "completion": "x"} for row in TEST))
    if sampled:
        rows = ({"prompt": text, "chosen": "a b c", "rejected": "d"} for text in sampled)
        write_lines(folder / "2-dpo.jsonl", rows)
    task = EvalTask(
        benchmark="heldout", split="test", items_file=tmp_path / "unused.jsonl", n_items=len(TEST),
        scorer="exact_match", max_new_tokens=16,
    )  # fmt: skip
    rows = [
        SampleRow(
            benchmark="heldout", split="test", item_id=row.item_id, prompt_hash="0" * 16, prediction="p",
            gold="g", score=float(number % 2),
        )
        for number, row in enumerate(TEST)
    ]  # fmt: skip
    samples = {(role, "heldout", "test"): rows for role in ("base", "tuned")}
    clean = clean_subset(ctx, 0, recipe, samples, task)
    if clean.comparison is not None:
        assert clean.comparison.n == len(TEST) - clean.n_near
    ctx.journal.close()
    items = [item_of(row, "test") for row in TEST]
    documents = [document_of(made(text)) for text in (*pairs, *sampled)]
    named = near_items(train or SPLITS["train"], mix, documents, items)
    assert len(named) == clean.n_near
    return named


def test_a_mix_of_the_splits_own_rows_is_clean(tmp_path: Path) -> None:
    assert found(tmp_path, PLAIN, SPLITS["train"][:40]) == set()


def test_a_near_row_of_the_split_counts_only_where_it_was_trained(tmp_path: Path) -> None:
    near = made(near_text(TEST[3]))
    train = [*SPLITS["train"], near]
    assert found(tmp_path / "in", PLAIN, train, train=train) == {TEST[3].item_id}
    assert found(tmp_path / "out", PLAIN, SPLITS["train"], train=train) == set()


@pytest.mark.parametrize("n_versions", [1, 12])
def test_rows_that_were_made_count_however_often_they_say_it(tmp_path: Path, n_versions: int) -> None:
    """More than five rows with the same wording are no template when a script wrote them."""
    versions = [made(f"{near_text(TEST[5])} version{n}", f"answer {n}") for n in range(n_versions)]
    assert found(tmp_path, PLAIN, [*SPLITS["train"][:30], *versions]) == {TEST[5].item_id}


def test_given_pairs_count_where_a_stage_trains_on_them(tmp_path: Path) -> None:
    texts = (near_text(TEST[1]), near_text(TEST[2]), item(7000).prompt_text)
    assert found(tmp_path / "dpo", GIVEN, SPLITS["train"], pairs=texts) == {
        TEST[1].item_id, TEST[2].item_id,
    }  # fmt: skip


def test_a_mix_that_no_stage_read_does_not_count(tmp_path: Path) -> None:
    ctx = at_code_step(tmp_path, ONLY_GIVEN, ContainerDouble())
    from rdagent_ft.engine.steps.clean import trained_texts

    write_preference_rows(ctx.run_dir / "data" / "preferences.jsonl", [])
    write_rows(ctx.loop_dir(0) / "data" / "mix.jsonl", SPLITS["train"])
    write_lines(ctx.loop_dir(0) / "data" / "pairs.jsonl", [])
    folders = ctx.run_dir / "data", ctx.loop_dir(0) / "data"
    assert trained_texts(*folders, ONLY_GIVEN) == ([], [])
    assert len(trained_texts(*folders, PLAIN)[0]) == len(SPLITS["train"])
    ctx.journal.close()


def test_samples_that_were_trained_on_count(tmp_path: Path) -> None:
    stage = DpoStage(adapter=LoraAdapter(), pairs="sampled", sampling=PairSampling())
    recipe = Recipe(data=DataMix(), stages=(SFT, stage))
    texts = (f"{near_text(TEST[9])}",)
    assert found(tmp_path, recipe, SPLITS["train"], sampled=texts) == {TEST[9].item_id}


def test_wording_of_clean_rows_of_the_split_is_no_evidence() -> None:
    """A script that keeps the dataset's template makes no item unclean."""
    head = "Answer the following question about the map of our town with one word and nothing more please"
    train = [made(f"{head} {item(n).prompt_text.split()[0]} x{n}") for n in range(40)]
    test = [made(f"{head} place{n}") for n in range(10)]
    script = [made(f"{head} other{n} thing") for n in range(20)]
    items = [item_of(row, "test") for row in test]
    assert near_items(train, [*train, *script], [], items) == set()
