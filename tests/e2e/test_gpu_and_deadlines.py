"""Whole runs without a GPU, and with jobs that take longer than their settings allow."""

from __future__ import annotations

import json
import sqlite3

import pytest
from docker_env import docker_environment
from world import World


def settings_of(executor: str, request: pytest.FixtureRequest) -> dict[str, str]:
    if executor == "docker":
        request.getfixturevalue("docker_engine")
        return {**docker_environment(), "CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("executor", ["local", "docker"])
def test_without_a_gpu_no_run_trains_on_the_cpu_by_mistake(
    world: World, request: pytest.FixtureRequest, executor: str
) -> None:
    name = f"no-gpu-{executor}"
    settings = {**settings_of(executor, request), "FT_ALLOW_CPU": "False"}
    done = world.run(name, *world.new("--loop_n", "1"), **settings)
    assert done.code == 3
    assert "FT_ALLOW_CPU=1" in done.err
    assert "Traceback" not in done.err
    assert list((world.files(name) / "output").iterdir()) == []


@pytest.mark.parametrize("executor", ["local", "docker"])
def test_a_training_past_its_time_ends_the_loop_and_blames_no_hypothesis(
    world: World, request: pytest.FixtureRequest, executor: str
) -> None:
    name = f"too-slow-{executor}"
    recipe = world.recipe("slow", max_steps=200_000)
    arguments = world.new("--recipe", str(recipe), "--loop_n", "1")
    done = world.run(name, *arguments, FT_FULL_TIMEOUT="15", **settings_of(executor, request))
    with sqlite3.connect(world.run_dir(name) / "run.db") as database:
        rows = database.execute("SELECT result FROM attempts WHERE step = 'train'").fetchall()
    results = [json.loads(row[0]) for row in rows]
    assert [(r["failure_class"], r["reason"]) for r in results] == [("resource", "deadline")], done.err
    assert "failed: [resource.deadline]" in done.err
    with sqlite3.connect(world.run_dir(name) / "run.db") as database:
        (output,) = database.execute("SELECT output FROM steps WHERE step = 'train'").fetchone()
    assert json.loads(output)["failure"]["blame"] == "environment"
    assert 10 < results[0]["ended_unix"] - results[0]["started_unix"] < 120


def test_an_evaluation_past_its_time_is_ended(world: World) -> None:
    world.run("slow-evaluation", *world.new("--loop_n", "1"), FT_BENCHMARK_TIMEOUT="1")
    with sqlite3.connect(world.run_dir("slow-evaluation") / "run.db") as database:
        rows = database.execute("SELECT result FROM attempts WHERE step = 'baseline'").fetchall()
    results = [json.loads(row[0]) for row in rows]
    assert results
    assert {(r["failure_class"], r["reason"]) for r in results} == {("resource", "deadline")}
