"""The hostile corpus on a real engine: the host is unharmed, the end is classed, the next job runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile_case import CANARY, PRELUDE, HostileJob
from hostile_jobs import HOSTILE_JOBS
from job_steps import WAIT_S, finish

from rdagent_ft.errors import JobError
from rdagent_ft.execution import docker_watch
from rdagent_ft.execution.carry import copy_tree
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import DockerExecutor, control_folder
from rdagent_ft.execution.docker_profile import Limits
from rdagent_ft.execution.outputs import read_json_file, read_log
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec
from rdagent_ft.execution.tail import JsonLinesTail
from rdagent_ft.execution.weight_files import check_weights
from rdagent_ft.training.failures import classify
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_failure, read_train_result

MIB = 1 << 20
SMALL = Limits(
    memory_bytes=256 * MIB, n_cpus=2.0, shm_bytes=128 * MIB, tmp_bytes=64 * MIB, n_pids=128,
    output_bytes=64 * MIB, n_output_files=5_000,
)  # fmt: skip
LOG_MAX_BYTES = 4 * MIB
MAX_COPIED_BYTES, MAX_COPIED_FILES = 64 * MIB, 3_000


@dataclass(frozen=True)
class World:
    """A run's folder with a job's place in it, and host files that no job may see or change."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def out(self) -> Path:
        return self.run / "stages" / "1-sft" / "attempt-1"

    @property
    def base(self) -> Path:
        return self.root / "inputs" / "base"

    @property
    def secret(self) -> Path:
        return self.root / "home" / "secret.json"

    def spec(self, code: str, number: int, deadline_s: float) -> JobSpec:
        return JobSpec(
            attempt_id=f"{self.root.name}-{os.getpid()}-train-{number}",
            kind="train",
            argv=("python", "-c", code),
            out_dir=self.out.with_name(f"attempt-{number}"),
            inputs={"base": self.base},
            labels={"run_dir": str(self.run)},
            deadline_unix=time.time() + deadline_s,
        )

    def host_files(self) -> dict[str, tuple[int, float, bytes]]:
        """Return mode, change time and content of all that is not the jobs' or the controller's own."""
        own = ("attempt-1", "attempt-2", ".attempt-1", ".attempt-2")
        found: dict[str, tuple[int, float, bytes]] = {}
        for parent, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name not in own]
            for name in (*folders, *files):
                path = Path(parent, name)
                status = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                changed = 0.0 if name == "1-sft" else status.st_mtime  # the jobs' folders lie in it
                found[str(path.relative_to(self.root))] = (status.st_mode, changed, content)
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Removed by `rm`: folders that are nested 1,500 deep are too much for Python's own rmtree."""
    made = World(tmp_path / "world")
    made.out.parent.mkdir(parents=True)
    (made.run / "run.db").write_text("the journal")
    (made.out.parent / "neighbour.txt").write_text("of another attempt")
    made.base.mkdir(parents=True)
    (made.base / "in.txt").write_text("seven")
    (made.base / "model.safetensors").write_bytes(b"base")
    made.secret.parent.mkdir()
    lines = f'{{"weights": "adapter", "class": "{CANARY}", "step": 1, "loss": 1.0, "message": "{CANARY}"}}\n'
    made.secret.write_text(lines)
    (made.secret.parent / "adapter_config.json").write_text(lines)
    (made.secret.parent / "adapter_model.safetensors").write_text(lines)
    yield made
    subprocess.run(["rm", "-rf", str(made.root)], check=True)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An open port of the host, and an abstract socket of its network namespace."""
    with socket.create_server(("0.0.0.0", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0ft-canary")
        abstract.listen()
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("job", HOSTILE_JOBS, ids=lambda job: job.name)
def test_a_hostile_job_is_contained(
    job: HostileJob, world: World, engine: Engine, train_image: str, listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(docker_watch, "OUTPUT_LOOK_S", 0.5)
    for name in ("FT_LLM_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "SOME_VARIABLE"):
        monkeypatch.setenv(name, CANARY)
    limits = SMALL.model_copy(update=job.limits)
    executor = DockerExecutor(
        engine, lambda _kind: train_image, limits=limits, grace_s=0.5, log_max_bytes=LOG_MAX_BYTES,
        stall_timeout_s=job.stall_timeout_s,
    )  # fmt: skip
    before, memory_before = world.host_files(), _memory_mib(reset=True)

    spec = world.spec(_code_of(job, world, listener), 1, job.deadline_s)
    handle = executor.submit(spec)
    container = engine.inspect(f"ft-{spec.attempt_id}")
    assert container is not None
    tail = JsonLinesTail(world.out / "metrics.jsonl")
    n_processes = 0
    give_up_at = time.monotonic() + job.deadline_s + WAIT_S
    while executor.poll(handle).state == "running":
        assert time.monotonic() < give_up_at, "the job did not end"
        n_processes = max(n_processes, len(_processes_of(container["Id"])))
        tail.read_new()
        time.sleep(0.1)
    result = executor.collect(handle)
    readings = _readings(world, executor, handle, result, tail)

    assert (result.failure_class, result.reason) in job.ends, result
    assert result == executor.collect(handle)
    _check_what_it_saw(job, world)
    for reader, part in job.readings.items():
        assert part in readings[reader], (reader, readings)
    assert all(part in result.log_tail for part in job.log_has), result.log_tail[-500:]
    assert not [part for part in job.log_lacks if part in result.log_tail]

    assert n_processes <= limits.n_pids + 8  # what enters the container from outside counts too
    assert _processes_of(container["Id"]) == []
    assert engine.inspect(container["Id"]) is None
    assert world.host_files() == before
    assert CANARY not in str(readings) + result.model_dump_json() + read_log(executor.log_path(handle))
    assert executor.log_path(handle).stat().st_size < LOG_MAX_BYTES + 70_000
    assert _disk_mib(world.out) <= job.max_disk_mib
    assert _odd_rights(world.out) == ""
    assert _memory_mib() - memory_before <= job.max_host_mib
    with pytest.raises(BlockingIOError):
        listener.accept()

    harmless = world.spec(f"print(open({str(world.base / 'in.txt')!r}).read())", 2, 60)
    after = finish(executor, executor.submit(harmless))
    assert (after.failure_class, after.log_tail) == ("ok", "seven\n")


CALLER = """
import os, shutil, sys, time
from pathlib import Path
from rdagent_ft.errors import JobError
from rdagent_ft.execution.docker_engine import connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_train_result

