"""Retention: what leads, is claimed or scored best is never deleted, in any order of events and crashes."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script_world import prepared, write_model

from rdagent_ft.engine import retention
from rdagent_ft.engine.bounds import Clock
from rdagent_ft.engine.context import RunContext, RunRequest
from rdagent_ft.engine.faults import Faults
from rdagent_ft.engine.journal import Journal, utc_now
from rdagent_ft.engine.progress import Silent
from rdagent_ft.engine.retention import EVENT, GIB, Standing, free_disk, kept_loops, make_room
from rdagent_ft.engine.selection import best_candidate
from rdagent_ft.evaluation.rows import Comparison, Score
from rdagent_ft.recipe.disk import chain_disk_bytes
from rdagent_ft.recipe.model_shape import read_model_shape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, FullAdapter, MergeStage, RewardStage, SftStage
from rdagent_ft.reporting.records import (
    SETUP_LOOP,
    ClaimOutput,
    EvaluateOutput,
    FeedbackOutput,
    StepName,
    TrainOutput,
)
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

BROKEN = Failure(failure_class="train.diverged", blame="candidate", message="NaN")
PLAIN = ("1-sft/attempt-1/adapter",)
KEPT_FILES = ("stages/1-sft/attempt-1/metrics.jsonl", "stages/1-sft/manifest.json", "files/1-sft.yaml",
              "eval/heldout-val/samples.jsonl", "stages/1-sft/attempt-1/job.log")  # fmt: skip


class Heard(Silent):
    """Keeps the notices."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def notice(self, text: str) -> None:
        self.lines.append(text)


class Outcome(NamedTuple):
    """One loop: its val score (None: it failed), whether it led from then on, and the share scored."""

    val: float | None
    leads: bool = False
    share: float = 1.0
    gain: float = 0.0


def context(root: Path, **values: Any) -> RunContext:
    run_dir = root / "output" / "r"
    run_dir.mkdir(parents=True)
    journal = Journal.create(run_dir, {"run_id": "r"})
    finish(journal, SETUP_LOOP, "prepare", prepared(root / "model"))
    return RunContext(
        run_id="r", run_dir=run_dir, request=RunRequest(dataset="d"),
        settings=Settings.model_validate({"file_path": root, **values}), journal=journal,
        executor=cast("Any", None), harness=cast("Any", None), planner=cast("Any", None), llm=None,
        clock=Clock(None), faults=Faults(None), progress=Heard(),
    )  # fmt: skip


def finish(journal: Journal, loop: int, step: StepName, output: Frozen) -> None:
    journal.finish_step(loop, step, output, started_utc=utc_now(), wall_s=0.1)


def write(path: Path, n_bytes: int = 4096) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * n_bytes)
    return path


def score(value: float) -> Score:
    return Score(
        benchmark="heldout", split="val", scorer="exact_match", value=value, stderr=0.0, ci95=(0.0, 1.0),
        n=20, n_expected=20,
    )  # fmt: skip


DELTA = Comparison(
    benchmark="heldout", split="val", n=20, base=0.1, tuned=0.5, delta=0.4, se=0.1, ci95=(0.2, 0.6), mde=0.28,
    verdict="improved",
)  # fmt: skip


def play(ctx: RunContext, loop: int, outcome: Outcome, weights: Sequence[str] = PLAIN) -> None:
    """Leave the files and the records of one loop; the last of `weights` is what is scored."""
    folder = ctx.loop_dir(loop)
    for name in KEPT_FILES:
        write(folder / name)
    for name in weights:
        write(folder / "stages" / name / "adapter_model.safetensors")
        write(folder / "stages" / Path(name).parent / "output" / "checkpoint-10" / "optimizer.pt")
    failed = outcome.val is None
    trained = TrainOutput(
        kind="lora", weights=None if failed else f"loops/{loop:03d}/stages/{weights[-1]}",
        failure=BROKEN if failed else None,
    )  # fmt: skip
    finish(ctx.journal, loop, "train", trained)
    val = None if outcome.val is None else score(outcome.val)
    failure = BROKEN if failed else None
    finish(
        ctx.journal, loop, "evaluate", EvaluateOutput(val=val, share_scored=outcome.share, failure=failure)
    )
    status = "failed" if failed else "accepted" if outcome.leads else "rejected"
    finish(ctx.journal, loop, "feedback", FeedbackOutput(
        status=status, reason="", new_parent=outcome.leads and not failed,
        posterior_gain=None if failed else outcome.gain,
    ))  # fmt: skip


