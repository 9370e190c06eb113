"""What survives a controller that dies: the log to the byte, the end, the container's own deadline."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from docker_jobs import MakeDocker
from job_steps import finish, spec_of, wait_until

from rdagent_ft.execution import docker_profile
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_labels import container_name
from rdagent_ft.execution.docker_profile import job_limits

FOLLOW = """
import sys, time
from rdagent_ft.execution.docker_engine import connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.port import JobSpec
engine = connect()
executor = DockerExecutor(engine, lambda kind: sys.argv[2], limits=job_limits(engine.info, memory_gib=1))
handle = executor.submit(JobSpec.model_validate_json(sys.argv[1]))
print("following", flush=True)
while executor.poll(handle).state == "running":
    time.sleep(0.02)
time.sleep(600)
"""


def test_a_log_followed_by_many_controllers_has_no_gap_and_no_repetition(
    tmp_path: Path, make_docker: MakeDocker, train_image: str
) -> None:
    code = (
        "import time\n"
        "for n in range(30000):\n"
        "    print(f'line {n:05d} ' + 'é' * (n % 200), flush=n % 50 == 0)\n"
        "    if n % 500 == 0: time.sleep(0.1)\n"
        "print('z' * 40000)\n"
    )
    spec = spec_of(tmp_path, code)
    dice = random.Random(7)
    for _ in range(6):
        argv = [sys.executable, "-c", FOLLOW, spec.model_dump_json(), train_image]
        controller = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert controller.stdout is not None
        assert controller.stdout.readline() == b"following\n"
        time.sleep(dice.uniform(0.1, 0.9))
        controller.kill()
        controller.wait()
        controller.stdout.close()
    executor = make_docker()
    handle = executor.submit(spec)
    assert finish(executor, handle).failure_class == "ok"
    expected = "".join(f"line {n:05d} " + "é" * (n % 200) + "\n" for n in range(30000)) + "z" * 40000 + "\n"
    assert executor.log_path(handle).read_text() == expected


def test_a_container_ends_itself_when_no_controller_comes_back(
    tmp_path: Path, make_docker: MakeDocker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_profile, "ORPHAN_GRACE_S", 1)
    spec = spec_of(tmp_path, "import time; time.sleep(600)", deadline_unix=time.time() + 2)
    handle = make_docker().submit(spec)

    def ended() -> bool:
        found = engine.inspect(container_name(spec.attempt_id))
        return found is not None and not found["State"]["Running"]

    wait_until(ended)
    result = make_docker().collect(handle)
    assert (result.failure_class, result.reason) == ("resource", "deadline")


def test_a_container_removed_by_someone_else_is_infra(
    tmp_path: Path, make_docker: MakeDocker, engine: Engine
) -> None:
    executor = make_docker()
    spec = spec_of(tmp_path, "import time; time.sleep(600)")
    handle = executor.submit(spec)
    engine.remove(container_name(spec.attempt_id))
    result = finish(executor, handle)
    assert (result.failure_class, result.reason, result.exit_code) == ("infra", "lost", None)


def test_a_name_taken_by_a_foreign_container_is_refused_and_left_alone(
    tmp_path: Path, make_docker: MakeDocker, engine: Engine, train_image: str
) -> None:
    spec = spec_of(tmp_path, "pass")
    name = container_name(spec.attempt_id)
    engine.create(name, train_image, ["sleep", "600"], {"network_mode": "none"})
    try:
        with pytest.raises(Exception, match="not ours"):
            make_docker().submit(spec)
        assert engine.inspect(name) is not None
    finally:
        engine.remove(name)


def test_files_belong_to_the_caller_whoever_that_is(tmp_path: Path, engine: Engine, train_image: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can act for another user")
    (tmp_path / "job").mkdir()
    os.chown(tmp_path / "job", 1234, 4321)
    limits = job_limits(engine.info, memory_gib=1)
    executor = DockerExecutor(engine, lambda _kind: train_image, limits=limits, user=(1234, 4321))
    code = "import os, torch, getpass; os.mkdir('a'); open('a/b', 'w').write(getpass.getuser())"
    result = finish(executor, executor.submit(spec_of(tmp_path, code)))
    assert result.failure_class == "ok", result.log_tail
    written = [tmp_path / "job" / "a", tmp_path / "job" / "a" / "b"]
    assert {(p.stat().st_uid, p.stat().st_gid) for p in written} == {(1234, 4321)}
