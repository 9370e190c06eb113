"""V2 of the ladder: ask the trainer's own parser, in its environment, in a process of its own.

Catches what the catalogue cannot: a trainer of another version, and rules that live in its code.
Costs an import of torch and transformers, about five seconds, no model and no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import PreflightError, Problem
from rdagent_ft.recipe.catalogue import Method

PARSE_TIMEOUT_S = 120.0
_JOB = Path(__file__).resolve().parent / "trl_parse_job.py"
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


def trl_parser_argv(config: Path, method: Method, *, python: str = "python") -> tuple[str, ...]:
    """Return the command that prints one JSON line about `config`; `python` is the train environment's."""
    return (python, str(_JOB), method, str(config))


def run_trl_parser(config: Path, method: Method, *, python: str | None = None) -> list[Problem]:
    """Return what TRL's parser finds wrong with a config file; an empty list means it accepts it.

    Args:
        config: the YAML file.
        method: what it trains.
        python: interpreter of the train environment; None means this one.

    Raises `PreflightError` when the check itself could not run (no TRL there, no answer in time).
    """
    argv = trl_parser_argv(config, method, python=python or sys.executable)
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=PARSE_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightError(f"the trainer's parser did not answer: {error}") from None
    answer = _last_json(done.stdout)
    if answer is None:
        tail = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise PreflightError(
            f"the trainer's parser could not run: {tail[0][:300]}",
            hint="install the extra `train`, or set FT_PYTHON to the train environment's Python",
        )
    return [
        Problem(
            key=str(entry.get("key", "config")),
            value=None,
            rule=str(entry.get("rule", "")),
            problem_class=str(entry.get("class", "config.bad_value")),
            fix="correct it as the trainer says",
        )
        for entry in cast("list[dict[str, Any]]", answer.get("problems", []))
    ]


def _last_json(stdout: str) -> dict[str, Any] | None:
    for line in reversed(stdout.strip().splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
    return None
