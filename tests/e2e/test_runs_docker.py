"""Whole runs whose jobs are containers of a real engine."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker_env import PrivateEngine, containers_below, docker_environment
from world import World

from rdagent_ft.execution.docker_engine import Engine, connect

WAIT_S = 400.0
pytestmark = pytest.mark.timeout(1500)  # a minute or two on quiet cores, many on busy ones


@pytest.fixture
def engine(docker_engine: None, world: World) -> Iterator[Engine]:
    found = connect()
    yield found
    for name in containers_below(found, str(world.root)):
        found.remove(name.lstrip("/"))
    found.close()


@pytest.fixture
def private_engine(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """An engine of this test's own, that may be stopped, with the images of the other one."""
    found = PrivateEngine(tmp_path_factory.mktemp("engine"))
    found.start()
    found.copy_images()
    yield found
    found.stop()
    found.remove()


@pytest.fixture
def in_docker(docker_engine: None) -> dict[str, str]:
    return docker_environment()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at, "condition was not met in time"
        time.sleep(0.1)


def run_dirs(world: World, name: str) -> list[Path]:
    return sorted((world.files(name) / "output").glob("*/run.db"))


def attempts(database: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(database) as connection:
        return connection.execute("SELECT attempt_id, result FROM attempts ORDER BY rowid").fetchall()


def test_a_run_in_containers_ends_as_any_other(
    world: World, engine: Engine, in_docker: dict[str, str]
) -> None:
    done = world.run("docker-whole", *world.new("--loop_n", "1"), timeout_s=900.0, **in_docker)
    assert done.code == 0, done.err
    assert done.document["status"] == "finished"
    run_dir = run_dirs(world, "docker-whole")[0].parent
    assert (run_dir / "export" / "merged" / "config.json").is_file()
    assert containers_below(engine, str(run_dir)) == []
    for attempt_id, result in attempts(run_dir / "run.db"):
        assert '"image_id":"sha256:' in result.replace(" ", ""), attempt_id
    foreign = [p for p in run_dir.rglob("*") if p.lstat().st_uid != os.getuid()]
    assert foreign == []


def test_without_an_engine_a_run_stops_before_anything_and_names_the_way_out(world: World) -> None:
    done = world.run(
        "no-engine", *world.new("--loop_n", "1"), FT_EXECUTOR="docker", DOCKER_HOST="unix:///nowhere.sock"
    )
    assert done.code == 3
    assert "--executor local" in done.err
    assert "Traceback" not in done.err
    assert run_dirs(world, "no-engine") == []


def test_a_killed_controller_is_followed_by_one_that_adopts(
    world: World, engine: Engine, in_docker: dict[str, str]
) -> None:
    arguments = world.new("--loop_n", "1", "--recipe", str(world.recipe("long", epochs=60)))
    controller = world.start("docker-adopt", *arguments, **in_docker, FT_FAULT="while-running:train:1:kill")
    controller.communicate(timeout=WAIT_S)
    assert controller.returncode == -signal.SIGKILL
    database = run_dirs(world, "docker-adopt")[0]
    held = containers_below(engine, str(database.parent))
    assert len(held) == 1
    done = world.run("docker-adopt", "--resume", "latest", "--json", timeout_s=900.0, **in_docker)
    assert done.code == 0, done.err
    trained = [a for a, _ in attempts(database) if "-train-" in a]
    assert len(trained) == 1, "the container was adopted, not started again"
    assert containers_below(engine, str(database.parent)) == []
    log = next((database.parent / "loops/000/stages/1-sft").glob(".attempt-1/*/job.log")).read_text()
    assert "Traceback" not in log


def test_ten_runs_killed_at_random_leave_no_container_after_the_next_start(
    world: World, engine: Engine, in_docker: dict[str, str]
) -> None:
    dice = random.Random(20261121)
    place = str(world.files("docker-kills"))
    most_held = 0
    for _ in range(10):
        controller = world.start("docker-kills", *world.new("--loop_n", "2"), **in_docker)
        time.sleep(dice.uniform(3.0, 12.0))
        controller.kill()
        controller.communicate()
        most_held = max(most_held, len(containers_below(engine, place)))
    assert most_held >= 1, "no kill met a running job: the test showed nothing"
    done = world.run(
        "docker-kills", *world.new("--loop_n", "1", "--step_n", "0"), timeout_s=900.0, **in_docker
    )
    assert done.code == 0, done.err
    assert containers_below(engine, place) == []


def test_a_restarted_engine_costs_one_retry_from_the_checkpoint(
    world: World, private_engine: PrivateEngine, in_docker: dict[str, str]
) -> None:
    settings = {**in_docker, "DOCKER_HOST": private_engine.url}
    recipe = str(world.recipe("longer", epochs=90))
    controller = world.start("docker-restart", *world.new("--loop_n", "1", "--recipe", recipe), **settings)
    stage = "output/*/loops/000/stages/1-sft"
    pattern = f"{stage}/attempt-1/output/checkpoint-*/trainer_state.json"
    saved = world.files("docker-restart")
    wait_until(lambda: controller.poll() is not None or any(saved.glob(pattern)))
    assert controller.poll() is None, controller.communicate()
    private_engine.stop()
    private_engine.start()
    out, err = controller.communicate(timeout=WAIT_S * 2)
    assert controller.returncode == 0, err
    results = [json.loads(r) for a, r in attempts(run_dirs(world, "docker-restart")[0]) if "-train-" in a]
    assert [r["failure_class"] for r in results] == ["infra", "ok"], "one retry"
    second = next(world.files("docker-restart").glob(f"{stage}/attempt-2/result.json"))
    assert json.loads(second.read_text())["resumed_from_step"] > 0
    loop = json.loads(out)["loops"][0]
    assert loop["status"] != "failed", "the hypothesis is not blamed"
