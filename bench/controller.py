"""What the controller itself costs: start-up, overhead per step, resume.

    python -m bench.controller [--run-dir DIR] [--json]

Start-up is compared in the same run with the command a user would type otherwise (`trl --help`,
`lm_eval --help`). The overhead of a step is its wall time minus that of its job, read from the
journal of a finished run (`--run-dir`, default: the newest under FT_FILE_PATH/output). Resume time is
that of `resume` on the same, finished run: everything that a resume does before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPETITIONS = 7


def time_command(argv: list[str], repetitions: int = REPETITIONS) -> dict[str, float]:
    """Return min, median and max seconds of a whole process."""
    seconds: list[float] = []
    for _ in range(repetitions):
        started = time.perf_counter()
        subprocess.run(argv, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    return {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}


def step_overhead(run_dir: Path) -> dict[str, dict[str, float]]:
    """Return step -> max and mean seconds outside its jobs and LLM calls, over all loops of a run."""
    connection = sqlite3.connect(f"file:{run_dir / 'run.db'}?mode=ro", uri=True)
    jobs: dict[tuple[int, str], float] = {}
    for loop, step, result in connection.execute("SELECT loop, step, result FROM attempts"):
        if result:
            ended = json.loads(result)
            jobs[loop, step] = jobs.get((loop, step), 0.0) + ended["ended_unix"] - ended["started_unix"]
    overheads: dict[str, list[float]] = {}
    for loop, step, wall_s in connection.execute("SELECT loop, step, wall_s FROM steps"):
        overheads.setdefault(step, []).append(max(0.0, wall_s - jobs.get((loop, step), 0.0)))
    connection.close()
    return {step: {"max": max(v), "mean": statistics.fmean(v)} for step, v in overheads.items()}


def measure(run_dir: Path | None) -> dict[str, Any]:
    """Run all measurements; returns one JSON-ready document."""
    folder = Path(sys.executable).parent
    ours = time_command([str(folder / "rdagent-ft"), "--help"])
    document: dict[str, Any] = {
        "schema_version": 1,
        "code": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "help_s": ours,
        "help_alternatives_s": {},
    }
    for name, argv in {"trl --help": ["trl", "--help"], "lm_eval --help": ["lm_eval", "--help"]}.items():
        if (folder / argv[0]).is_file():
            other = time_command([str(folder / argv[0]), *argv[1:]], 3)
            document["help_alternatives_s"][name] = {**other, "ratio_to_ours": other["min"] / ours["min"]}
    if run_dir is not None:
        document["step_overhead_s"] = step_overhead(run_dir)
        root = run_dir.parent.parent
        os.environ["FT_FILE_PATH"] = str(root)
        document["resume_s"] = time_command([str(folder / "rdagent-ft"), "resume", run_dir.name], 3)
    return document


def main() -> None:
    """Parse the command line and print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    run_dir = arguments.run_dir
    if run_dir is None:
        runs = sorted(Path(os.environ.get("FT_FILE_PATH", "finetune_files")).glob("output/*/run.db"))
        run_dir = runs[-1].parent if runs else None
    document = measure(run_dir)
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(f"--help: {document['help_s']['min']:.3f} s (min of {REPETITIONS})")
    for name, value in document["help_alternatives_s"].items():
        print(f"{name}: {value['min']:.3f} s, {value['ratio_to_ours']:.1f} x ours")
    for step, value in document.get("step_overhead_s", {}).items():
        print(f"overhead of {step}: max {value['max']:.2f} s, mean {value['mean']:.2f} s")
    if "resume_s" in document:
        print(f"resume of a finished run: {document['resume_s']['min']:.2f} s")


if __name__ == "__main__":
    main()