def claim(ctx: RunContext, loop: int) -> None:
    finish(ctx.journal, loop, "claim", ClaimOutput(
        loop=loop, recipe_hash="h", accepted=True, base=score(0.1), tuned=score(0.5), comparison=DELTA,
        val_delta=0.4, optimism=0.0, opening=1,
    ))  # fmt: skip


def with_weights(ctx: RunContext) -> list[int]:
    """The loops whose scored weights are there, whole."""
    return [
        loop
        for loop in ctx.journal.finished_loops()
        if (trained := ctx.journal.output(loop, "train", TrainOutput)) is not None
        and trained.weights is not None
        and (ctx.run_dir / trained.weights / "adapter_model.safetensors").is_file()
    ]


def events(ctx: RunContext) -> list[dict[str, Any]]:
    connection = sqlite3.connect(ctx.run_dir / "run.db")
    try:
        rows = connection.execute("SELECT payload FROM events WHERE kind = ? ORDER BY number", (EVENT,))
        return [json.loads(row[0]) for row in rows]
    finally:
        connection.close()


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    write_model(tmp_path / "model")
    return context(tmp_path, keep_models=2)


OUTCOMES = st.lists(
    st.builds(
        Outcome,
        val=st.none() | st.sampled_from([0.1, 0.2, 0.3, 0.4]),
        leads=st.booleans(),
        share=st.sampled_from([1.0, 1.0, 0.2]),
        gain=st.sampled_from([-0.1, 0.0, 0.1]),
    ),
    min_size=1,
    max_size=9,
)


