"""The code job: `python -m rdagent_ft.evaluation.code.code_job request.json`, run in its folder.

Standard library only, so that any image will do. Runs each program of the request in a process of its
own (`contained`), several at a time. Leaves, in the working directory:

- `results.jsonl`: `{"index", "outcome", "detail", "seconds"}`, one line a program that ran, written
  whole about once a second and at the end: a job that is ended keeps what it found;
- `progress.jsonl`: `{"done", "total", "elapsed_s"}`.

The request is deleted once it is read: no program shall read the others' answers and tests.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from rdagent_ft.execution.contained import Ended, Limits, run_surely, usable_workers

RESULTS_NAME, PROGRESS_NAME = "results.jsonl", "progress.jsonl"
WRITE_EVERY_S = 1.0
_PR_SET_DUMPABLE = 4


def main(request_path: Path) -> None:
    """Run every program of the request."""
    request = json.loads(request_path.read_text(encoding="utf-8"))
    request_path.unlink()
    # Programs have our user: without this they could read our memory and environment.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    limits = Limits(**request["limits"])
    lines: dict[int, dict[str, Any]] = {}
    started = written = time.monotonic()
    for index, ended in run_all(request["programs"], limits, request["n_workers"]):
        if ended is not None:
            lines[index] = {"index": index, **ended._asdict()}
        if time.monotonic() - written >= WRITE_EVERY_S:
            written = time.monotonic()
            _write(lines, len(request["programs"]), written - started)
    _write(lines, len(request["programs"]), time.monotonic() - started)


def run_all(programs: list[str], limits: Limits, n_workers: int) -> Iterator[tuple[int, Ended | None]]:
    """Yield index and end of each program as they end; None now and then, for a caller that keeps time."""
    n_workers = usable_workers(n_workers)
    waiting, running = iter(enumerate(programs)), dict[Future[Ended], int]()
    with ThreadPoolExecutor(n_workers) as pool:
        while True:
            for index, program in itertools.islice(waiting, n_workers - len(running)):
                running[pool.submit(run_surely, program, limits)] = index
            if not running:
                return
            done, _ = wait(running, timeout=WRITE_EVERY_S, return_when=FIRST_COMPLETED)
            if not done:
                yield -1, None
            for future in done:
                yield running.pop(future), future.result()


def _write(lines: dict[int, dict[str, Any]], n_total: int, elapsed_s: float) -> None:
    text = "".join(json.dumps(lines[index]) + "\n" for index in sorted(lines))
    part = Path(RESULTS_NAME + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(RESULTS_NAME)
    progress = {"done": len(lines), "total": n_total, "elapsed_s": round(elapsed_s, 2)}
    with Path(PROGRESS_NAME).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(progress) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
