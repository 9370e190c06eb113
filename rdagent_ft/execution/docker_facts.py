"""What `doctor` tells of an engine beyond what jobs need: control groups, storage, mapped users."""

from __future__ import annotations

from typing import Any

from rdagent_ft.errors import EngineAwayError
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.values import Frozen


class EngineFacts(Frozen):
    """Facts for people. `maps_users`: uid 0 inside is somebody else outside (`userns-remap`)."""

    cgroup_version: str
    storage_driver: str
    maps_users: bool


def engine_facts(engine: Engine) -> EngineFacts:
    """Ask the engine. Raises `EngineAwayError`."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        info: Any = engine.client.info()
    except (DockerException, RequestException) as error:
        raise EngineAwayError(f"the engine at {engine.url} does not answer: {error}") from None
    options = list[str](info.get("SecurityOptions") or [])
    return EngineFacts(
        cgroup_version=str(info.get("CgroupVersion") or "1"),
        storage_driver=str(info.get("Driver") or "?"),
        maps_users=any("name=userns" in option for option in options),
    )
