"""A real run that keeps one model: killed while it frees the disk, resumed, reported and compared."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from world import Finished, World, journal

pytestmark = [pytest.mark.train]
RECORDS = (
    "eval/heldout-val/samples.jsonl", "files/1-sft.yaml", "stages/1-sft/manifest.json",
    "stages/1-sft/attempt-1/metrics.jsonl", "stages/1-sft/attempt-1/result.json",
)  # fmt: skip
RECIPE: dict[str, Any] = {"epochs": 4, "eval_share": 0.1, "keep": "best"}


@pytest.fixture(scope="module")
def finished(world: World) -> Finished:
    recipe = world.recipe("best", **RECIPE)
    argv = world.new("--loop_n", "2", "--planner", "random", "--recipe", str(recipe))
    died = world.run("disk", *argv, FT_KEEP_MODELS="1", FT_FAULT="while-freeing:1:kill")
    assert died.code == -9, died.err
    return world.run("disk", "--resume", "latest", "--json", FT_KEEP_MODELS="1")


def test_the_run_ends_as_if_nothing_had_happened(finished: Finished) -> None:
    assert finished.code == 0, finished.err
    assert finished.document["status"] == "finished"
    assert "disk: " in finished.err


def test_only_the_best_model_is_left_and_every_record_is(finished: Finished) -> None:
    run_dir = Path(finished.document["run_dir"])
    steps = journal(run_dir)["steps"]
    vals = {n: steps[f"{n} evaluate"]["val"]["value"] for n in (0, 1) if steps[f"{n} evaluate"]["val"]}
    leaders = [n for n in (0, 1) if steps[f"{n} feedback"]["new_parent"]]
    assert not list(run_dir.glob("loops/*/stages/*/attempt-*/output"))
    there = {int(path.parts[-5]) for path in run_dir.glob("loops/*/stages/*/attempt-*/model")}
    must = {max(vals, key=lambda n: (vals[n], -n))} | set(leaders[-1:])
    assert must <= there
    if leaders:  # without a leader a third rule counts: the candidate that is claimed
        assert there == must
    for loop in vals:
        folder = run_dir / f"loops/{loop:03d}"
        for name in RECORDS:
            assert (folder / name).is_file(), name


def test_the_first_loop_kept_its_best_checkpoint(finished: Finished) -> None:
    attempt = Path(finished.document["run_dir"]) / "loops/000/stages/1-sft/attempt-1"
    result = json.loads((attempt / "result.json").read_text())
    lines = [json.loads(line) for line in (attempt / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    assert len(losses) >= 5
    assert result["kept"]["step"] == min(losses, key=losses.__getitem__)
    assert result["kept"]["n_held_out"] + result["n_rows"] == 300  # the train split of this world


def test_what_went_is_in_the_journal_although_the_first_try_was_killed(finished: Finished) -> None:
    connection = sqlite3.connect(Path(finished.document["run_dir"]) / "run.db")
    rows = connection.execute("SELECT payload FROM events WHERE kind = 'retention' ORDER BY number")
    phases = [json.loads(row[0]) for row in rows]
    connection.close()
    assert [one["phase"] for one in phases[:2]] == ["begin", "begin"]
    assert phases[-1]["phase"] == "end"
    assert all(one["freed_bytes"] > 0 for one in phases if one["phase"] == "end")


def test_a_loop_without_weights_is_reported_and_compared(finished: Finished, world: World) -> None:
    run_dir = Path(finished.document["run_dir"])
    folders = [str(run_dir / f"loops/{loop}/eval") for loop in ("000", "001")]
    for argv in (("report", run_dir.name), ("compare", *folders, "--json")):
        done = subprocess.run(
            [sys.executable, "-m", "rdagent_ft.cli.main", *argv],
            capture_output=True, text=True, check=False, timeout=120, env=world.environment("disk"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout
