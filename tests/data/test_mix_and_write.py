"""The data mix in its order, and row files that come back unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.data.mix import MixResult, build_mix
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.data.write import read_row_file, write_eval_items, write_rows, write_trl_sft
from rdagent_ft.errors import DataError, RecipeError
from rdagent_ft.recipe.data_mix import DataMix

RowMaker = Callable[..., Row]


def mixed(rows: list[Row], mix: DataMix, clusters: dict[str, int] | None = None) -> MixResult:
    return build_mix(
        rows,
        mix,
        clusters=lambda _: clusters or {},
        n_tokens=lambda found: {row.item_id: len(row.completion) for row in found},
    )


def test_the_empty_mix_only_shuffles(row: RowMaker) -> None:
    rows = [row(f"p{index}", "c") for index in range(50)]
    result = mixed(rows, DataMix())
    assert sorted(item.item_id for item in result.rows) == sorted(item.item_id for item in rows)
    assert result.dropped == {}
    assert result.rows == mixed(rows, DataMix()).rows
    assert result.rows != mixed(rows, DataMix(shuffle_seed=1)).rows


def test_every_filter_counts_what_it_drops(row: RowMaker) -> None:
    rows = [row(f"p{index}", "c", "web" if index < 10 else "book") for index in range(40)]
    rows += [row("P11 ", "C", "book"), row("long", "x" * 20, "book"), row("long ", "x" * 20, "book")]
    mix = DataMix(exclude_sources=("web",), dedupe="exact", max_row_tokens=10, max_items=16)
    result = mixed(rows, mix)
    assert len(result.rows) == 16
    assert result.dropped == {"source web": 10, "exact duplicate": 1, "max_row_tokens": 2, "max_items": 14}
    assert sum(result.dropped.values()) + len(result.rows) == len(rows)


def test_near_keeps_the_first_of_each_group(row: RowMaker) -> None:
    rows = [row(f"p{index}", "c") for index in range(4)]
    clusters = {rows[0].item_id: 1, rows[1].item_id: 2, rows[2].item_id: 1, rows[3].item_id: 2}
    result = mixed(rows, DataMix(dedupe="near"), clusters)
    assert {item.prompt_text for item in result.rows} == {"p0", "p1"}
    assert result.dropped == {"near duplicate": 2}


def test_a_row_that_is_too_long_does_not_stand_for_its_group(row: RowMaker) -> None:
    rows = [row("p", "x" * 50), row("p ", "x")]
    clusters = {item.item_id: 0 for item in rows}
    result = mixed(rows, DataMix(dedupe="near", max_row_tokens=10), clusters)
    assert [item.completion for item in result.rows] == ["x"]


def test_unknown_sources_are_named_with_the_known_ones(row: RowMaker) -> None:
    rows = [row("a", "c", "web"), row("b", "c", "book"), row("d", "c")]
    with pytest.raises(RecipeError) as caught:
        mixed(rows, DataMix(exclude_sources=("wbe", "zzz", "book")))
    assert [problem.value for problem in caught.value.problems] == ["wbe", "zzz"]
    assert "did you mean 'web'?" in caught.value.render()
    assert "book, web" in caught.value.render()


def test_a_mix_that_leaves_nothing_is_refused(row: RowMaker) -> None:
    with pytest.raises(RecipeError, match="nothing to train on") as caught:
        mixed([row("a", "c" * 20, "web")], DataMix(max_row_tokens=8))
    assert caught.value.problems[0].problem_class == "data.empty_after_filter"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(TEXT, min_size=2, max_size=6), max_size=5),
    source=st.none() | TEXT,
    meta=st.dictionaries(TEXT, st.integers() | TEXT, max_size=3),
)
def test_rows_come_back_equal(
    tmp_path: Path, texts: list[list[str]], source: str | None, meta: dict[str, object]
) -> None:
    rows: list[Row] = []
    for contents in texts:
        roles = ["assistant" if index % 2 else "user" for index in range(len(contents))]
        turns = [Message(role=role, content=text) for role, text in zip(roles, contents, strict=True)]  # type: ignore[arg-type]
        rows.append(make_row(tuple(turns[: len(turns) // 2 * 2]), source=source, meta=meta))
    path = tmp_path / "rows.jsonl"
    write_rows(path, rows)
    assert read_row_file(path) == rows
    for form in ("plain", "chat"):
        write_trl_sft(path, rows, form)
        if not rows:
            continue
        again, report = read_rows(resolve_dataset(str(path), tmp_path))
        assert report.dropped == {}
        if form == "chat":
            assert [row.messages for row in again] == [row.messages for row in rows]
        assert [row.completion for row in again] == [row.completion for row in rows]


def test_a_damaged_row_file_names_the_line(tmp_path: Path, row: RowMaker) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row("a", "b"), row("c", "d")])
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match="line 2: not a stored Row"):
        read_row_file(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_row_file(tmp_path / "none.jsonl")


def test_trl_files_hold_prompt_and_completion(tmp_path: Path, row: RowMaker) -> None:
    write_trl_sft(tmp_path / "plain.jsonl", [row("p", "c")], "plain")
    assert json.loads((tmp_path / "plain.jsonl").read_text()) == {"prompt": "p\n", "completion": "c"}
    write_trl_sft(tmp_path / "chat.jsonl", [row("p", "c")], "chat")
    assert json.loads((tmp_path / "chat.jsonl").read_text()) == {
        "prompt": [{"role": "user", "content": "p"}],
        "completion": [{"role": "assistant", "content": "c"}],
    }


def test_eval_items_hold_the_exact_prompt(
    tmp_path: Path, row: RowMaker, tokenizer_folder: Callable[..., Path]
) -> None:
    encoder = load_encoder(tokenizer_folder())
    item = row("pay", "done")
    write_eval_items(tmp_path / "a.jsonl", [item], encoder, "chat", {item.item_id: 3})
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "item_id": item.item_id,
        "prompt": "<|im_start|>user\npay<|im_end|>\n<|im_start|>assistant\n",
        "gold": "done",
        "cluster": "3",
        "messages": [{"role": "user", "content": "pay"}],
        "choices": [],
    }
    write_eval_items(tmp_path / "b.jsonl", [item], encoder, "plain")
    stored = json.loads((tmp_path / "b.jsonl").read_text())
    assert (stored["prompt"], stored["cluster"]) == ("pay\n", None)
