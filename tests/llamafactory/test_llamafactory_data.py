"""Data files for LLaMA-Factory: the forms it reads, and refusals of rows that it would drop in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.errors import DataError
from rdagent_ft.recipe.llamafactory.dataset_info import PlainTexts, write_dataset

USER, ANSWER, OTHER = (
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "assistant", "content": "5"},
)
SYSTEM = {"role": "system", "content": "Be brief."}


def written(
    folder: Path, kind: Any, rows: list[Any], plain: PlainTexts | None = None
) -> tuple[Any, list[Any]]:
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = write_dataset(source, folder, kind, plain=plain)
    info = json.loads((folder / "dataset_info.json").read_text())
    return info["train"], [json.loads(line) for line in target.read_text().splitlines()]


def test_turns_become_the_conversation_form(tmp_path: Path) -> None:
    info, rows = written(
        tmp_path, "sft", [{"prompt": [SYSTEM, USER], "completion": [ANSWER], "item_id": "x"}]
    )
    assert rows == [{"messages": [SYSTEM, USER, ANSWER]}]
    assert (info["formatting"], info["columns"]) == ("sharegpt", {"messages": "messages"})
    assert info["tags"]["user_tag"] == "user"
    assert (
        written(tmp_path, "sft", [{"messages": [USER, ANSWER, USER, OTHER]}])[1][0]["messages"][-1] == OTHER
    )


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_pairs_are_ranked(tmp_path: Path, kind: str) -> None:
    info, rows = written(tmp_path, kind, [{"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}])
    assert rows == [{"messages": [USER], "chosen": ANSWER, "rejected": OTHER}]
    assert info["ranking"] is True


def test_marked_answers_keep_their_label(tmp_path: Path) -> None:
    info, rows = written(tmp_path, "kto", [{"prompt": [USER], "completion": [ANSWER], "label": False}])
    assert rows == [{"messages": [USER, ANSWER], "label": False}]
    assert info["columns"]["kto_tag"] == "label"


def test_plain_texts_get_the_tokens_that_the_empty_template_lacks(tmp_path: Path) -> None:
    texts = PlainTexts(begin="<s>", end="</s>")
    info, rows = written(tmp_path, "sft", [{"prompt": "2+2?\n", "completion": "4"}], texts)
    assert rows == [{"prompt": "<s>2+2?\n", "completion": "4</s>"}]
    assert info == {
        "file_name": "train.jsonl",
        "formatting": "alpaca",
        "columns": {"prompt": "prompt", "response": "completion"},
    }
    rows = written(tmp_path, "dpo", [{"prompt": "a", "chosen": "b</s>", "rejected": "c"}], texts)[1]
    assert rows == [{"prompt": "<s>a", "chosen": "b</s>", "rejected": "c</s>"}]


@pytest.mark.parametrize(
    ("kind", "row", "what"),
    [
        ("sft", {"prompt": [USER, USER], "completion": [ANSWER]}, "alternate"),
        ("sft", {"messages": [ANSWER, USER, ANSWER]}, "alternate"),
        ("sft", {"messages": [USER, {"role": "tool", "content": "7"}, ANSWER]}, "alternate"),
        ("sft", {"messages": [USER]}, "alternate"),
        ("sft", {"messages": []}, "not empty"),
        ("sft", {"messages": [{"role": "user"}]}, "lacks"),
        ("sft", {"prompt": "text", "completion": "4"}, "end token"),
        ("dpo", {"prompt": [USER], "chosen": [ANSWER]}, "rejected"),
        ("dpo", {"prompt": [USER, ANSWER], "chosen": [ANSWER], "rejected": [OTHER]}, "alternate"),
        ("kto", {"prompt": [USER], "completion": [ANSWER], "label": "good"}, "label"),
        ("kto", {"prompt": [USER], "completion": [{**ANSWER, "content": ""}], "label": True}, "not empty"),
        ("sft", ["no", "object"], "object"),
        ("grpo", {"prompt": [USER]}, "no data form"),
    ],
)
def test_a_row_that_would_be_dropped_is_refused(tmp_path: Path, kind: str, row: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        written(tmp_path, kind, [row])


def test_an_empty_file_and_a_mixed_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        written(tmp_path, "sft", [])
    both = [{"prompt": "a", "completion": "b"}, {"prompt": [USER], "completion": [ANSWER]}]
    with pytest.raises(DataError, match="mixes"):
        written(tmp_path, "sft", both, PlainTexts(end="</s>"))
