"""An engine behind ssh: the real engine, through a fake `ssh` that connects to it as the real one would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import far_files
from far_engines import put_fake_ssh
from job_steps import finish, spec_of

from rdagent_ft.errors import EngineAwayError, PreflightError
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.docker_ssh import SshBridge, ssh_command

URL = "ssh://trainer@gpu-box:2222"


@pytest.fixture
def ssh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def seen(docker_engine: None, ssh_folder: Path) -> Path:
    """The file with the arguments of all calls of ssh."""
    return put_fake_ssh(ssh_folder)


@pytest.fixture
def ssh_engine(seen: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DOCKER_HOST", URL)
    found = connect()
    yield found
    found.close()
    far_files(engine).tidy()
    far_files(engine).prune_inputs()


def test_a_job_runs_and_its_files_travel(
    tmp_path: Path, ssh_engine: Engine, train_image: str, seen: Path
) -> None:
    assert (ssh_engine.is_remote, ssh_engine.url) == (True, URL)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.bin").write_bytes(bytes(range(256)) * 8000)
    limits = job_limits(ssh_engine.info, memory_gib=1.0)
    executor = DockerExecutor(
        ssh_engine, lambda _kind: train_image, limits=limits, files=far_files(ssh_engine), grace_s=0.5
    )
    code = "open('out.bin', 'wb').write(open('/data/in.bin', 'rb').read() * 2); print('copied')"
    spec = spec_of(tmp_path, code, inputs={"data": tmp_path / "data"}, aliases={"/data": "data"})
    handle = executor.submit(spec)
    result = finish(executor, handle)
    assert (result.failure_class, result.log_tail) == ("ok", "copied\n")
    assert (tmp_path / "job" / "out.bin").read_bytes() == bytes(range(256)) * 16000
    calls = seen.read_text().splitlines()
    assert set(calls) == {
        "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -l trainer -p 2222 -- gpu-box "
        "docker system dial-stdio"
    }
    assert len(calls) < 12, "connections are used again"


def test_closing_ends_every_connection(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", URL)
    found = connect()
    children = [Path(f"/proc/{pid}") for pid in children_of(os.getpid()) if is_ssh(pid)]
    assert children
    found.close()
    assert not any(child.exists() for child in children)


def test_a_refused_connection_says_what_ssh_said(ssh_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "trainer@gpu-box: Permission denied (publickey)."
    (ssh_folder / "ssh").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    (ssh_folder / "ssh").chmod(0o755)
    monkeypatch.setenv("DOCKER_HOST", URL)
    with pytest.raises(EngineAwayError) as refused:
        connect()
    assert refused.value.message == f"no Docker engine answers at {URL}: {said}"
    assert "--executor local" in (refused.value.hint or "")


def test_without_ssh_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", URL)
    with pytest.raises(EngineAwayError, match="ssh"):
        connect()


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("ssh://host", ["--", "host", "docker system dial-stdio"]),
        ("ssh://me@host", ["-l", "me", "--", "host", "docker system dial-stdio"]),
        ("ssh://me@host:22", ["-l", "me", "-p", "22", "--", "host", "docker system dial-stdio"]),
        ("ssh://[::1]:22/", ["-p", "22", "--", "::1", "docker system dial-stdio"]),
        ("ssh://host/run/a b.sock", ["--", "host", "docker --host 'unix:///run/a b.sock' system dial-stdio"]),
        ("ssh://-oProxyCommand=x", ["--", "-oproxycommand=x", "docker system dial-stdio"]),
    ],
)
def test_an_address_becomes_a_command(url: str, end: list[str]) -> None:
    assert ssh_command(url)[-len(end) :] == end


@pytest.mark.parametrize("url", ["ssh://", "ssh://me:secret@host", "ssh://host:notaport", "ssh://host?x=1"])
def test_an_odd_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(PreflightError, match="is no address of an engine") as refused:
        ssh_command(url)
    assert "secret" not in refused.value.render()


def test_the_socket_is_ours_alone(tmp_path: Path) -> None:
    bridge = SshBridge(URL)
    folder = bridge.socket_path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    bridge.close()
    assert not folder.exists()


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def is_ssh(pid: int) -> bool:
    return b"dial-stdio" in Path(f"/proc/{pid}/cmdline").read_bytes()
