"""Containers for the tests of this folder, under a host name of their own.

Cleaning up looks at every container of this user and this host, so without that a test here would stop
what other tests have left to be adopted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.port import JobSpec

SLEEP = ("sleep", "600")
COMMAND = """
import sys
from rdagent_ft.execution import docker_labels
docker_labels.host_id = lambda: sys.argv[1]
from rdagent_ft.cli.main import main
main(sys.argv[2:])
"""
CONTROLLER = """
import sys
from rdagent_ft.execution import docker_labels
docker_labels.host_id = lambda: sys.argv[1]
from rdagent_ft.execution.docker_engine import connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.port import JobSpec
engine = connect()
executor = DockerExecutor(engine, lambda kind: sys.argv[2], limits=job_limits(engine.info, memory_gib=0.25))
print(executor.submit(JobSpec.model_validate_json(sys.argv[3])).attempt_id, flush=True)
sys.stdin.read()
"""


def sleeping_job(run_dir: Path, attempt_id: str) -> JobSpec:
    """A job of a run that would sleep for long."""
    return JobSpec(
        attempt_id=attempt_id,
        kind="train",
        argv=SLEEP,
        out_dir=run_dir / "job",
        labels={"run": "a-run", "loop": "000", "stage": "train", "run_dir": str(run_dir)},
        deadline_unix=time.time() + 600,
    )


def start_controller(host: str, image: str, spec: JobSpec) -> subprocess.Popen[str]:
    """Start a process that submits the job and then waits; returns once the container runs."""
    argv = [sys.executable, "-c", CONTROLLER, host, image, spec.model_dump_json()]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == spec.attempt_id
    return process


def kill(controller: subprocess.Popen[str]) -> None:
    """SIGKILL it, as a crash of the machine's memory would."""
    controller.kill()
    controller.communicate()


def is_running(engine: Engine, name: str) -> bool:
    """Return whether the container is there and runs."""
    found = engine.inspect(name)
    return found is not None and bool(found["State"]["Running"])


def command(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run `rdagent-ft ARGV…` as if this machine had another name."""
    return subprocess.run([sys.executable, "-c", COMMAND, host, *argv], capture_output=True, text=True)