root, image, code, nobody = Path(sys.argv[1]), sys.argv[2], sys.argv[3], 65534
engine = connect()
executor = DockerExecutor(
    engine, lambda kind: image, limits=job_limits(engine.info, memory_gib=0.5), user=(nobody, nobody))

def run(name, code):
    (root / name).mkdir(parents=True)
    os.chown(root / name, nobody, nobody)
    handle = executor.submit(JobSpec(
        attempt_id=f"{root.name}-{name}", kind="train", argv=("python", "-c", code), out_dir=root / name,
        deadline_unix=time.time() + 60))
    while executor.poll(handle).state == "running":
        time.sleep(0.05)
    return executor.collect(handle)

run("first", "pass")  # loads what is imported late, and what only root can read
(root / ".second").mkdir()
for folder in (root, root / ".second"):
    os.chown(folder, nobody, nobody)
os.setgroups([Path("/var/run/docker.sock").stat().st_gid])
os.setgid(nobody)
os.setuid(nobody)
result = run("second", code)
print(result.failure_class, result.reason)
print(read_health(root / "second" / "metrics.jsonl").message)
try:
    read_train_result(root / "second")
except JobError as error:
    print(error.message)
shutil.rmtree(root / "second")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="the corpus runs without privileges already")
def test_a_caller_without_privileges_reads_and_removes_what_took_its_rights_away(
    tmp_path: Path, engine: Engine, train_image: str
) -> None:
    job = next(job for job in HOSTILE_JOBS if job.name == "takes_its_own_rights_away")
    root = Path(tempfile.mkdtemp(prefix="ft-caller-"))  # folders of pytest are for their owner only
    try:
        root.chmod(0o755)
        argv = [sys.executable, "-c", CALLER, str(root), train_image, PRELUDE + job.code]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S)
        end, *messages = done.stdout.splitlines() or [done.stderr]
        assert tuple(end.split()) in job.ends, done.stderr
        assert messages == [
            "`metrics.jsonl` cannot be read: Permission denied",
            "`result.json` cannot be read: Permission denied",
        ], done.stderr
        assert not (root / "second").exists()
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)


