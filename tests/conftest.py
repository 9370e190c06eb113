"""Fixtures that every test may use, and a clean environment for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# litellm asks the network for prices when it is imported; before any test module can import it.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# huggingface_hub reads it once, when the first test module imports it.
os.environ["HF_HUB_OFFLINE"] = "1"

# No test asserts a time: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parent.parent
OF_TESTS = {"FT_TEST_DATA", "FT_TEST_DOCKER", "FT_TEST_SERVE", "FT_TEST_OPENCOMPASS", "FT_TEST_LLAMAFACTORY"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No FT_ variable, key or proxy of the person's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("FT_") and name not in OF_TESTS:
            monkeypatch.delenv(name)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A real Docker engine; without FT_TEST_DOCKER=1 the test skips, with it a missing one fails."""
    if os.environ.get("FT_TEST_DOCKER") != "1":
        pytest.skip("needs a Docker engine: run scripts/docker-ci.sh and set FT_TEST_DOCKER=1")
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=20)
        client.ping()
        client.close()
    except DockerException as error:
        pytest.fail(f"FT_TEST_DOCKER=1 and no engine answers: {error}", pytrace=False)


@pytest.fixture
def shared_data() -> Path:
    """Real public data beside the checkout; the test skips where it is absent."""
    folder = Path(os.environ.get("FT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data is not on this machine: set FT_TEST_DATA to its folder")
    return folder
