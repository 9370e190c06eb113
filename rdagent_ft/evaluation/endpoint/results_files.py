"""lm-eval's own result files, for people and programs that read those: one folder a role.

lm-eval's writer only warns when it cannot write; this one raises. Keys and file names are those of
lm-eval 0.4.13. Means are lm-eval's, over the answered items; the project's own scores come from elsewhere.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rdagent_ft.evaluation.endpoint.request import EndpointTarget
from rdagent_ft.values import sha256_text, write_atomic

_BY_TASK = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


class ResultsFiles:
    """`results_<time>.json` and `samples_<task>_<time>.jsonl` of one role."""

    def __init__(self, folder: Path, target: EndpointTarget) -> None:
        self._folder = folder
        self._target = target
        self._stamp = datetime.now(UTC).replace(tzinfo=None).isoformat().replace(":", "-")
        self._date = time.time()
        self._merged: dict[str, Any] = {key: {} for key in _BY_TASK}
        self._hashes: dict[str, str] = {}

    def add(self, results: dict[str, Any]) -> None:
        """Write the samples of one task and keep its results for the end."""
        for key in _BY_TASK:
            self._merged[key].update(results.get(key) or {})
        for name, samples in results["samples"].items():
            keys = ("doc_hash", "prompt_hash", "target_hash")
            self._hashes[name] = sha256_text("".join(str(sample[key]) for sample in samples for key in keys))
            lines = "".join(map(_sample_line, samples))
            write_atomic(self._folder / f"samples_{name}_{self._stamp}.jsonl", lines)

    def close(self, seconds: float) -> None:
        """Write the results of all tasks; nothing when no task was answered."""
        if not self._merged["results"]:
            return
        kind = "local-chat-completions" if self._target.protocol == "chat" else "local-completions"
        document = {
            **self._merged,
            "config": {
                "model": kind,
                "model_args": {"model": self._target.model, "base_url": self._target.base_url},
                "batch_size": 1,
                "limit": None,
                "bootstrap_iters": 0,
            },
            "date": self._date,
            "lm_eval_version": version("lm_eval"),
            "task_hashes": self._hashes,
            "model_source": kind,
            "model_name": self._target.model,
            "total_evaluation_time_seconds": str(seconds),
        }
        text = json.dumps(document, indent=2, ensure_ascii=False, default=_shown)
        write_atomic(self._folder / f"results_{self._stamp}.json", text + "\n")


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
