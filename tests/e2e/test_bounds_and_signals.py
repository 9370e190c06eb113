"""Bounds act inside steps; signals leave a run that can go on; divergence is a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from world import REPOSITORY, World

pytestmark = [pytest.mark.train]


def wait_for_metrics(world: World, name: str, timeout_s: float = 120.0) -> Path:
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        found = sorted(world.files(name).glob("output/*/loops/000/stages/1-sft/attempt-1/metrics.jsonl"))
        if found and found[0].stat().st_size > 0:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("training never began")


def jobs_alive(run_dir: Path) -> list[str]:
    """Command lines of processes that work in the run directory."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").resolve().is_relative_to(run_dir):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def test_gc_stops_the_jobs_of_a_dead_run_and_no_others(world: World) -> None:
    recipe = world.recipe("orphan", max_steps=200_000)
    process = world.start("orphan", *world.new("--recipe", str(recipe), "--loop_n", "1"))
    wait_for_metrics(world, "orphan")
    run_dir = world.run_dir("orphan")
    assert "owned by a live process" in gc(world, "orphan")
    assert jobs_alive(run_dir)
    process.kill()
    process.communicate()
    assert jobs_alive(run_dir), "the job outlives its controller, to be adopted"
    assert "train-1" in gc(world, "orphan")
    assert jobs_alive(run_dir) == []


def gc(world: World, name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rdagent_ft.cli.main", "gc"],
        capture_output=True,
        text=True,
        check=True,
        env=world.environment(name),
        cwd=REPOSITORY,
    )
    return done.stdout


def test_step_n_stops_after_so_many_steps_and_goes_on(world: World) -> None:
    first = world.run("steps", *world.new("--loop_n", "1", "--step_n", "2"))
    assert first.code == 0, first.err
    document = first.document
    assert (document["status"], document["stop_reason"], document["claim"]) == ("stopped", "step_n", None)
    run_dir = Path(document["run_dir"])
    assert not (run_dir / "loops" / "000" / "stages").exists()
    second = world.run("steps", "--resume", "latest", "--json")
    assert second.code == 0, second.err
    assert second.document["status"] == "finished"


def test_a_timeout_cuts_the_training_and_leaves_a_run_that_goes_on(world: World) -> None:
    recipe = world.recipe("endless", max_steps=200_000)
    started = time.monotonic()
    stopped = world.run("timeout", *world.new("--recipe", str(recipe), "--loop_n", "1", "--timeout", "20s"))
    elapsed_s = time.monotonic() - started
    assert stopped.code == 0, stopped.err
    document = stopped.document
    assert (document["status"], document["stop_reason"]) == ("stopped", "timeout")
    assert document["cost"]["wall_s"] < 25, f"took {elapsed_s:.0f} s in all"
    assert jobs_alive(Path(document["run_dir"])) == []
    again = world.run("timeout", "--resume", "latest", "--timeout", "3s", "--json")
    assert again.code == 0, again.err
    assert again.document["stop_reason"] == "timeout"
    assert again.document["loops"] == [], "the loop is still open: nothing was lost, nothing invented"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_job_and_says_how_to_go_on(
    world: World, number: signal.Signals, code: int
) -> None:
    name = f"signal{number}"
    recipe = world.recipe(name, max_steps=300)
    process = world.start(name, *world.new("--recipe", str(recipe), "--loop_n", "1"))
    wait_for_metrics(world, name)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert json.loads(out)["stop_reason"] == "interrupted"
    run_dir = world.run_dir(name)
    assert jobs_alive(run_dir) == []
    if number == signal.SIGINT:
        finished = world.run(name, "--resume", "latest", "--json")
        assert finished.code == 0, finished.err
        assert finished.document["status"] == "finished"
        second = run_dir / "loops" / "000" / "stages" / "1-sft" / "attempt-2"
        assert (second / "result.json").is_file(), "the second attempt is kept beside the first"


def test_a_training_that_diverges_fails_although_the_trainer_ends_well(world: World) -> None:
    recipe = world.recipe("diverge", learning_rate=1e6)
    done = world.run("diverge", *world.new("--recipe", str(recipe), "--loop_n", "1"))
    assert done.code == 0, done.err
    document = done.document
    assert [loop["status"] for loop in document["loops"]] == ["failed"]
    assert document["claim"] is None
    tsv = (Path(document["run_dir"]) / "results.tsv").read_text()
    assert "failed" in tsv
    assert "train.diverged" in (Path(document["run_dir"]) / "loops" / "000" / "feedback.md").read_text()


def test_many_failures_in_a_row_end_the_run(world: World) -> None:
    recipe = world.recipe("diverge2", learning_rate=1e6)
    done = world.run("failures", *world.new("--recipe", str(recipe), "--loop_n", "5"), FT_MAX_FAILURES="1")
    assert done.code == 6, done.err
    assert done.document["stop_reason"] == "failures"
    assert len(done.document["loops"]) == 1
