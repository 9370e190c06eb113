"""`rdagent-ft gc` with containers of a real engine: what it removes, and all that it leaves alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_containers import SLEEP, command, is_running, kill, sleeping_job, start_controller

from rdagent_ft.engine.lock import hold_run
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import control_folder, read_result
from rdagent_ft.execution.image_labels import ImageRef

Gc = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FT_FILE_PATH of its own, and the settings of a docker executor."""
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path / "files"))
    monkeypatch.setenv("FT_EXECUTOR", "docker")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "files"


@pytest.fixture
def run_dir(files: Path) -> Path:
    """The folder of a run."""
    found = files / "output" / "a-run"
    found.mkdir(parents=True)
    return found


@pytest.fixture
def dead(run_dir: Path, own_host: str, train_image: ImageRef) -> str:
    """A container whose controller was killed; its attempt id."""
    spec = sleeping_job(run_dir, f"{own_host}-dead")
    kill(start_controller(own_host, train_image.image_id, spec))
    return spec.attempt_id


@pytest.fixture
def gc(files: Path, own_host: str) -> Gc:
    """Run `rdagent-ft gc` to its good end and return what it said."""

    def run(*argv: str) -> str:
        done = command(own_host, "gc", *argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_container_of_a_killed_controller_is_removed(
    engine: Engine, run_dir: Path, dead: str, gc: Gc
) -> None:
    assert is_running(engine, f"ft-{dead}"), "the job outlives its controller, to be adopted"
    assert dead in gc()
    assert engine.inspect(f"ft-{dead}") is None
    result = read_result(control_folder(run_dir / "job", dead))
    assert result is not None
    assert (result.failure_class, result.reason) == ("infra", "reaped"), "a resume tries once more"
    assert dead not in gc()


def test_a_dry_run_says_so_and_touches_nothing(engine: Engine, run_dir: Path, dead: str, gc: Gc) -> None:
    before = sorted(str(path) for path in run_dir.rglob("*"))
    said = gc("--dry-run")
    assert f"a-run: would stop {dead}" in said
    assert is_running(engine, f"ft-{dead}")
    assert sorted(str(path) for path in run_dir.rglob("*")) == before


def test_a_container_whose_run_was_deleted_is_removed(
    engine: Engine, run_dir: Path, dead: str, gc: Gc
) -> None:
    shutil.rmtree(run_dir)
    assert dead in gc()
    assert engine.inspect(f"ft-{dead}") is None
    assert not run_dir.exists(), "nothing is written into a folder that somebody removed"


def test_a_container_of_another_output_folder_is_removed(
    engine: Engine, tmp_path: Path, dead: str, gc: Gc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path / "elsewhere"))
    assert dead in gc()
    assert engine.inspect(f"ft-{dead}") is None


def test_a_run_that_a_live_process_holds_keeps_its_container(
    engine: Engine, run_dir: Path, dead: str, gc: Gc
) -> None:
    with hold_run(run_dir):  # a resume that is about to adopt it
        assert "owned by a live process, left alone" in gc()
        assert is_running(engine, f"ft-{dead}")
    assert dead in gc()


def test_a_live_controller_keeps_its_container(
    engine: Engine, run_dir: Path, own_host: str, train_image: ImageRef, gc: Gc
) -> None:
    spec = sleeping_job(run_dir, f"{own_host}-alive")
    controller = start_controller(own_host, train_image.image_id, spec)
    assert spec.attempt_id not in gc()
    assert is_running(engine, f"ft-{spec.attempt_id}")
    kill(controller)
    assert spec.attempt_id in gc()


@pytest.fixture
def foreign(request: pytest.FixtureRequest, engine: Engine, own_host: str, dead: str) -> Iterator[str]:
    """A container that is not ours to touch: the labels of a dead job of ours, changed in one point."""
    found = engine.inspect(f"ft-{dead}")
    assert found is not None
    labels: dict[str, str] = {**found["Config"]["Labels"], docker_labels.ATTEMPT: f"{own_host}-foreign"}
    if request.param == "no labels":
        labels = {}
    elif request.param == "owner lives":
        labels[docker_labels.OWNER] = docker_labels.job_labels(sleeping_job(Path("/x"), "x"), Path("/x"))[
            docker_labels.OWNER
        ]
    else:
        labels |= request.param
    name = f"ft-{own_host}-foreign"
    options = {"labels": labels, "network_mode": "none"}
    engine.create(name, str(found["Image"]), list(SLEEP), options)
    engine.start(name)
    yield name
    engine.remove(name)


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param("no labels", id="only-name-and-image"),
        pytest.param({docker_labels.HOST: "another-machine"}, id="another-host"),
        pytest.param({docker_labels.UID: str(os.getuid() + 1)}, id="another-user"),
        pytest.param("owner lives", id="a-living-owner"),
    ],
    indirect=True,
)
def test_other_containers_are_left_alone(engine: Engine, foreign: str, dead: str, gc: Gc) -> None:
    assert dead in gc(), "the same sweep removes what is ours"
    assert is_running(engine, foreign)
