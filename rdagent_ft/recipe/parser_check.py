"""V2 of the ladder: ask the trainer's own parser, in its environment, in a process of its own.

Catches what the catalogue cannot: a trainer of another version, and rules that live in its code.
Costs an import of torch and transformers, about five seconds for any number of configs, no model and
no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import PreflightError, Problem
from rdagent_ft.recipe.catalogue import Method

PARSE_TIMEOUT_S = 120.0
_JOB = Path(__file__).resolve().parent / "trl_parse_job.py"
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


def trl_parser_argv(*configs: tuple[Path, Method], python: str = "python") -> tuple[str, ...]:
    """Return the command that prints one JSON line about configs; `python` is the train environment's."""
    pairs = [word for config, method in configs for word in (method, str(config))]
    return (python, str(_JOB), *pairs)


def run_trl_parser(config: Path, method: Method, *, python: str | None = None) -> list[Problem]:
    """Return what TRL's parser finds wrong with a config file; an empty list means it accepts it.

    Args and errors are those of `run_trl_parsers`.
    """
    return run_trl_parsers([(config, method)], python=python)[0]


def run_trl_parsers(
    configs: Sequence[tuple[Path, Method]], *, python: str | None = None
) -> list[list[Problem]]:
    """Return what TRL's parser finds wrong, one list for each config, in one process.

    Args:
        configs: YAML files with what each trains.
        python: interpreter of the train environment; None means this one.

    Raises `PreflightError` when the check itself could not run (no TRL there, no answer in time).
    """
    if not configs:
        return []
    argv = trl_parser_argv(*configs, python=python or sys.executable)
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=PARSE_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightError(f"the trainer's parser did not answer: {error}") from None
    verdicts = _verdicts(done.stdout)
    if verdicts is None or len(verdicts) != len(configs):
        tail = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise PreflightError(
            f"the trainer's parser could not run: {tail[0][:300]}",
            hint="install the extra `train`, or set FT_PYTHON to the train environment's Python",
        )
    return [[_problem(entry) for entry in verdict] for verdict in verdicts]


def _problem(entry: dict[str, Any]) -> Problem:
    return Problem(
        key=str(entry.get("key", "config")),
        value=None,
        rule=str(entry.get("rule", "")),
        problem_class=str(entry.get("class", "config.bad_value")),
        fix="correct it as the trainer says",
    )


def _verdicts(stdout: str) -> list[list[dict[str, Any]]] | None:
    """Return the verdicts of the last JSON line that has them; libraries may print lines of their own."""
    for line in reversed(stdout.strip().splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and "verdicts" in value:
            return cast("list[list[dict[str, Any]]]", value["verdicts"])
    return None
