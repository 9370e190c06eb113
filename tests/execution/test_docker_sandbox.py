"""What the engine was told and what a job then sees, on a real engine; and an engine that stays away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from far_engines import TcpForwarder, local_socket
from job_steps import finish, run, spec_of, wait_until

from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_labels import container_name
from rdagent_ft.execution.docker_profile import GIB, job_limits, job_variables
from rdagent_ft.execution.docker_transfer import FarFiles

MakeDocker = Callable[..., DockerExecutor]
LOOK = """
import json, os, subprocess
mounts = [line.split() for line in open("/proc/self/mounts")]
def attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"
os.makedirs("/tmp/bin")
with open("/tmp/bin/run", "w") as script: script.write("#!/bin/sh\\necho ran")
os.chmod("/tmp/bin/run", 0o755)
shm, tmp = os.statvfs("/dev/shm"), os.statvfs("/tmp")
json.dump({
    "environment": dict(os.environ),
    "writable": sorted(m[1] for m in mounts if "rw" in m[3].split(",") and m[0] not in
                       ("proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2")),
    "read_only": sorted(m[1] for m in mounts if "ro" in m[3].split(",")),
    "tmp": subprocess.run(["/tmp/bin/run"], capture_output=True, text=True).stdout,
    "shm_bytes": shm.f_blocks * shm.f_frsize,
    "tmp_bytes": tmp.f_blocks * tmp.f_frsize,
    "first": open("/proc/1/cmdline").read().split("\\0")[0],
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "cwd": os.getcwd(),
    "root": attempt(lambda: open("/x", "w")),
    "code": attempt(lambda: open("/opt/rdagent-ft/rdagent_ft/x", "w")),
    "home": os.path.expanduser("~"),
    "name": os.uname().nodename,
}, open("seen.json", "w"))
"""


def test_the_engine_was_told_every_line_of_the_profile(
    tmp_path: Path, make_docker: MakeDocker, engine: Engine
) -> None:
    executor = make_docker(memory_gib=0.5, n_pids=99)
    spec = spec_of(tmp_path, "import time; time.sleep(600)", labels={"run_dir": str(tmp_path)})
    handle = executor.submit(spec)
    found = engine.inspect(container_name(spec.attempt_id))
    assert found is not None
    executor.cancel(handle)
    executor.collect(handle)
    host, config = found["HostConfig"], found["Config"]
    told = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "PidsLimit": 99,
        "Memory": GIB // 2,
        "MemorySwap": GIB // 2,
        "NanoCpus": engine.info.n_cpus * 1_000_000_000,
        "ShmSize": GIB // 4,
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "Init": True,
        "OomScoreAdj": 500,
        "AutoRemove": False,
        "PublishAllPorts": False,
        "Binds": None,
        "Devices": None,
        "DeviceRequests": None,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "3"}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }
    assert {name: host.get(name) or (told[name] and host.get(name)) for name in told} == told
    assert [(u["Name"], u["Soft"], u["Hard"]) for u in host["Ulimits"]] == [("core", 0, 0)]
    assert config["User"] == f"{os.getuid()}:{os.getgid()}"
    assert config["Labels"]["io.rdagent-ft.run-dir"] == str(tmp_path)
    assert [m["Destination"] for m in found["Mounts"] if m["RW"]] == [str(tmp_path / "job")]


def test_a_job_sees_this_and_nothing_else(tmp_path: Path, make_docker: MakeDocker, engine: Engine) -> None:
    (tmp_path / "inputs").mkdir()
    executor = make_docker(memory_gib=0.5)
    spec = spec_of(tmp_path, LOOK, inputs={"in": tmp_path / "inputs"}, env={"WANTED": "yes"})
    result = finish(executor, executor.submit(spec))
    assert result.failure_class == "ok", result.log_tail
    seen: dict[str, Any] = json.loads((tmp_path / "job" / "seen.json").read_text())
    of_the_image = {"PATH", "NVIDIA_DRIVER_CAPABILITIES", "HOSTNAME", "PWD", "SHLVL", "_", "OLDPWD"}
    environment = {key: value for key, value in seen["environment"].items() if key not in of_the_image}
    assert environment == job_variables(spec, engine.info.n_cpus)
    own = {place for place in seen["writable"] if not place.startswith(("/proc/", "/sys/"))}
    assert own == {"/dev", "/dev/shm", "/tmp", str(tmp_path / "job")}
    for place in ("/", "/opt/rdagent-ft/rdagent_ft", str(tmp_path / "inputs")):
        assert place in seen["read_only"]
    assert seen["tmp"] == "ran\n", "/tmp may hold programs: compilers of kernels need that"
    assert (seen["shm_bytes"], seen["tmp_bytes"]) == (GIB // 4, GIB // 8)
    assert seen["first"].endswith("docker-init")
    assert seen["user"][:2] == [os.getuid(), os.getgid()]
    assert seen["cwd"] == str(tmp_path / "job")
    assert seen["root"] == seen["code"] == "Read-only file system"
    assert (seen["home"], seen["name"]) == ("/tmp", "job")


def test_aliases_are_second_paths_of_an_input_and_of_the_output(
    tmp_path: Path, make_docker: MakeDocker
) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text("a row")
    code = "open('/out/data.jsonl', 'w').write(open('/data/train.jsonl').read() + ' again')"
    aliases = {"/data": "rows", "/out": "out"}
    result = run(make_docker(), tmp_path, code, inputs={"rows": tmp_path / "rows"}, aliases=aliases)
    assert result.failure_class == "ok", result.log_tail
    assert (tmp_path / "job" / "data.jsonl").read_text() == "a row again"


def test_evidence_of_an_end_is_kept(tmp_path: Path, make_docker: MakeDocker, engine: Engine) -> None:
    code = "import os, sys\nif os.fork() == 0:\n    x = bytearray(900 << 20)\nos.wait()\nsys.exit(3)"
    result = run(make_docker(memory_gib=0.25), tmp_path, code)
    assert (result.failure_class, result.reason, result.exit_code) == ("resource", "out_of_memory", 3)
    assert result.evidence["oom_killed"] is True
    assert str(result.evidence["image_id"]).startswith("sha256:")
    assert result.evidence["engine_version"] == engine.info.version
    assert result.evidence["memory_limit_bytes"] == GIB // 4
    assert result.evidence["deadline_unix"] > result.ended_unix


def test_a_stalled_job_leaves_its_stacks(tmp_path: Path, make_docker: MakeDocker) -> None:
    code = (
        "import faulthandler, signal, time\nfaulthandler.register(signal.SIGUSR1)\n"
        "def hangs_here():\n    time.sleep(600)\nhangs_here()\n"
    )
    result = run(make_docker(stall_timeout_s=2.0), tmp_path, code)
    assert (result.failure_class, result.reason) == ("resource", "stalled")
    assert "in hangs_here" in result.log_tail


def test_an_engine_that_stays_away_is_given_up_and_nobody_is_blamed(
    tmp_path: Path, engine: Engine, train_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = TcpForwarder(local_socket())
    monkeypatch.setenv("DOCKER_HOST", way.url)
    limits = job_limits(engine.info, memory_gib=0.25)
    with closing(connect()) as far:
        files = FarFiles(far, (os.getuid(), os.getgid()), limits)
        executor = DockerExecutor(far, lambda _kind: train_image, limits=limits, files=files, engine_wait_s=1)
        spec = spec_of(tmp_path, "import time; time.sleep(600)")
        handle = executor.submit(spec)
        assert executor.poll(handle).state == "running"
        way.close()
        wait_until(lambda: executor.poll(handle).state == "ended")
        result = executor.collect(handle)
        assert (result.failure_class, result.reason, result.exit_code) == ("infra", "engine_lost", None)
        assert executor.collect(handle) == result
    found = engine.inspect(container_name(spec.attempt_id))
    assert found is not None
    assert found["State"]["Running"], "what runs on an engine that nobody reaches ends at its own deadline"
    engine.remove(container_name(spec.attempt_id))
    FarFiles(engine, (os.getuid(), os.getgid()), limits).discard(spec.attempt_id)


def test_a_cut_connection_costs_nothing(
    tmp_path: Path, make_far: MakeDocker, forwarder: TcpForwarder
) -> None:
    executor = make_far()
    code = "import time\nfor n in range(40):\n    print(n, flush=True)\n    time.sleep(0.1)"
    handle = executor.submit(spec_of(tmp_path, code))
    n_polls = 0

    def ended() -> bool:
        nonlocal n_polls
        n_polls += 1
        if n_polls % 20 == 0:
            forwarder.cut()
        return executor.poll(handle).state == "ended"

    wait_until(ended)
    assert n_polls > 20, "nothing was cut"
    assert executor.collect(handle).failure_class == "ok"
    assert executor.log_path(handle).read_text() == "".join(f"{n}\n" for n in range(40))
