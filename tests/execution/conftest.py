"""Executors for the tests of this folder: the real local one and the real engine's, near and far."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_jobs import MakeDocker, far_files
from far_engines import TcpForwarder, local_socket

from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_labels import OUT_DIR, labels_of, own_labels
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.docker_transfer import FarFiles
from rdagent_ft.execution.images import newest_image


@pytest.fixture
def engine(docker_engine: None, tmp_path: object) -> Iterator[Engine]:
    """A connection; containers that a test leaves in its own folder are removed."""
    found = connect()
    yield found
    for entry in found.containers(own_labels()):
        if labels_of(entry).get(OUT_DIR, "").startswith(str(tmp_path)):
            found.remove(entry["Id"])
    found.close()


@pytest.fixture
def train_image(engine: Engine) -> str:
    """The built image of training jobs."""
    image = newest_image(engine.client, "train")
    assert image is not None, "build it first: scripts/docker-ci.sh"
    return image.image_id


@pytest.fixture
def make_docker(engine: Engine, train_image: str) -> MakeDocker:
    """Make a docker executor with small limits; keywords go to the executor, `memory_gib` to its limits."""

    def make(*, memory_gib: float = 1.0, output_gib: float = 1.0, **options: Any) -> DockerExecutor:
        limits = job_limits(engine.info, memory_gib=memory_gib, output_gib=output_gib)
        if "n_pids" in options:
            limits = limits.model_copy(update={"n_pids": options.pop("n_pids")})
        return DockerExecutor(engine, lambda _kind: train_image, limits=limits, **{"grace_s": 0.5} | options)

    return make


@pytest.fixture
def forwarder(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpForwarder]:
    """A TCP port that leads to the engine, and DOCKER_HOST set to it."""
    found = TcpForwarder(local_socket())
    monkeypatch.setenv("DOCKER_HOST", found.url)
    yield found
    found.close()


@pytest.fixture
def far_engine(forwarder: TcpForwarder, engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """The engine as a remote one. Containers and volumes that a test leaves are removed."""
    found = connect()
    assert found.is_remote
    yield found
    found.close()
    for entry in engine.containers(own_labels()):
        if labels_of(entry).get(OUT_DIR, "").startswith(str(tmp_path)):
            engine.remove(entry["Id"])
    far_files(engine).tidy()
    far_files(engine).prune_inputs()


@pytest.fixture
def make_far(far_engine: Engine, train_image: str) -> MakeDocker:
    """Make a docker executor whose files travel; keywords as those of `make_docker`."""

    def make(*, memory_gib: float = 1.0, output_gib: float = 1.0, **options: Any) -> DockerExecutor:
        limits = job_limits(far_engine.info, memory_gib=memory_gib, output_gib=output_gib)
        user = options.get("user", (os.getuid(), os.getgid()))
        files = FarFiles(far_engine, user, limits, progress_every_s=0.3)
        return DockerExecutor(
            far_engine, lambda _kind: train_image, limits=limits, **{"grace_s": 0.5, "files": files} | options
        )

    return make