def _code_of(job: HostileJob, world: World, listener: socket.socket) -> str:
    places = {
        "INPUT": str(world.base),
        "OUT": str(world.out),
        "RUN": str(world.run),
        "CONTROL": str(control_folder(world.out, world.spec("", 1, 0).attempt_id)),
        "SECRET": str(world.secret),
        "HOST": _host_address(),
        "PORT": listener.getsockname()[1],
    }
    return PRELUDE + "".join(f"{name} = {value!r}\n" for name, value in places.items()) + job.code


def _check_what_it_saw(job: HostileJob, world: World) -> None:
    if not job.seen and not job.all_refused:
        return
    seen = read_json_file(world.out, "seen.json")
    assert {name: seen.get(name) for name in job.seen} == job.seen
    if job.all_refused:
        assert seen
        assert [name for name, answer in seen.items() if answer != "refused"] == []


def _readings(
    world: World, executor: DockerExecutor, handle: JobHandle, result: JobResult, tail: JsonLinesTail
) -> dict[str, str]:
    """Give the job's folder to every reader that the controller has; return what each makes of it."""
    out, copied = world.out, world.out / "copied"
    health = read_health(out / "metrics.jsonl")
    failure = read_failure(out)
    log = read_log(executor.log_path(handle))
    found = {
        "health": f"{health.verdict}: {health.message}",
        "failure": str(failure),
        "tail": str(tail.read_new())[:1000],
        "class": str(classify(log, result=result, health=health, failure_json=failure)),
    }
    copied = world.out.with_name("attempt-2") / "copied"
    readers = {
        "result": lambda: str(read_train_result(out)),
        "weights": lambda: str(check_weights(out, "adapter", base_model=world.base, kind="adapter")),
        "copy": lambda: _copy(out, copied),
    }
    for name, read in readers.items():
        try:
            found[name] = read()
        except JobError as error:
            found[name] = f"refused: {error.message}"
    return found


def _copy(out: Path, target: Path) -> str:
    stats = copy_tree(out, target, max_bytes=MAX_COPIED_BYTES, max_files=MAX_COPIED_FILES)
    for file in stats.files:
        copied = target / file.name
        assert copied.lstat().st_mode & 0o7022 == 0, f"{file.name} kept a bit that gives rights"
        if file.n_bytes < MIB:
            assert CANARY.encode() not in copied.read_bytes()
    return f"{len(stats.files)} copied, {stats.n_skipped} left out"


def _processes_of(container_id: str) -> list[int]:
    """Return the host's processes in the cgroups of a container."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if container_id in (folder / "cgroup").read_text():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended a moment ago
    return found


def _memory_mib(*, reset: bool = False) -> float:
    """Return this process's peak memory since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _disk_mib(folder: Path) -> float:
    """Return what a folder holds on disk. By `du`: it reaches what no path of Python reaches."""
    done = subprocess.run(["du", "-s", "--block-size=1K", str(folder)], capture_output=True, text=True)
    return int(done.stdout.split()[0]) / 1024


def _odd_rights(folder: Path) -> str:
    """Name folders that their owner cannot list or remove, and files that run as their owner."""
    odd = ["(", "-type", "d", "!", "-perm", "-700", ")", "-o", "(", "-type", "f", "-perm", "/6000", ")"]
    return subprocess.run(["find", str(folder), *odd], capture_output=True, text=True).stdout


def _host_address() -> str:
    """Return an address of this machine on a network, else the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        try:
            end.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return end.getsockname()[0]
