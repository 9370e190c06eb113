"""A stand-in for a container executor: runs the job at once, with paths where a container has aliases.

Not a sandbox and not a mock of results: the job really runs. What a container gives by mounts (`/data`,
`/out`) is done here by writing the real paths into the script and the command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rdagent_ft.execution.machine import Gpu
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec, JobState

REPOSITORY = Path(__file__).resolve().parents[2]


class ContainerDouble:
    """An `Executor` with aliases.

    Args:
        ends: results to give in order instead of running, for failures that a test cannot cause.
        afterwards: called with the out folder when a job has run: what hostile code may leave behind.
    """

    name = "docker"

    def __init__(
        self, ends: tuple[JobResult, ...] = (), afterwards: Callable[[Path], None] | None = None
    ) -> None:
        self.specs: list[JobSpec] = []
        self.seen_files: list[set[str]] = []
        self._ends = list(ends)
        self._afterwards = afterwards
        self._results: dict[str, JobResult] = {}

    def submit(self, spec: JobSpec) -> JobHandle:
        if spec.attempt_id not in self._results:
            self.specs.append(spec)
            data = spec.inputs["data"]
            self.seen_files.append({str(path.relative_to(data)) for path in data.rglob("*")})
            self._results[spec.attempt_id] = self._ends.pop(0) if self._ends else self._run(spec)
        return JobHandle(executor=self.name, attempt_id=spec.attempt_id, out_dir=spec.out_dir)

    def _run(self, spec: JobSpec) -> JobResult:
        places = {
            alias: spec.out_dir if name == "out" else spec.inputs[name]
            for alias, name in spec.aliases.items()
        }
        script = spec.inputs["script"]
        shown = spec.out_dir.parent / f"{spec.out_dir.name}-shown" / script.name
        shown.parent.mkdir(exist_ok=True)
        text = script.read_text(encoding="utf-8")
        argv = [sys.executable, *(str(shown) if word == str(script) else word for word in spec.argv[1:])]
        argv = [str(places.get(word, word)) for word in argv]
        text = re.sub(r"(?<=['\"])(/data|/out)(?=[/'\"])", lambda found: str(places[found[1]]), text)
        shown.write_text(text, encoding="utf-8")
        started = time.time()
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(
                argv, cwd=spec.out_dir, env=environment, capture_output=True, text=True, check=False,
                timeout=max(0.1, spec.deadline_unix - started),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return JobResult(
                failure_class="resource", reason="deadline", exit_code=124, started_unix=started,
                ended_unix=time.time(),
            )  # fmt: skip
        if self._afterwards is not None:
            self._afterwards(spec.out_dir)
        return JobResult(
            failure_class="ok" if done.returncode == 0 else "candidate", reason="exit",
            exit_code=done.returncode, started_unix=started, ended_unix=time.time(),
            log_tail=(done.stdout + done.stderr)[-4000:],
        )  # fmt: skip

    def poll(self, handle: JobHandle) -> JobState:
        return JobState(state="ended")

    def cancel(self, handle: JobHandle) -> None:
        pass

    def collect(self, handle: JobHandle) -> JobResult:
        return self._results[handle.attempt_id]

    def log_path(self, handle: JobHandle) -> Path:
        return handle.out_dir.with_name(f".{handle.out_dir.name}") / "job.log"

    def gpus(self) -> tuple[Gpu, ...]:
        return ()

    def tidy(self, run_dir: Path) -> None:
        pass

    def abandoned(self) -> list[Path]:
        return []

    def reap(self, folder: Path) -> list[str]:
        return []
