"""Tokens that one training leaves for the next: the same tokens, or none at all."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_jobs import run
from stage_trainings import ANIMALS, COLOURS, config_file, prompt_of

from rdagent_ft.execution.outputs import read_json_lines
from rdagent_ft.training.plan import TrainResult, read_train_result, stage_argv
from rdagent_ft.training.token_files import (
    CACHE_FOLDER,
    LEFT_NAME,
    DamagedTokensError,
    Tokens,
    read_tokens,
    write_tokens,
)

VERSIONS = {"tokenizers": "1", "transformers": "2", "trl": "3"}
CUT_AND_HELD_OUT = {
    "max_length": 24, "test_split_size": 0.2, "eval_strategy": "steps", "eval_steps": 2,
    "save_strategy": "steps", "save_steps": 2, "metric_for_best_model": "eval_loss",
    "load_best_model_at_end": True,
}  # fmt: skip
TOKENS = Tokens(
    ids=np.array([5, 6, 7, 8, 9, 3], dtype=np.int32),
    offsets=np.array([0, 2, 3, 6], dtype=np.int64),
    starts=np.array([1, 0, 3], dtype=np.int32),
    versions=VERSIONS,
)


def rows(n: int) -> list[dict[str, Any]]:
    """Rows of mixed length: some are cut at 24 tokens, some have no room left for an answer."""
    dice = random.Random(1)
    found: list[dict[str, Any]] = []
    for _ in range(n):
        colour, animal = dice.choice(COLOURS), dice.choice(ANIMALS)
        prompt = f"{dice.random():.12f} " * dice.randrange(3) + prompt_of(colour, animal)
        found.append({"prompt": prompt, "completion": f" {animal} is {colour}" * dice.randrange(1, 4)})
    return found


def train(
    folder: Path, model: Path, tokens: Path | None = None, **changes: Any
) -> tuple[TrainResult, list[float], str]:
    """Return a training's result, its losses and its log."""
    settings: dict[str, Any] = {"max_steps": 4, "completion_only_loss": True, "shuffle_dataset": False}
    config = config_file(folder, model, rows(160), **(settings | changes))
    result = run(folder, stage_argv("sft", config, tokens=tokens), folder.name)
    assert result.failure_class == "ok", result.log_tail
    losses = [line["loss"] for line in read_json_lines(folder, "metrics.jsonl") if "loss" in line]
    return read_train_result(folder), losses, (folder / "job.log").read_text()


def counts(result: TrainResult) -> tuple[Any, ...]:
    return (
        result.n_rows, result.n_rows_trained, result.n_tokens, result.share_tokens_trained,
        result.share_rows_with_end, result.kept,
    )  # fmt: skip


