"""What containing a job costs the controller.

    python -m bench.execution [--out FILE]

Needs a Docker engine and the built `train` image (`scripts/docker-ci.sh`). Each measurement runs the
controller's own loop in a child process, because peak memory belongs to a process, not to a call.
Results go to bench/results/execution.json with the hash of the code that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.images import newest_image
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.values import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "execution.json"
POLL_S = 0.1
CHILD_LIMIT_S = 900
FLOODS = {
    "one line": "block = b'x' * 65536\nfor _ in range(16384): os.write(1, block)",
    "lines of 1 KiB": "block = (b'x' * 1023 + b'\\n') * 64\nfor _ in range(16384): os.write(1, block)",
}
"""Python that writes 1 GiB to standard output."""


def measure_log_flood() -> dict[str, dict[str, Any]]:
    """Return for each flood of 1 GiB: peak memory of a controller before and after it, and seconds."""
    return {name: _in_child("flood", name) for name in FLOODS}


def follow_flood(name: str) -> dict[str, Any]:
    """Run one flood as the engine's step does, and return what it cost this process."""
    engine = connect()
    folder = Path(tempfile.mkdtemp(prefix="ft-bench-"))
    try:
        executor = _executor(engine)
        spec = _spec(folder, f"import os\n{FLOODS[name]}")
        before = _peak_bytes()
        started = time.monotonic()
        handle = executor.submit(spec)
        while executor.poll(handle).state == "running":
            time.sleep(POLL_S)
        ended = time.monotonic()
        result = executor.collect(handle)
        return {
            "failure_class": result.failure_class,
            "written_bytes": 1 << 30,
            "kept_log_bytes": executor.log_path(handle).stat().st_size,
            "peak_rss_before_bytes": before,
            "peak_rss_after_bytes": _peak_bytes(),
            "job_s": ended - started,
            "collect_s": time.monotonic() - ended,
        }
    finally:
        shutil.rmtree(folder)
        engine.close()


def _executor(engine: Engine) -> DockerExecutor:
    image = newest_image(engine.client, "train")
    if image is None:
        raise PreflightError("the train image is not built", hint="scripts/docker-ci.sh")
    image_id = image.image_id
    return DockerExecutor(engine, lambda _kind: image_id, limits=job_limits(engine.info, memory_gib=0.5))


def _spec(folder: Path, code: str) -> JobSpec:
    return JobSpec(
        attempt_id=folder.name,
        kind="train",
        argv=("python", "-c", code),
        out_dir=folder / "job",
        deadline_unix=time.time() + CHILD_LIMIT_S,
    )


def _peak_bytes() -> int:
    """Return the peak resident memory of this process (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def _in_child(*words: str) -> dict[str, Any]:
    """Run one measurement in a new process of this file; return the JSON that it prints."""
    argv = [sys.executable, "-m", "bench.execution", "--child", *words]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=CHILD_LIMIT_S)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _document(engine: Engine) -> dict[str, Any]:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "schema_version": 1,
        "code": head.stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "engine": engine.info.version,
    }


def main() -> None:
    """Run all measurements, print them and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        children = {"flood": follow_flood}
        name, *values = arguments.child
        print(json.dumps(children[name](*values)))
        return
    engine = connect()
    document = _document(engine)
    engine.close()
    document["log_flood"] = measure_log_flood()
    write_json(arguments.out, document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
