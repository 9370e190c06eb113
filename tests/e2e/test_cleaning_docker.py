"""What a start and `gc --images` remove from a real engine, seen by whole commands."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_env import PrivateEngine, docker_environment
from world import REPOSITORY, World

from rdagent_ft.engine.lock import hold_run
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_labels import HOST
from rdagent_ft.execution.image_context import ImageRequest, plan_image
from rdagent_ft.execution.image_labels import LABEL_BUILD_STAGE, labels_of
from rdagent_ft.execution.images import newest_image

AS_HOST = """
import sys
from rdagent_ft.execution import docker_labels
docker_labels.host_id = lambda: sys.argv[1]
from rdagent_ft.cli.main import main
main(sys.argv[2:])
"""
"""A command as if this machine had another name: a start looks at all containers of its machine."""
SUBMIT = """
import sys, time
from pathlib import Path
from rdagent_ft.execution import docker_labels
docker_labels.host_id = lambda: sys.argv[1]
from rdagent_ft.execution.docker_engine import connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.port import JobSpec
engine = connect()
executor = DockerExecutor(engine, lambda kind: sys.argv[2], limits=job_limits(engine.info, memory_gib=0.25))
run_dir = Path(sys.argv[3])
executor.submit(JobSpec(attempt_id=f"{sys.argv[1]}-{run_dir.name}", kind="train", argv=("sleep", "600"),
    out_dir=run_dir / "job", labels={"run_dir": str(run_dir)}, deadline_unix=time.time() + 600))
print("submitted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def engine(docker_engine: None) -> Iterator[Engine]:
    found = connect()
    yield found
    found.close()


@pytest.fixture
def host(engine: Engine) -> Iterator[str]:
    name = f"test-{secrets.token_hex(6)}"
    yield name
    for entry in engine.containers({HOST: name}):
        engine.remove(entry["Id"])


@pytest.fixture
def empty_engine(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """An engine without any image, which nobody else uses."""
    found = PrivateEngine(tmp_path_factory.mktemp("engine"))
    found.start()
    yield found
    found.stop()
    found.remove()


def kill_a_controller(engine: Engine, host: str, run_dir: Path) -> str:
    """Have a controller start a container for a run and kill it; return the container's name."""
    run_dir.mkdir(parents=True)
    image = newest_image(engine.client, "train")
    assert image is not None, "build it first: scripts/docker-ci.sh"
    argv = [sys.executable, "-c", SUBMIT, host, image.image_id, str(run_dir)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "submitted\n"
        controller.kill()
    return f"ft-{host}-{run_dir.name}"


def test_the_next_start_of_another_run_removes_what_a_killed_controller_left(
    world: World, engine: Engine, host: str, tmp_path: Path
) -> None:
    output = world.files("cleaning") / "output"
    dead = kill_a_controller(engine, host, output / "dead")
    held = kill_a_controller(engine, host, output / "held")
    elsewhere = kill_a_controller(engine, host, tmp_path / "elsewhere")
    with hold_run(output / "held"):  # somebody resumes that run at this moment
        argv = [sys.executable, "-c", AS_HOST, host, "run", *world.new("--loop_n", "1", "--step_n", "0")]
        environment = world.environment("cleaning", **docker_environment())
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert f"stopped {dead.removeprefix('ft-')}: the process of its run is gone" in done.stderr
    assert engine.inspect(dead) is None
    for name in (held, elsewhere):  # of another FT_FILE_PATH: `gc` removes it, a start leaves it
        found = engine.inspect(name)
        assert found is not None
        assert found["State"]["Running"]


def build(url: str, base: str, version: str, folder: Path) -> str:
    """Build a tiny image that counts as ours; return its tag."""
    plan = plan_image(ImageRequest(name="serve", variant="cpu", base_image=base).with_version("x", version))
    folder.mkdir()
    (folder / "file").write_text(version)
    stage = f"FROM scratch AS stage\nLABEL {LABEL_BUILD_STAGE}=serve\nCOPY file /of-stage\n"
    (folder / "Dockerfile").write_text(f"{stage}FROM scratch\nCOPY --from=stage /of-stage /file\n")
    labels = [f"--label={key}={value}" for key, value in labels_of(plan).items()]
    # The classic builder keeps stages as images, which is what there is to clean up.
    environment = {**os.environ, "DOCKER_HOST": url, "DOCKER_BUILDKIT": "0"}
    argv = ["docker", "build", "-q", f"--tag={plan.tag}", *labels, str(folder)]
    subprocess.run(argv, check=True, capture_output=True, env=environment)
    return plan.tag


def test_superseded_images_go_when_they_are_asked_to(
    world: World, empty_engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", empty_engine.url)
    old = build(empty_engine.url, "one-base", "1", tmp_path / "old")
    new = build(empty_engine.url, "one-base", "2", tmp_path / "new")
    other = build(empty_engine.url, "another-base", "1", tmp_path / "other")
    engine = connect()
    engine.client.images.get(old).tag("somebody/elses", "1")

    def gc(*argv: str) -> str:
        environment = world.environment("gc-images", FT_EXECUTOR="docker", DOCKER_HOST=empty_engine.url)
        argv = (sys.executable, "-m", "rdagent_ft.cli.main", "gc", *argv)
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tags() -> set[str]:
        return {tag for image in engine.client.images.list() for tag in image.tags}

    everything = {old, new, other, "somebody/elses:1"}
    assert gc() == ""
    assert tags() == everything, "images are left alone unless --images asks"
    assert f"{new}: kept; would remove {old}" in gc("--images", "--dry-run")
    assert tags() == everything
    assert f"{new}: kept; removed {old}" in gc("--images")
    assert tags() == everything - {old}
    stages = engine.client.images.list(filters={"label": f"{LABEL_BUILD_STAGE}=serve", "dangling": True})
    assert stages == []
    engine.close()