@pytest.fixture(scope="module")
def kept(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache entry with what one training left: 64 tokens a row, nothing held out."""
    folder = tmp_path_factory.mktemp("kept")
    entry = folder / "entry"
    (entry / CACHE_FOLDER).mkdir(parents=True)
    result, _, _ = train(folder / "made", random_model, entry, max_length=64, max_steps=1)
    assert result.tokens == "made"
    shutil.move(folder / "made" / LEFT_NAME, entry / CACHE_FOLDER / LEFT_NAME)
    return entry


@pytest.mark.train
@pytest.mark.parametrize(
    "changes",
    [{**CUT_AND_HELD_OUT, "learning_rate": 1e-3}, {"max_length": 48, "packing": True}],
    ids=["cut-and-held-out", "packed"],
)
def test_trainings_of_other_settings_are_the_same_with_and_without_stored_tokens(
    changes: dict[str, Any], random_model: Path, kept: Path, tmp_path: Path
) -> None:
    plain, losses, _ = train(tmp_path / "plain", random_model, **changes)
    again, stored_losses, _ = train(tmp_path / "stored", random_model, kept, **changes)
    assert (plain.tokens, again.tokens) == (None, "cached")
    assert counts(plain) == counts(again)
    assert losses == stored_losses
    assert len(losses) == 4
    assert not (tmp_path / "stored" / LEFT_NAME).exists()
    if "packing" not in changes:
        assert plain.n_rows_trained < plain.n_rows < 160  # both happened: held out, and cut away
        assert plain.kept is not None
        assert plain.kept.best_value is not None


@pytest.mark.train
def test_tokens_of_another_version_are_named_and_made_anew(
    random_model: Path, kept: Path, tmp_path: Path
) -> None:
    stored = read_tokens(kept / CACHE_FOLDER / LEFT_NAME, n_rows=160)
    entry = tmp_path / "entry"
    (entry / CACHE_FOLDER).mkdir(parents=True)
    write_tokens(entry / CACHE_FOLDER / LEFT_NAME, stored._replace(versions=VERSIONS))
    result, _, log = train(tmp_path / "job", random_model, entry, **CUT_AND_HELD_OUT, max_steps=2)
    assert result.tokens == "made"
    assert "the stored tokens are not used: it was made by" in log
    # What is left does not depend on what was held out or cut: equal to the first training's, byte by byte.
    left = (tmp_path / "job" / LEFT_NAME).read_bytes()
    assert left == (kept / CACHE_FOLDER / LEFT_NAME).read_bytes()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_tokens(tmp_path / "t", TOKENS)
    found = read_tokens(tmp_path / "t", n_rows=3, vocab_size=10)
    assert found.versions == VERSIONS
    for name in ("ids", "offsets", "starts"):
        assert getattr(found, name).tolist() == getattr(TOKENS, name).tolist()


WRAPPED = np.array([0, 2**62, -(2**63), 6], dtype=np.int64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": np.array([5, 6, 7, 8, 9, 10], dtype=np.int32)}, "vocabulary"),
        ({"ids": np.array([5, 6, -7, 8, 9, 1], dtype=np.int32)}, "vocabulary"),
        ({"offsets": np.array([0, 3, 2, 6])}, "one after the other"),
        ({"offsets": np.array([0, 2, 2, 6])}, "one after the other"),
        ({"offsets": np.array([1, 2, 3, 6])}, "do not cover"),
        ({"offsets": np.array([0, 2, 3, 5])}, "do not cover"),
        ({"offsets": np.array([0, 2, 9, 6])}, "do not cover"),
        ({"offsets": WRAPPED}, "do not cover"),
        ({"offsets": np.array([0, -5, 3, 6])}, "one after the other"),
        ({"starts": np.array([3, 0, 0], dtype=np.int32)}, "outside of its row"),
        ({"starts": np.array([-1, 0, 0], dtype=np.int32)}, "outside of its row"),
        ({"starts": np.array([0, 0, 0, 0], dtype=np.int32)}, "expected 3"),
        ({"offsets": np.array([0, 6])}, "expected 4"),
        ({"versions": {}}, "names no packages"),
        ({"versions": {"trl": "x" * 5000}}, "more than any training"),
    ],
)
def test_numbers_out_of_bounds_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_tokens(tmp_path / "t", TOKENS._replace(**change))
    with pytest.raises(DamagedTokensError, match=words):
        read_tokens(tmp_path / "t", n_rows=3, vocab_size=10)


def edit_header(raw: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + size :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: (1 << 40).to_bytes(8, "little") + raw[8:],
        lambda raw: edit_header(raw, lambda header: header["ids"].update(dtype="U32")),
        lambda raw: edit_header(raw, lambda header: header["ids"].update(dtype="F32")),
        lambda raw: edit_header(raw, lambda header: header["ids"].update(shape=[2, 3])),
        lambda raw: edit_header(raw, lambda header: header.update(more=header.pop("starts"))),
        lambda raw: edit_header(raw, lambda header: header.update({"__metadata__": {"x": "y" * 9000}})),
        lambda raw: raw.replace(b'"trl"', b'"trl '),
    ],
    ids=["empty", "cut", "longer", "header", "dtype", "floats", "shape", "names", "fat", "versions"],
)
def test_damaged_files_are_refused(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    write_tokens(tmp_path / "t", TOKENS)
    (tmp_path / "t").write_bytes(spoil((tmp_path / "t").read_bytes()))
    with pytest.raises(DamagedTokensError):
        read_tokens(tmp_path / "t", n_rows=3, vocab_size=10)
