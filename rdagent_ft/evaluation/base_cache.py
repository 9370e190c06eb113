"""Scores of the base model, kept between runs under a fingerprint of everything that shapes them.

A key that leaves something out returns another model's answers without a word, so the fingerprint
holds weights, items, prompt format, limits and versions. A damaged entry is a miss, never an error:
it can always be computed again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.rows import PromptFormat, SampleRow
from rdagent_ft.evaluation.sample_files import MAX_FILE_BYTES
from rdagent_ft.evaluation.score import Samples
from rdagent_ft.evaluation.scorers import SCORERS_VERSION
from rdagent_ft.values import canonical_json, content_hash, sha256_text, write_atomic

PROTOCOL_VERSION = 2
"""Raised when the way prompts are tokenised or answers are generated changes."""

_ENGINE_PACKAGES = ("lm-eval", "transformers", "torch", "tokenizers")
_log = logging.getLogger(__name__)


def base_fingerprint(
    model_fingerprint: str,
    tasks: Sequence[EvalTask],
    prompt_format: PromptFormat,
    items_sha256: Mapping[str, str],
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return 32 hex digits over everything that shapes the base model's scores.

    Args:
        model_fingerprint: over config, tokenizer, template and weights.
        tasks: everything of them counts but the path of the items.
        items_sha256: any stable name of a task (e.g. its split) -> SHA-256 of its items file.
        versions: what generates; default: the versions installed here. Pass them when jobs run in
            another environment, or on another kind of device.
    """
    return content_hash(
        {
            "model": model_fingerprint,
            "tasks": sorted(
                canonical_json(task.model_dump(mode="json", exclude={"items_file"})) for task in tasks
            ),
            "prompt_format": prompt_format,
            "items": dict(items_sha256),
            "versions": dict(installed_versions() if versions is None else versions),
            "scorers": SCORERS_VERSION,
            "protocol": PROTOCOL_VERSION,
        },
        n_chars=32,
    )


def installed_versions() -> dict[str, str]:
    """Return package -> version of what generates answers; `absent` where it is not installed."""
    found: dict[str, str] = {}
    for name in _ENGINE_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def store_cached(
    folder: Path, fingerprint: str, samples: Mapping[tuple[str, str, str], Sequence[SampleRow]]
) -> None:
    """Write the rows under the fingerprint, atomically: a head line with their hash, then the rows."""
    body = "".join(
        json.dumps({"role": role, "row": row.model_dump(mode="json")}, allow_nan=False) + "\n"
        for (role, _, _), rows in samples.items()
        for row in rows
    )
    head = json.dumps({"fingerprint": fingerprint, "sha256": sha256_text(body)})
    write_atomic(_path(folder, fingerprint), head + "\n" + body)


def load_cached(folder: Path, fingerprint: str) -> Samples | None:
    """Return the rows stored under the fingerprint, or None. Damage is a miss, noted in the log."""
    path = _path(folder, fingerprint)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        head, _, body = path.read_text(encoding="utf-8").partition("\n")
        if json.loads(head) != {"fingerprint": fingerprint, "sha256": sha256_text(body)}:
            raise ValueError("its hash does not fit its rows")
        samples: Samples = {}
        for line in body.splitlines():
            value: Any = json.loads(line)
            row = SampleRow.model_validate(value["row"])
            samples.setdefault((str(value["role"]), row.benchmark, row.split), []).append(row)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError, KeyError, TypeError, RecursionError) as error:
        _log.warning("cached scores are not usable and will be computed again: %s: %s", path, error)
        return None
    return samples or None


def _path(folder: Path, fingerprint: str) -> Path:
    return folder / f"base-{fingerprint}.jsonl"
