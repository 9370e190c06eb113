"""What the controller lets into the token cache, what it finds there, and what it removes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_double import ContainerDouble
from script_world import SPLITS, at_code_step

from rdagent_ft.data.write import write_trl_sft
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.progress import Silent
from rdagent_ft.engine.steps import token_cache
from rdagent_ft.engine.steps.chain_place import ChainPlace
from rdagent_ft.engine.steps.stage_data import StageData
from rdagent_ft.engine.steps.stage_job import StageInputs, TrainedStageJob, train_stage
from rdagent_ft.engine.steps.token_cache import cache_root, keep_tokens, prune_tokens, token_folder
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.execution.result_key import FileHashes, job_key
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, SftStage
from rdagent_ft.training.plan import read_train_result
from rdagent_ft.training.token_files import CACHE_FOLDER, LEFT_NAME, Tokens, read_tokens, write_tokens

STAGE = SftStage()
ROWS = SPLITS["train"]


class Notices(Silent):
    """Remembers what a person is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


class World:
    """A run at the point where a stage is to be trained, and a job's folder."""

    def __init__(self, root: Path) -> None:
        self.progress = Notices()
        self.ctx: RunContext = at_code_step(root, Recipe(stages=(STAGE,)), ContainerDouble())
        self.ctx.progress = self.progress
        self.file = self.ctx.run_dir / "train.jsonl"
        write_trl_sft(self.file, ROWS, "plain")
        self.data = StageData(self.file, len(ROWS))
        self.model = root / "model"
        self.out = root / "job"
        self.out.mkdir()

    def folder(self, stage: Any = STAGE) -> Path | None:
        return token_folder(self.ctx, stage, self.data, self.model)

    def leave(self, **changes: Any) -> None:
        """Write what an honest job leaves, with some of it replaced."""
        found = self.ctx.text_encoder.row_token_ids(ROWS, "plain")
        tokens = Tokens(
            ids=np.concatenate([np.array(ids, dtype=np.int32) for _, _, ids in found]),
            offsets=np.cumsum([0, *(len(ids) for _, _, ids in found)]),
            starts=np.array([n_context for n_context, _, _ in found], dtype=np.int32),
            versions={"trl": "1"},
        )
        write_tokens(self.out / LEFT_NAME, tokens._replace(**changes))

    def honest(self, name: str) -> Any:
        """One array of an honest job's tokens, to be changed."""
        self.leave()
        found = read_tokens(self.out / LEFT_NAME, n_rows=len(ROWS))
        return np.array(getattr(found, name))

    def keep(self) -> Path:
        folder = self.folder()
        assert folder is not None
        keep_tokens(self.ctx, folder, self.out, self.data)
        return folder / CACHE_FOLDER


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(token_cache, "MIN_ROWS", 10)
    made = World(tmp_path)
    yield made
    made.ctx.journal.close()


def test_an_honest_jobs_tokens_are_kept_and_given_to_the_next_job(world: World) -> None:
    world.leave()
    content = (world.out / LEFT_NAME).read_bytes()
    inner = world.keep()
    assert (inner / LEFT_NAME).read_bytes() == content
    assert not (world.out / LEFT_NAME).exists()
    assert world.folder() == inner.parent
    assert (inner / LEFT_NAME).exists()
    assert world.progress.texts == []


def test_a_job_that_used_the_entry_changes_nothing(world: World) -> None:
    world.leave()
    inner = world.keep()
    assert world.keep() == inner
    assert (inner / LEFT_NAME).exists()
    assert world.progress.texts == []


def test_wrong_tokens_are_refused_by_name(world: World) -> None:
    ids, starts = world.honest("ids"), world.honest("starts")
    swapped = (ids + 1) % world.ctx.text_encoder.tokenizer.get_vocab_size()
    cases = [
        ({"ids": swapped}, "other tokens than its text"),
        ({"ids": np.full_like(ids, 10**6)}, "not in the vocabulary"),
        ({"starts": starts - 1}, "begins elsewhere"),
        ({"offsets": np.array([0, ids.size]), "starts": starts[:1]}, "expected 61"),
    ]
    for number, (changes, words) in enumerate(cases):
        world.leave(**changes)
        inner = world.keep()
        assert not inner.exists()
        assert not (world.out / LEFT_NAME).exists()
        assert len(world.progress.texts) == number + 1
        assert words in world.progress.texts[-1]
    assert sorted(path.name for path in inner.parent.parent.iterdir()) == [inner.parent.name]


