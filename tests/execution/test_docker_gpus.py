"""The GPUs of another machine's engine: asked in a container, by the engine's means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker_jobs import MakeDocker

from rdagent_ft.errors import EngineRefusedError
from rdagent_ft.execution import docker_executor, docker_gpus
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_gpus import probe_gpus
from rdagent_ft.execution.docker_labels import HELPER, own_labels
from rdagent_ft.execution.docker_short import run_short, short_options
from rdagent_ft.execution.machine import Gpu

LISTING = "0, GPU-aaaa, 81559, NVIDIA H100 80GB HBM3\n1, GPU-bbbb, 81559, NVIDIA H100 80GB HBM3\n"


def test_the_listing_of_the_container_is_read_whatever_this_machine_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, list[str], dict[str, Any]]] = []

    def answer(
        _engine: object, image: str, argv: list[str], options: dict[str, Any], _timeout_s: float
    ) -> str:
        asked.append((image, argv, options))
        return LISTING

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(docker_gpus, "run_short", answer)
    engine: Any = object()
    found = probe_gpus(engine, "train")
    assert [gpu.uuid for gpu in found] == ["GPU-aaaa", "GPU-bbbb"]
    assert found[0].memory_gib == pytest.approx(79.65, abs=0.01)
    image, argv, options = asked[0]
    assert (image, argv[0]) == ("train", "nvidia-smi")
    assert options["device_requests"][0]["count"] == -1
    assert options["network_mode"] == "none"


def test_an_engine_without_gpus_refuses_and_that_means_none(engine: Engine, train_image: str) -> None:
    if "nvidia" in engine.info.runtimes:
        pytest.skip("this engine has GPUs")
    assert probe_gpus(engine, train_image) == ()
    assert engine.containers({**own_labels(), HELPER: "gpu-probe"}) == []


def test_a_remote_engine_is_asked_once_and_the_gpus_here_do_not_count(
    make_far: MakeDocker, far_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    there = (Gpu(name="there", uuid="GPU-there", memory_gib=80.0),)
    monkeypatch.setattr(
        docker_executor, "read_gpus", lambda: (Gpu(name="here", uuid="GPU-here", memory_gib=8.0),)
    )
    monkeypatch.setattr(docker_executor, "probe_gpus", lambda _engine, image: asked.append(image) or there)
    if "nvidia" not in far_engine.info.runtimes:
        assert make_far().gpus() == ()
        assert asked == []
    runtimes = (*far_engine.info.runtimes, "nvidia")
    far_engine.info = far_engine.info.model_copy(update={"runtimes": runtimes})
    executor = make_far()
    assert (executor.gpus(), executor.gpus()) == (there, there)
    assert len(asked) == 1


def test_a_short_command_has_no_rights_and_leaves_nothing(
    engine: Engine, train_image: str, tmp_path: Path
) -> None:
    options = short_options("test")
    script = "cat /proc/self/status; touch /x 2>&1 || true"
    output = run_short(engine, train_image, ["sh", "-c", script], options, 30.0)
    assert "CapBnd:\t0000000000000000" in output
    assert "Read-only file system" in output
    with pytest.raises(EngineRefusedError, match="boom"):
        run_short(engine, train_image, ["sh", "-c", "echo boom; exit 3"], options, 30.0)
    with pytest.raises(EngineRefusedError, match="did not end"):
        run_short(engine, train_image, ["sleep", "600"], options, 0.5)
    flood = run_short(engine, train_image, ["sh", "-c", "yes | head -c 150000"], options, 60.0)
    assert len(flood) == 1 << 16
    assert engine.containers({**own_labels(), HELPER: "test"}) == []
