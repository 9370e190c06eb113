"""The cache of base scores: its key covers what shapes scores, and damage is a miss."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from evaluation_rows import rows_of
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.errors import StateError
from rdagent_ft.evaluation.base_cache import Samples, base_fingerprint, load_cached, store_cached
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.sample_files import read_samples, write_samples

TASK = EvalTask(
    benchmark="heldout",
    split="val",
    items_file=Path("/a/val.jsonl"),
    n_items=2,
    scorer="exact_match",
    max_new_tokens=8,
)
SAMPLES: Samples = {
    ("base", "heldout", "val"): rows_of([1.0, None]),
    ("base", "heldout", "dev"): rows_of([0.0], split="dev", prediction="line\u2028break\nand\x1b tab\t\x00"),
}


def fingerprint(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "model_fingerprint": "m",
        "tasks": (TASK,),
        "prompt_format": "plain",
        "items_sha256": {"val": "s"},
        "versions": {"lm-eval": "1"},
        **changes,
    }
    return base_fingerprint(**arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_fingerprint": "n"},
        {"prompt_format": "chat"},
        {"items_sha256": {"val": "t"}},
        {"versions": {"lm-eval": "2"}},
        {"versions": None},
        {"tasks": (TASK.model_copy(update={"scorer": "token_f1"}),)},
        {"tasks": (TASK.model_copy(update={"max_new_tokens": 9}),)},
        {"tasks": (TASK, TASK.model_copy(update={"split": "dev"}))},
    ],
)
def test_everything_that_shapes_scores_is_in_the_key(changes: dict[str, Any]) -> None:
    assert fingerprint(**changes) != fingerprint()


def test_paths_and_order_are_not() -> None:
    assert fingerprint(tasks=(TASK.model_copy(update={"items_file": Path("/b/val.jsonl")}),)) == fingerprint()
    dev = TASK.model_copy(update={"split": "dev"})
    assert fingerprint(tasks=(TASK, dev)) == fingerprint(tasks=(dev, TASK))


def test_stored_rows_come_back(tmp_path: Path) -> None:
    assert load_cached(tmp_path, "f") is None
    store_cached(tmp_path / "cache", "f", SAMPLES)
    assert load_cached(tmp_path / "cache", "f") == SAMPLES
    assert load_cached(tmp_path / "cache", "g") is None


@pytest.mark.parametrize("damage", ["cut", "edit", "empty", "binary", "other", "nested"])
def test_damage_is_a_miss_with_a_note(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store_cached(tmp_path, "f", SAMPLES)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "other":
        store_cached(tmp_path, "g", SAMPLES)
        content = (tmp_path / path.name.replace("f", "g")).read_bytes()
    changed = {
        "cut": content[:-20],
        "edit": content.replace(b"1.0", b"0.0"),
        "empty": b"",
        "binary": b"\xff\xfe\x00",
        "other": content,
        "nested": b"[" * 100_000,
    }[damage]
    path.write_bytes(changed)
    with caplog.at_level(logging.WARNING):
        assert load_cached(tmp_path, "f") is None
    assert "computed again" in caplog.text
    store_cached(tmp_path, "f", SAMPLES)
    assert load_cached(tmp_path, "f") == SAMPLES


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_text_survives_a_samples_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("samples") / "deep" / "samples.jsonl"
    rows = rows_of([1.0, 0.25], prediction=text, gold=text)
    write_samples(path, rows)
    assert read_samples(path) == rows
    assert len(path.read_bytes().splitlines()) == 2


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with pytest.raises(StateError, match="cannot be read"):
        read_samples(path)
    write_samples(path, rows_of([1.0, 0.0]))
    path.write_text(path.read_text() + '{"score": 1}\n')
    with pytest.raises(StateError, match=r"samples\.jsonl:3 is not a sample row"):
        read_samples(path)
