"""lm-eval's own result files, for people and programs that read those: one folder a role.

lm-eval's writer only warns when it cannot write; this one raises. Keys and file names are those of
lm-eval 0.4.13. Means are lm-eval's, over the answered items; the project's own scores come from elsewhere.
Standard library only: the evaluation job's environment may have nothing else of this package.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

_BY_TASK = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")

Write = Callable[[Path, str], None]
"""Writes a text to a path whose folder exists, whole or not at all."""


class ResultsFiles:
    """`results_<time>.json` and `samples_<task>_<time>.jsonl` of one role.

    Args:
        folder: where they go; made when there is something to write.
        kind: lm-eval's name of the model class (`hf`, `local-completions`).
        model_args: its arguments, as lm-eval notes them. No keys.
        model_name: what `compare` shows.
        batch_size: sequences a forward pass, or requests a body.
        write: how a file is written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str,
        model_args: dict[str, Any],
        model_name: str,
        batch_size: int,
        write: Write,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._model_name = model_name
        self._config: dict[str, Any] = {"model_args": model_args, "batch_size": batch_size}
        self._write = write
        self._stamp = datetime.now(UTC).replace(tzinfo=None).isoformat().replace(":", "-")
        self._date = time.time()
        self._merged: dict[str, Any] = {key: {} for key in _BY_TASK}
        self._hashes: dict[str, str] = {}

    def add(self, results: dict[str, Any]) -> None:
        """Write the samples of one task and keep its results for `close`."""
        for key in _BY_TASK:
            self._merged[key].update(results.get(key) or {})
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, samples in results["samples"].items():
            keys = ("doc_hash", "prompt_hash", "target_hash")
            hashed = "".join(str(sample[key]) for sample in samples for key in keys)
            self._hashes[name] = hashlib.sha256(hashed.encode()).hexdigest()
            lines = "".join(map(_sample_line, samples))
            self._write(self._folder / f"samples_{name}_{self._stamp}.jsonl", lines)

    def close(self, seconds: float) -> None:
        """Write the results of all tasks so far; nothing when no task was answered. May be called again."""
        if not self._merged["results"]:
            return
        document = {
            **self._merged,
            "config": {"model": self._kind, **self._config, "limit": None, "bootstrap_iters": 0},
            "date": self._date,
            "lm_eval_version": version("lm_eval"),
            "task_hashes": self._hashes,
            "model_source": self._kind,
            "model_name": self._model_name,
            "total_evaluation_time_seconds": str(seconds),
        }
        text = json.dumps(document, indent=2, ensure_ascii=True, default=_shown)
        self._write(self._folder / f"results_{self._stamp}.json", text + "\n")


def _sample_line(sample: dict[str, Any]) -> str:
    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(argument)}
        for i, argument in enumerate(sample["arguments"])
    }
    line = {**sample, "arguments": arguments, "target": str(sample["target"])}
    return json.dumps(line, ensure_ascii=True, default=_shown) + "\n"


def _shown(value: Any) -> Any:
    """Return what JSON cannot hold as lm-eval writes it: numpy numbers as numbers, the rest as text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
