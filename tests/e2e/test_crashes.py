"""`kill -9` at every step boundary and in the middle of jobs: resume goes on and equals no crash at all.

One run dies again and again, each time at the next failpoint, and is resumed each time; its journal must
end up equal to that of a run that nobody disturbed, and no finished step may have run twice.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest
from world import World, journal

pytestmark = [pytest.mark.train]

BOUNDARIES = [
    "after-commit:prepare:1",
    "after-intent:baseline:1",
    "after-launch:baseline:1",
    "before-result:baseline:1",
    "before-commit:baseline:1",
    "after-commit:baseline:1",
    "before-commit:propose:1",
    "after-commit:propose:1",
    "before-commit:code:1",
    "after-commit:code:1",
    "before-intent:train:1",
    "after-intent:train:1",
    "after-launch:train:1",
    "while-running:train:1",
    "after-result:train:1",
    "before-commit:train:1",
    "after-commit:train:1",
    "after-launch:evaluate:1",
    "before-commit:evaluate:1",
    "after-commit:evaluate:1",
    "before-commit:feedback:1",
    "after-commit:feedback:1",
    "after-launch:claim:1",
    "before-commit:claim:1",
    "after-commit:claim:1",
    "after-launch:export:1",
    "before-commit:export:1",
    "after-commit:export:1",
]


@pytest.fixture(scope="module")
def undisturbed(world: World) -> Path:
    """`--loop_n 4` at once."""
    done = world.run("calm", *world.new("--loop_n", "4"))
    assert done.code == 0, done.err
    return world.run_dir("calm")


def test_a_run_that_dies_at_every_boundary_ends_like_one_that_did_not(
    world: World, undisturbed: Path
) -> None:
    died = world.run("killed", *world.new("--loop_n", "2"), FT_FAULT=f"{BOUNDARIES[0]}:kill")
    assert died.code == -9, died.err
    for fault in BOUNDARIES[1:]:
        died = world.run("killed", "--resume", "latest", FT_FAULT=f"{fault}:kill")
        assert died.code == -9, f"{fault} was never reached: {died.err}"
    finished = world.run("killed", "--resume", "latest", "--json")
    assert finished.code == 0, finished.err
    assert len(finished.document["loops"]) == 2
    more = world.run("killed", "--resume", "latest", "--loop_n", "4", "--json")
    assert more.code == 0, more.err

    killed, calm = journal(world.run_dir("killed")), journal(undisturbed)
    shared = {name for name in calm["steps"] if not name.endswith(("claim", "export"))}
    assert shared == {name for name in killed["steps"] if not name.endswith(("claim", "export"))}
    for name in sorted(shared):
        assert killed["steps"][name] == calm["steps"][name], name
    assert _jobs_per_step(world.run_dir("killed")) == {1}, "no job was started twice"
    claims = [name for name in killed["steps"] if name.endswith("claim")]
    openings = {killed["steps"][name]["opening"] for name in claims}
    assert openings == set(range(1, len(claims) + 1)), "each opening of the test split is numbered"


def _jobs_per_step(run_dir: Path) -> set[int]:
    connection = sqlite3.connect(f"file:{run_dir / 'run.db'}?mode=ro", uri=True)
    counts = {row[0] for row in connection.execute("SELECT count(*) FROM attempts GROUP BY loop, step")}
    connection.close()
    return counts


def test_killed_in_the_middle_of_training_the_job_is_adopted(world: World) -> None:
    recipe = world.recipe("long", max_steps=400)
    process = world.start("adopt", *world.new("--recipe", str(recipe), "--loop_n", "1"))
    metrics = _wait_for(world, "adopt", "loops/000/stages/1-sft/attempt-1/metrics.jsonl")
    process.kill()
    process.communicate()
    lines_at_kill = len(metrics.read_text().splitlines())
    refused_twice = world.start("adopt", "--resume", "latest", "--json")
    finished = world.run("adopt", "--resume", "latest", "--json")
    refused_twice.communicate(timeout=300)
    codes = {finished.code, refused_twice.returncode}
    assert codes == {0, 7}, "of two resumes one works and one is told who owns the run"
    result = json.loads((metrics.parent / "result.json").read_text())
    assert result["resumed_from_step"] is None, "the running job was adopted, not started again"
    assert len(metrics.read_text().splitlines()) > lines_at_kill
    assert _jobs_per_step(world.run_dir("adopt")) == {1}


def _wait_for(world: World, name: str, relative: str, timeout_s: float = 120.0) -> Path:
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        found = sorted(world.files(name).glob(f"output/*/{relative}"))
        if found and found[0].stat().st_size > 0:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{relative} never appeared")
