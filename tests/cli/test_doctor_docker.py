"""`rdagent-ft doctor` on a real engine, and where there is none."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections import namedtuple
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from own_containers import command, kill, sleeping_job, start_controller

from rdagent_ft.cli.check import Check
from rdagent_ft.cli.docker_side import DockerSide
from rdagent_ft.cli.doctor_docker import docker_checks
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import GIB, Limits
from rdagent_ft.execution.image_labels import LABEL_BASE, ImageRef
from rdagent_ft.settings_sources import load_settings

IDS = ["docker", "docker-images", "docker-gpu", "docker-shm", "docker-user", "docker-orphans", "docker-disk"]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path))
    monkeypatch.setenv("FT_ALLOW_CPU", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def with_images(files: Path, train_image: ImageRef, monkeypatch: pytest.MonkeyPatch) -> ImageRef:
    """The settings with which a run would find the images that are there."""
    monkeypatch.setenv("FT_DOCKER_BASE_IMAGE", train_image.base_image)
    return train_image


@pytest.fixture
def has_gpu(engine: Engine) -> None:
    if "nvidia" in engine.info.runtimes or shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")


def doctor(*argv: str, host: str = "any", code: int = 0) -> dict[str, list[Check]]:
    """Run `rdagent-ft doctor --json`; return its checks by id."""
    done = command(host, "doctor", "--json", *argv)
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] is (code == 0)
    found: dict[str, list[Check]] = {}
    for row in document["checks"]:
        found.setdefault(row["id"], []).append(Check.model_validate(row))
    return found


def test_a_sound_engine_passes_and_nothing_stays_behind(
    engine: Engine, files: Path, with_images: ImageRef, own_host: str, has_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FT_DOCKER_SHM_GIB", "0.5")
    found = doctor(host=own_host)
    assert [name for name in found if name.startswith("docker")] == IDS
    by_id = {name: checks[0] for name, checks in found.items()}
    assert engine.info.version in by_id["docker"].found
    assert engine.url in by_id["docker"].found
    assert by_id["docker-shm"].found == "0.5 GiB in /dev/shm, 0.5 GiB asked for"
    uid, gid = os.getuid(), os.getgid()
    assert f"as {uid}:{gid} and its file belongs to {uid}:{gid}" in by_id["docker-user"].found
    assert by_id["docker-user"].status == ("warn" if uid == 0 else "ok")
    for check in found["docker-images"]:
        assert check.status == "ok", check
        tag, image_id = check.found.split()[:2]
        assert engine.image_id(tag) == image_id
        assert tag.split(":")[1] in check.found.split(" built from ")[1]
    for name in ("docker", "docker-gpu", "docker-shm", "docker-orphans"):
        assert by_id[name].status == "ok", by_id[name]
    assert list(files.iterdir()) == []
    assert engine.containers({"io.rdagent-ft.host": own_host}) == []


def test_without_an_engine_doctor_fails_and_names_the_way_out(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    found = doctor(code=3)
    assert found["docker"][0].status == "fail"
    assert "unix:///nowhere.sock" in found["docker"][0].found
    assert "--executor local" in str(found["docker"][0].fix)
    for name in IDS[1:]:
        assert (found[name][0].status, found[name][0].found) == ("warn", "not checked: no engine answers")


def test_a_runtime_that_the_engine_has_not_is_named(
    engine: Engine, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FT_DOCKER_RUNTIME", "no-such-runtime")
    check = doctor("--only", "docker", code=3)["docker"][0]
    assert "no-such-runtime" in check.found
    assert "FT_DOCKER_RUNTIME" in str(check.fix)
    stopped = command("any", "gc")  # and every other verb that needs it, as early
    assert stopped.returncode == 3
    assert "no-such-runtime" in stopped.stderr
    assert "FT_DOCKER_RUNTIME" in stopped.stderr


def test_the_local_executor_needs_no_engine(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    found = doctor("--executor", "local")
    assert [name for name in found if name.startswith("docker")] == ["docker"]
    assert found["docker"] == [Check(id="docker", status="ok", found="not used: the executor is `local`")]
    only = doctor("--executor", "local", "--only", "docker-shm,docker-disk")
    assert list(only) == ["docker-shm", "docker-disk"]


@pytest.mark.parametrize("executor", ["docker", "local"])
def test_a_machine_without_gpu_fails_unless_cpu_is_allowed(
    engine: Engine, with_images: ImageRef, has_gpu: None, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    only = ("--only", "device", "--executor", executor)
    assert doctor(*only)["device"][0].status == "warn"
    monkeypatch.delenv("FT_ALLOW_CPU")
    device = doctor(*only, code=3)["device"][0]
    assert (device.status, device.fix) == ("fail", "set FT_ALLOW_CPU=1 to train on the CPU")


def test_without_gpu_the_check_of_gpus_warns_unless_cpu_is_allowed(
    engine: Engine, with_images: ImageRef, has_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor("--only", "docker-gpu")["docker-gpu"][0].status == "ok"
    monkeypatch.delenv("FT_ALLOW_CPU")
    gpu = doctor("--only", "docker-gpu")["docker-gpu"][0]
    assert gpu.status == "warn"
    assert "FT_ALLOW_CPU=1" in str(gpu.fix)


def test_a_gpu_that_no_container_gets_is_a_failure(
    engine: Engine, files: Path, tmp_path_factory: pytest.TempPathFactory, with_images: ImageRef,
    own_host: str, has_gpu: None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    programs = tmp_path_factory.mktemp("programs")
    fake = programs / "nvidia-smi"  # a machine with a GPU whose engine has no toolkit
    fake.write_text("#!/bin/sh\necho '0, GPU-11111111-2222, 81559, NVIDIA H100 80GB HBM3'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    gpu = doctor("--only", "docker-gpu", host=own_host, code=3)["docker-gpu"][0]
    assert gpu.status == "fail"
    assert "NVIDIA H100 80GB HBM3 (80 GiB)" in gpu.found
    assert "infra/start_failed" in gpu.found
    assert "container toolkit" in str(gpu.fix)
    assert engine.containers({"io.rdagent-ft.host": own_host}) == []
    assert list(files.iterdir()) == []


def test_missing_images_are_named_and_not_built(
    engine: Engine, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"no-such-base-{secrets.token_hex(4)}:1"
    monkeypatch.setenv("FT_DOCKER_BASE_IMAGE", base)
    found = doctor()
    for check in found["docker-images"]:
        assert check.status == "warn"
        assert "missing" in check.found
        assert base in check.found
        assert str(check.fix).startswith("rdagent-ft images build ")
    assert found["docker-user"][0].status == "warn"
    assert "not checked" in found["docker-user"][0].found
    assert engine.client.images.list(filters={"label": f"{LABEL_BASE}={base}"}) == []
    assert list(files.iterdir()) == []


def test_orphans_are_containers_that_nobody_waits_for(
    engine: Engine, files: Path, train_image: ImageRef, own_host: str
) -> None:
    spec = sleeping_job(files / "output" / "a-run", f"{own_host}-orphan")
    controller = start_controller(own_host, train_image.image_id, spec)
    only = ("--only", "docker-orphans")
    alive = doctor(*only, host=own_host)["docker-orphans"][0]
    assert (alive.status, alive.found) == ("ok", "none (1 containers of live runs)")
    kill(controller)
    dead = doctor(*only, host=own_host)["docker-orphans"][0]
    assert (dead.status, dead.fix) == ("warn", "rdagent-ft gc")
    assert f"ft-{spec.attempt_id}" in dead.found
    assert engine.inspect(f"ft-{spec.attempt_id}") is not None, "doctor only looks"


class Side(DockerSide):
    """An engine whose containers are not as they were asked for."""

    user: tuple[int, int] | None = None
    shm_bytes_given: int | None = None

    @cached_property
    def executor(self) -> DockerExecutor:
        image = self.train_image
        assert image is not None
        limits: Limits = self.limits
        if self.shm_bytes_given is not None:
            limits = limits.model_copy(update={"shm_bytes": self.shm_bytes_given})
        return DockerExecutor(self.engine, lambda _kind: image.image_id, limits=limits, user=self.user)


@pytest.fixture
def side(with_images: ImageRef, own_host: str) -> Any:
    found = Side(load_settings().settings)
    yield found
    found.close()


def test_a_job_that_is_somebody_else_is_found(side: Side) -> None:
    side.user = (os.getuid() + 12_345, os.getgid())
    check = docker_checks(side, None)["docker-user"]()[0]
    assert check.status == "fail"
    assert "Permission denied" in check.found
    assert "--executor local" in str(check.fix)


def test_a_file_that_belongs_to_somebody_else_is_found(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: owner)
    side.user = (owner - 1, os.getgid())
    check = docker_checks(side, None)["docker-user"]()[0]
    assert check.status == "fail"
    assert f"belongs to {owner - 1}:" in check.found
    assert f"you are {owner}:" in check.found


def test_shared_memory_that_the_engine_does_not_give_is_found(side: Side) -> None:
    side.shm_bytes_given = 64 << 20
    check = docker_checks(side, None)["docker-shm"]()[0]
    assert check.status == "fail"
    assert check.found.startswith("0.1 GiB in /dev/shm")


def test_a_full_engine_is_a_warning(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 * GIB, 90 * GIB, 10 * GIB))
    check = docker_checks(side, None)["docker-disk"]()[0]
    assert check.status == "warn"
    assert check.found.startswith("10 GiB free for ")


def test_a_disk_that_cannot_be_seen_from_here_is_seen_from_a_container(
    side: Side, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_gib = shutil.disk_usage(engine.info.root_dir).free / GIB

    def refuse(_path: str) -> None:
        raise PermissionError

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    check = docker_checks(side, None)["docker-disk"]()[0]
    assert float(check.found.split()[0]) == pytest.approx(real_gib, rel=0.2)
