"""The licence of a base model, as far as the program can know it: a fine-tuned model inherits it.

Sources in order: the shipped list of models (by hub id), then the front matter of a README.md in the
model's folder. What neither says is unknown, and is said to be. No licence text is read or judged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import yaml

from rdagent_ft.data.models import listed_models
from rdagent_ft.reporting.records import PrepareOutput

_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{1,49}\Z")
_MAX_BYTES = 1 << 20


def base_licence(prepare: PrepareOutput) -> str | None:
    """Return the licence id of the run's base model (`apache-2.0`), or None when it is not known."""
    name = prepare.model.name.partition("@")[0]
    listed = next((model.licence for model in listed_models().models if model.id == name), None)
    found = listed or _from_readme(Path(prepare.model.path) / "README.md")
    return found if found is not None and _ID.match(found) else None


def _from_readme(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MAX_BYTES)
    except OSError:
        return None
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        values: Any = yaml.safe_load(parts[1])
    except (yaml.YAMLError, RecursionError):
        return None
    found = cast("dict[str, Any]", values).get("license") if isinstance(values, dict) else None
    return found if isinstance(found, str) else None
