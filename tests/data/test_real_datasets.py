"""Real public files: every row arrives, text unchanged, and splits hold on real near-duplicates."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import SPLIT_NAMES, ReadReport, Row
from rdagent_ft.data.split import split_rows
from rdagent_ft.errors import DataError

pytestmark = pytest.mark.real_data
BANKING = {"prompt": "text", "completion": "category"}


def read(path: Path, columns: dict[str, str] | None = None) -> tuple[list[Row], ReadReport]:
    return read_rows(resolve_dataset(str(path), path.parent), columns)


@pytest.mark.parametrize(
    ("name", "n_read", "n_rows", "kind"),
    [
        ("gsm8k/train.jsonl", 7473, 7473, "question_answer"),
        ("gsm8k/test.jsonl", 1319, 1319, "question_answer"),
        ("alpaca_demo/alpaca_en_demo.json", 999, 999, "alpaca"),
        ("alpaca_demo/identity.json", 91, 91, "alpaca"),
        ("toolcall_demo/glaive_toolcall_en_demo.json", 300, 300, "sharegpt"),
        ("dpo_demo/kto_en_demo.json", 300, 150, "messages"),
        ("math500/math500.jsonl", 500, 500, "question_answer"),
        ("deepscaler_train/math.json", 7474, 7470, "question_answer"),
        ("ifeval/gpt4_responses.jsonl", 541, 541, "prompt_completion"),
    ],
)
def test_row_counts(shared_data: Path, name: str, n_read: int, n_rows: int, kind: str) -> None:
    _, report = read(shared_data / name)
    assert (report.n_read, report.n_rows, report.format) == (n_read, n_rows, kind)
    assert sum(report.dropped.values()) == n_read - n_rows


def test_gsm8k_text_is_unchanged(shared_data: Path) -> None:
    path = shared_data / "gsm8k" / "train.jsonl"
    stored = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows, _ = read(path)
    assert [(row.prompt_text, row.completion) for row in rows] == [
        (record["question"], record["answer"]) for record in stored
    ]


@pytest.mark.parametrize(("name", "n_rows"), [("train.csv", 10003), ("test.csv", 3080)])
def test_banking77_text_is_unchanged(shared_data: Path, name: str, n_rows: int) -> None:
    path = shared_data / "banking77" / name
    with path.open(encoding="utf-8", newline="") as stream:
        stored = [(record["text"], record["category"]) for record in csv.DictReader(stream)]
    rows, _ = read(path, BANKING)
    assert len(rows) == n_rows
    assert [(row.prompt_text, row.completion) for row in rows] == stored
    assert len({row.completion for row in rows}) == 77


def test_banking77_without_columns_shows_the_way(shared_data: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(shared_data / "banking77" / "train.csv")
    assert "--columns prompt=text,completion=category" in caught.value.render()


def test_a_folder_with_a_test_file_leaves_it_out(shared_data: Path) -> None:
    _, report = read(shared_data / "gsm8k")
    assert report.n_rows == 7473
    assert any("test.jsonl" in note for note in report.notes)


def test_alpaca_joins_the_input_after_a_newline(shared_data: Path) -> None:
    path = shared_data / "alpaca_demo" / "alpaca_en_demo.json"
    stored = json.loads(path.read_text("utf-8"))
    rows, _ = read(path)
    for row, record in zip(rows, stored, strict=True):
        extra = "\n" + record["input"] if record["input"].strip() else ""
        assert row.prompt_text == record["instruction"] + extra
        assert row.completion == record["output"]


def test_tool_calls_keep_every_turn(shared_data: Path) -> None:
    path = shared_data / "toolcall_demo" / "glaive_toolcall_en_demo.json"
    stored = json.loads(path.read_text("utf-8"))
    rows, report = read(path)
    for row, record in zip(rows, stored, strict=True):
        assert [message.content for message in row.messages] == [
            turn["value"] for turn in record["conversations"]
        ]
        assert row.meta["tools"] == record["tools"]
    assert Counter(message.role for row in rows for message in row.messages)["tool"] > 0
    assert any("--columns system=tools" in note for note in report.notes)
    shown, _ = read(path, {"system": "tools"})
    n_with_tools = sum(record["tools"].strip() not in ("", "[]") for record in stored)
    assert sum(row.messages[0].role == "system" for row in shown) >= n_with_tools


def test_preference_pairs_are_refused_or_mapped(shared_data: Path) -> None:
    path = shared_data / "dpo_demo" / "dpo_en_demo.json"
    with pytest.raises(DataError, match="preference pairs") as caught:
        read(path)
    assert "--columns messages=conversations,completion=chosen" in caught.value.render()
    stored = json.loads(path.read_text("utf-8"))
    rows, _ = read(path, {"messages": "conversations", "completion": "chosen"})
    assert [row.completion for row in rows] == [record["chosen"]["value"] for record in stored]


def test_plain_text_for_pretraining_is_refused(shared_data: Path) -> None:
    with pytest.raises(DataError, match="no answer to train on"):
        read(shared_data / "pretrain_demo" / "c4_demo.jsonl")


@pytest.mark.parametrize(("name", "columns"), [("gsm8k/train.jsonl", None), ("banking77/train.csv", BANKING)])
def test_splits_share_no_item_text_or_group(
    shared_data: Path, name: str, columns: dict[str, str] | None
) -> None:
    rows, _ = read(shared_data / name, columns)
    clusters = near_duplicate_clusters(rows)
    splits = split_rows(rows, clusters, seed=42, dev_items=200, val_items=500, test_items=1000)
    seen: dict[object, str] = {}
    for split in SPLIT_NAMES:
        for row in splits[split]:
            text = " ".join(row.prompt_text.lower().split())
            for key in (row.item_id, clusters[row.item_id], text):
                assert seen.setdefault(key, split) == split
    assert [len(splits[split]) for split in ("dev", "val", "test")] == [200, 500, 1000]
