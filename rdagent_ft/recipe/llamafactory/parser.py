"""V2 for LLaMA-Factory: ask its own parser, in its environment, in a process of its own.

Costs an import of torch and transformers, about eight seconds for any number of configs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import PreflightError, Problem

PARSE_TIMEOUT_S = 180.0
_JOB = Path(__file__).resolve().parent / "llamafactory_parse_job.py"
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def run_llamafactory_parser(configs: Sequence[Path], *, python: str) -> dict[Path, list[Problem]]:
    """Return what the trainer's parser finds wrong with each config; an empty list accepts it.

    Args:
        configs: YAML files; one with `export_dir` is read as an export.
        python: interpreter of LLaMA-Factory's environment.

    Raises `PreflightError` when the check itself could not run.
    """
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    argv = [python, str(_JOB), *map(str, configs)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=PARSE_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightError(f"LLaMA-Factory's parser did not answer: {error}") from None
    answer = _last_json(done.stdout)
    if answer is None:
        tail = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise PreflightError(
            f"LLaMA-Factory's parser could not run: {tail[0][:300]}",
            hint="make its environment with scripts/llamafactory-ci.sh",
        )
    verdicts = cast("dict[str, list[dict[str, str]]]", answer["problems"])
    return {path: [_problem(entry) for entry in verdicts[str(path)]] for path in configs}


def _problem(entry: dict[str, str]) -> Problem:
    return Problem(entry["key"], None, entry["rule"], entry["class"], "correct it as the trainer says")


def _last_json(stdout: str) -> dict[str, Any] | None:
    for line in reversed(stdout.strip().splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and "problems" in value:
            return cast("dict[str, Any]", value)
    return None
