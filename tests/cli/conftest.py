"""An engine, an image and a host name for the tests of this folder that need containers."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.image_labels import ImageRef
from rdagent_ft.execution.images import newest_image


@pytest.fixture
def engine(docker_engine: None) -> Iterator[Engine]:
    """A connection to the real engine."""
    found = connect()
    yield found
    found.close()


@pytest.fixture
def train_image(engine: Engine) -> ImageRef:
    """The built image of training jobs."""
    image = newest_image(engine.client, "train")
    assert image is not None, "build it first: scripts/docker-ci.sh"
    return image


@pytest.fixture
def own_host(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host name that only this test's containers carry; they are removed in the end."""
    host = f"test-{secrets.token_hex(6)}"
    monkeypatch.setattr(docker_labels, "host_id", lambda: host)
    yield host
    for entry in engine.containers({docker_labels.HOST: host}):
        engine.remove(entry["Id"])
