"""The world is built once for all workers."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from world import World, build


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> World:
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "world"
    root.mkdir(exist_ok=True)
    with Path(root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world = World(root)
        if not (world.model / "config.json").is_file():
            build(root)
    return world
