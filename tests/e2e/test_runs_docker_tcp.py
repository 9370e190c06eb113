"""A whole run whose engine sees none of our files: the real one, reached through TCP."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from docker_env import containers_below, docker_environment
from far_engines import TcpForwarder, local_socket
from world import World

from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_labels import ATTEMPT, CONTENT, labels_of, own_labels


@pytest.fixture
def engine(docker_engine: None, world: World) -> Iterator[Engine]:
    found = connect()
    yield found
    for name in containers_below(found, str(world.root)):
        found.remove(name.lstrip("/"))
    for entry in found.volumes({**own_labels(), CONTENT: ""}):
        found.remove_volume(entry["Name"])
    found.close()


@pytest.fixture
def far(docker_engine: None) -> Iterator[dict[str, str]]:
    """The settings of a run over TCP."""
    forwarder = TcpForwarder(local_socket())
    yield docker_environment() | {"DOCKER_HOST": forwarder.url}
    forwarder.close()


def test_a_run_on_a_remote_engine_ends_as_any_other(
    world: World, engine: Engine, far: dict[str, str]
) -> None:
    done = world.run("docker-tcp", *world.new("--loop_n", "1"), timeout_s=500.0, **far)
    assert done.code == 0, done.err
    assert done.document["status"] == "finished"
    run_dir = world.run_dir("docker-tcp")
    assert (run_dir / "export" / "merged" / "config.json").is_file()
    assert containers_below(engine, str(run_dir)) == []
    left = [v for v in engine.volumes({**own_labels(), ATTEMPT: ""}) if run_dir.name in labels_of(v)[ATTEMPT]]
    assert left == []
    assert [p for p in run_dir.rglob("*") if p.lstat().st_uid != os.getuid()] == []