def test_links_and_folders_in_the_tokens_place_are_refused_and_removed(world: World, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    world.leave()
    (world.out / LEFT_NAME).rename(foreign)
    left = world.out / LEFT_NAME

    def as_folder() -> None:
        left.mkdir()
        (left / "x").write_text("")

    for put in (
        lambda: left.symlink_to(foreign),
        lambda: left.hardlink_to(foreign),
        lambda: os.mkfifo(left),
        as_folder,
    ):
        put()
        assert not world.keep().exists()
        assert not os.path.lexists(left)
    assert foreign.exists()
    assert len(world.progress.texts) == 4


@pytest.mark.parametrize("what", ["tokens", "entry", "gone", "linked"])
def test_a_damaged_entry_is_named_and_removed(what: str, world: World, tmp_path: Path) -> None:
    world.leave()
    inner = world.keep()
    tokens = inner / LEFT_NAME
    if what == "tokens":
        raw = bytearray(tokens.read_bytes())
        raw[-200] ^= 1
        tokens.write_bytes(raw)
    elif what == "entry":
        (inner / "entry.json").write_text('{"schema_version": 1, "key": "other"}')
    elif what == "gone":
        tokens.unlink()
    else:
        tokens.rename(tmp_path / "elsewhere")
        tokens.symlink_to(tmp_path / "elsewhere")
    assert world.folder() == inner.parent
    assert not inner.exists()
    assert len(world.progress.texts) == 1
    assert f"stored tokens {inner.parent.name[:12]} are damaged" in world.progress.texts[0]


def test_a_foreign_entry_is_removed(world: World) -> None:
    world.leave()
    first = world.keep()
    write_trl_sft(world.file, ROWS[::-1], "plain")
    other = world.folder()
    assert other is not None
    first.rename(other / CACHE_FOLDER)
    assert world.folder() == other
    assert not (other / CACHE_FOLDER).exists()
    assert "it is the entry of" in world.progress.texts[0]


def test_the_name_covers_what_decides_the_tokens_and_nothing_else(world: World) -> None:
    first = world.folder()
    assert world.folder(SftStage(learning_rate=1e-3, max_length=64, seed=1, eval_share=0.1)) == first
    (world.model / "model.safetensors").write_bytes(b"other weights")
    assert world.folder() == first
    config = world.model / "tokenizer_config.json"
    config.write_text(config.read_text().replace("}", ', "add_bos_token": true}'))
    second = world.folder()
    assert second != first
    write_trl_sft(world.file, ROWS[::-1], "plain")
    assert world.folder() not in (first, second)


def test_nothing_is_shared_where_it_cannot_be_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.folder(DpoStage()) is None
    assert world.folder(SftStage(train_on="assistant_turns")) is None
    monkeypatch.setattr(token_cache, "MIN_ROWS", len(ROWS) + 1)
    assert world.folder() is None
    assert not cache_root(world.ctx.settings.file_path).exists()


def test_a_jobs_result_has_one_name_with_and_without_stored_tokens(world: World) -> None:
    folder = world.folder()
    assert folder is not None
    spec = JobSpec(
        attempt_id="a", kind="train", argv=("python", "--tokens", str(folder)), out_dir=world.out,
        inputs={"tokens": folder}, scratch=(LEFT_NAME,), deadline_unix=0.0,
    )  # fmt: skip
    before = job_key(spec, image="i", code_hash="c", hashes=FileHashes())
    world.leave()
    world.keep()
    assert (folder / CACHE_FOLDER / LEFT_NAME).exists()
    assert job_key(spec, image="i", code_hash="c", hashes=FileHashes()) == before


def test_the_entries_that_were_used_longest_ago_go_first(world: World) -> None:
    entries: list[Path] = []
    for number in range(3):
        write_trl_sft(world.file, [*ROWS[number:], *ROWS[:number]], "plain")
        folder = world.folder()
        assert folder is not None
        inner = folder / CACHE_FOLDER
        inner.mkdir()
        (inner / LEFT_NAME).write_bytes(b"0" * 1000)
        (inner / "entry.json").write_text("{}")
        os.utime(inner / "entry.json", (1000 - number, 1000 - number))
        entries.append(inner)
    root = cache_root(world.ctx.settings.file_path)
    assert prune_tokens(root, 10_000) == []
    assert prune_tokens(root, 1_500) == [entries[2].parent.name, entries[1].parent.name]
    assert entries[0].exists()
    assert (entries[1].parent / "key.json").exists()
    assert prune_tokens(root / "none", 0) == []


@pytest.mark.train
def test_the_second_training_of_a_run_starts_from_the_tokens_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rdagent_ft.training.tiny import make_tiny_model

    monkeypatch.setattr(token_cache, "MIN_ROWS", 10)
    recipes = [Recipe(stages=(SftStage(max_steps=2, max_length=length),)) for length in (256, 96)]
    ctx = at_code_step(tmp_path, recipes[0], ContainerDouble(), executor="local")
    model = tmp_path / "model"
    make_tiny_model(model, [row.prompt_text for row in ROWS], vocab_size=400, hidden=16, heads=2)
    notices = Notices()
    ctx.executor, ctx.progress = LocalExecutor(), notices
    file = ctx.run_dir / "loops" / "000" / "data" / "train.jsonl"
    write_trl_sft(file, ROWS, "plain")
    found: list[str | None] = []
    for loop, recipe in enumerate(recipes):
        stages = ctx.loop_dir(loop) / "stages"
        place = ChainPlace(loop, "train", stages, ctx.loop_dir(loop) / "files")
        job = TrainedStageJob(recipe, 1, recipe.stages[0], None)
        output = train_stage(ctx, place, job, StageInputs(model, StageData(file, len(ROWS))))
        assert output.failure is None
        out = stages / "1-sft" / "attempt-1"
        found.append(read_train_result(out).tokens)
        assert not (out / LEFT_NAME).exists()
    assert found == ["made", "cached"]
    assert notices.texts == []
    ctx.journal.close()
