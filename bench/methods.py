"""The frame of the benchmarks that set methods beside each other: a process for each, and one document.

A method is measured in a process of its own, because peak memory counts from a process's start, imports
included, and a child's starts at its parent's: whoever writes the inputs is a process of its own as well.
Not covered: repetitions and trainings; the benchmarks of jobs have frames of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Document = dict[str, Any]


class Timed(NamedTuple):
    """What a call returned, and what it cost.

    Attributes:
        found: what it returned.
        seconds, cpu_seconds: wall clock, and time of the processor.
        extra_memory_mib: what the process's peak memory grew by.
        peak_memory_mib: of the process, from its start.
    """

    found: Any
    seconds: float
    cpu_seconds: float
    extra_memory_mib: float
    peak_memory_mib: float

    def costs(self) -> Document:
        """Return seconds, CPU seconds and peak memory as documents show them."""
        return {
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "peak_memory_mib": round(self.peak_memory_mib),
        }


def timed(call: Callable[[], Any]) -> Timed:
    """Run a method once in this process. Children of a busy machine share its cores: CPU seconds say more."""
    before = _peak_memory_mib()
    started, started_cpu = time.perf_counter(), time.process_time()
    found = call()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    peak = _peak_memory_mib()
    return Timed(found, seconds, cpu_seconds, peak - before, peak)


def new_document(**facts: Any) -> Document:
    """Return a document's head: version, the code's hash, the machine, the facts, room for the methods."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "schema_version": 1,
        "code": head.stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        **facts,
        "methods": {},
    }


def run_part(module: str, *options: object) -> str:
    """Run a part of a benchmark (`--write FOLDER`, `--method NAME`) as a process; return what it printed."""
    argv = [sys.executable, "-m", module, *map(str, options)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def run_methods(document: Document, module: str, methods: Sequence[str], *options: object) -> None:
    """Run all methods, one after another, each in its own process, and put their results in the document."""
    for method in methods:
        printed = run_part(module, "--method", method, *options)
        document["methods"][method] = json.loads(printed.splitlines()[-1])


def command_line(
    description: str | None, methods: Sequence[str], /, **numbers: int
) -> argparse.ArgumentParser:
    """Return the parser of such a benchmark: its numbers with their defaults, `--method` and `--json`."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--method", choices=methods)
    parser.add_argument("--json", action="store_true")
    return parser


def show(document: Document, *, as_json: bool, line: Callable[[Document], str] | None = None) -> None:
    """Print the document, or one line a method: `line` of its result, else every value by name."""
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for method, result in document["methods"].items():
        print(f"{method}: {(line or _every_value)(result)}")


def _every_value(result: Document) -> str:
    return ", ".join(f"{key} {value}" for key, value in result.items())


def _peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