@given(OUTCOMES, st.integers(1, 4), st.sets(st.integers(0, 8)), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_sequence_of_loops_ever_loses_the_best_the_leader_or_a_claimed_model(
    outcomes: list[Outcome], n_keep: int, claims: set[int], tight: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ctx = context(Path(folder), keep_models=n_keep)
        claimed: set[int] = set()
        for loop, outcome in enumerate(outcomes):
            play(ctx, loop, outcome)
            free_disk(ctx, n_keep=1 if tight else None, for_room=tight)
            there, best = with_weights(ctx), best_candidate(ctx)
            whole = [n for n in range(loop + 1) if outcomes[n].val is not None and outcomes[n].share == 1.0]
            assert claimed <= set(there)
            assert best is None or best in there
            assert ctx.parent_of(loop + 1) is None or ctx.parent_of(loop + 1) in there
            if whole:
                assert max(whole, key=lambda n: (outcomes[n].val or 0.0, -n)) in there
            assert len(there) <= max(1 if tight else n_keep, len(claimed) + 2)
            for done in range(loop + 1):
                assert all((ctx.loop_dir(done) / name).is_file() for name in KEPT_FILES)
                assert not list(ctx.loop_dir(done).glob("stages/*/attempt-*/output"))
            if loop in claims and best is not None and best not in claimed:
                claim(ctx, best)
                claimed.add(best)
        ctx.journal.close()


STANDINGS = st.lists(
    st.builds(Standing, st.integers(0, 50), st.floats(0, 1), st.booleans()), unique_by=lambda one: one.loop
)


@given(STANDINGS, st.sets(st.integers(0, 50), max_size=3), st.integers(1, 5))
@settings(deadline=None)
def test_what_must_stay_stays_and_the_rest_is_filled_up_by_val(
    standings: list[Standing], must_stay: set[int], n_keep: int
) -> None:
    kept = kept_loops(standings, must_stay, n_keep)
    assert must_stay <= set(kept)
    assert len(kept) <= max(n_keep, len(must_stay) + 1)
    filled = [one for one in standings if one.loop in kept and one.loop not in must_stay]
    left_out = [one for one in standings if one.loop not in kept]
    assert all((a.whole_val, a.val) >= (b.whole_val, b.val) for a in filled for b in left_out)


def test_one_line_and_two_events_say_what_went(ctx: RunContext) -> None:
    for loop, val in enumerate([0.3, 0.1, 0.2]):
        play(ctx, loop, Outcome(val, leads=loop == 0))
    freed = free_disk(ctx)
    assert with_weights(ctx) == [0, 2]
    assert freed >= 4 * 4096  # three checkpoints and one adapter
    begin, end = events(ctx)
    assert (begin["phase"], begin["kept"], begin["weights_of"]) == ("begin", [0, 2], [1])
    assert end == {"phase": "end", "freed_bytes": freed}
    (line,) = cast("Heard", ctx.progress).lines
    assert line.startswith("disk: 0.0 MiB freed (checkpoints, and the weights of loop 1)")
    assert line.endswith("kept: the weights of loop 0, 2")


def test_nothing_to_free_says_and_records_nothing(ctx: RunContext) -> None:
    play(ctx, 0, Outcome(0.3, leads=True))
    free_disk(ctx)
    n_events = len(events(ctx))
    assert free_disk(ctx) == 0
    assert len(events(ctx)) == n_events
    assert len(cast("Heard", ctx.progress).lines) == 1


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_a_crash_in_the_middle_is_repeated_to_the_same_end(ctx: RunContext, at: int) -> None:
    for loop, val in enumerate([0.3, 0.1, 0.05, 0.2]):
        play(ctx, loop, Outcome(val, leads=loop == 0))
    ctx.faults = Faults(f"while-freeing:{at}:raise")
    with pytest.raises(RuntimeError, match="failpoint"):
        free_disk(ctx)
    assert {0, 3} <= set(with_weights(ctx))
    assert events(ctx)[-1]["weights_of"] == [1, 2]  # known although the end was never written
    ctx.faults = Faults(None)
    free_disk(ctx)
    assert with_weights(ctx) == [0, 3]
    assert events(ctx)[-1]["phase"] == "end"
    assert free_disk(ctx) == 0


def test_a_removal_that_was_cut_off_leaves_no_half_folder_under_the_name(
    ctx: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(ctx, 0, Outcome(0.3, leads=True))
    attempt = ctx.loop_dir(0) / "stages/1-sft/attempt-1"

    def dies(path: Path, **_: Any) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            free_disk(ctx)
    assert not (attempt / "output").exists()
    assert (attempt / ".going-output").is_dir()
    assert free_disk(ctx) > 0
    assert sorted(path.name for path in attempt.iterdir()) == ["adapter", "job.log", "metrics.jsonl"]


def test_a_loop_that_is_not_finished_is_left_alone(ctx: RunContext) -> None:
    play(ctx, 0, Outcome(0.3, leads=True))
    checkpoint = write(ctx.loop_dir(1) / "stages/1-sft/attempt-1/output/checkpoint-5/trainer_state.json")
    free_disk(ctx, n_keep=1, for_room=True)
    assert checkpoint.is_file()


def test_further_seeds_are_freed_only_when_their_claim_is_over(ctx: RunContext) -> None:
    play(ctx, 0, Outcome(0.3, leads=True))
    seed = ctx.loop_dir(0) / "seeds/43/1-sft/attempt-1"
    checkpoint, adapter = (
        write(seed / "output/checkpoint-5/optimizer.pt"),
        write(seed / "adapter/a.safetensors"),
    )
    free_disk(ctx)
    assert checkpoint.is_file()
    claim(ctx, 0)
    free_disk(ctx)
    assert (checkpoint.exists(), adapter.exists()) == (False, True)
    free_disk(ctx, for_room=True)
    assert not adapter.exists()


def test_a_chains_merges_go_when_room_is_needed_and_its_last_weights_never(ctx: RunContext) -> None:
    chain = ("1-sft/attempt-1/adapter", "2-merge/attempt-1/merged", "3-dpo-fix1/attempt-2/adapter",
             "4-merge/attempt-1/merged")  # fmt: skip
    play(ctx, 0, Outcome(0.3, leads=True), chain)
    served = write(ctx.loop_dir(0) / "eval/job/merge-tuned/attempt-1/merged/model.safetensors")
    stages = ctx.loop_dir(0) / "stages"
    free_disk(ctx)
    assert all((stages / name / "adapter_model.safetensors").is_file() for name in chain)
    free_disk(ctx, n_keep=1, for_room=True)
    there = [name for name in chain if (stages / name).exists()]
    assert there == ["4-merge/attempt-1/merged"]
    assert not served.exists()


def test_no_link_of_a_job_leads_out_of_the_run(ctx: RunContext, tmp_path: Path) -> None:
    treasure = write(tmp_path / "elsewhere" / "model.safetensors")
    play(ctx, 0, Outcome(0.3, leads=True))
    play(ctx, 1, Outcome(0.1))
    attempt = ctx.loop_dir(1) / "stages/1-sft/attempt-1"
    (attempt / "model").symlink_to(treasure.parent)
    (attempt / "adapter" / "more").symlink_to(treasure.parent)
    (attempt.parent / "attempt-2").symlink_to(treasure.parent.parent)
    (ctx.loop_dir(1) / "stages" / "2-dpo").symlink_to(tmp_path)
    free_disk(ctx, n_keep=1)
    assert treasure.is_file()
    assert not (attempt / "model").is_symlink()
    assert not (attempt / "adapter").exists()


def test_what_cannot_be_removed_is_told_and_stops_nothing(
    ctx: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(ctx, 0, Outcome(0.3, leads=True))
    play(ctx, 1, Outcome(0.1))
    real = retention.remove_folder

    def refuse(path: Path) -> None:
        if "000" in str(path):
            raise PermissionError(13, "Permission denied")
        real(path)

    monkeypatch.setattr(retention, "remove_folder", refuse)
    free_disk(ctx, n_keep=1)
    assert with_weights(ctx) == [0]
    lines = cast("Heard", ctx.progress).lines
    assert lines[0] == "loops/000/stages/1-sft/attempt-1/output cannot be removed: Permission denied"
    assert len(lines) == 2


def test_a_training_that_does_not_fit_the_budget_is_not_started(ctx: RunContext) -> None:
    for loop, val in enumerate([0.1, 0.3]):
        play(ctx, loop, Outcome(val, leads=True))
    needed = chain_disk_bytes(Recipe(), read_model_shape(Path(ctx.prepared.model.path)), "cpu")
    roomy = ctx.settings.model_copy(update={"disk_budget_gib": 2 * needed / GIB})
    ctx.settings = roomy
    assert make_room(ctx, 2, Recipe()) is None
    assert with_weights(ctx) == [0, 1]  # nothing was deleted without need
    ctx.settings = roomy.model_copy(update={"disk_budget_gib": 0.5 * needed / GIB})
    failure = make_room(ctx, 2, Recipe())
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("resource.disk_full", "environment")
    assert "training this recipe writes about" in failure.message
    assert "FT_DISK_BUDGET_GIB" in failure.message
    assert with_weights(ctx) == [1]  # the best model stays even now


def test_room_that_retention_makes_is_enough(ctx: RunContext) -> None:
    play(ctx, 0, Outcome(0.3, leads=True))
    play(ctx, 1, Outcome(0.1))
    needed = chain_disk_bytes(Recipe(), read_model_shape(Path(ctx.prepared.model.path)), "cpu")
    write(ctx.loop_dir(1) / "stages/1-sft/attempt-1/adapter/large.safetensors", 8 << 20)
    budget = (needed + (4 << 20)) / GIB
    ctx.settings = ctx.settings.model_copy(update={"disk_budget_gib": budget})
    assert make_room(ctx, 2, Recipe()) is None
    assert with_weights(ctx) == [0]


def test_a_full_disk_is_named_with_its_numbers(ctx: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=3 << 20)

    def disk_usage(_: Path) -> SimpleNamespace:
        return usage

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    failure = make_room(ctx, 0, Recipe())
    assert failure is not None
    assert "3.0 MiB are left (on the disk of the run)" in failure.message


def test_a_training_that_has_begun_goes_on(ctx: RunContext) -> None:
    ctx.settings = ctx.settings.model_copy(update={"disk_budget_gib": 1e-6})
    assert make_room(ctx, 0, Recipe()) is not None
    (ctx.loop_dir(0) / "stages").mkdir(parents=True)
    assert make_room(ctx, 0, Recipe()) is None


def test_full_trainings_and_merges_need_more_disk_than_an_adapter(tmp_path: Path) -> None:
    shape = read_model_shape(write_model(tmp_path / "model")).model_copy(update={"stored_params": 10**9})
    lora, full = SftStage(), SftStage(adapter=FullAdapter())
    gib = {
        name: chain_disk_bytes(Recipe(stages=stages), shape, "cuda") / GIB
        for name, stages in {
            "lora": (lora,),
            "full": (full,),
            "chain": (lora, MergeStage(), DpoStage()),
            "reward": (RewardStage(), lora),
        }.items()
    }
    assert gib["lora"] < 1
    assert 35 < gib["full"] < 60  # three checkpoints with two moments each, and the model
    assert gib["chain"] > gib["lora"] + 2 * 4e9 / GIB - 0.1  # merged before dpo, and once more to be scored
    assert gib["reward"] > 4e9 / GIB - 0.1
