"""Making a folder of weights fit to leave the machine: configs without its paths, and a last look.

Loaders write where a model came from into its configs. That is replaced by the base model's public name;
afterwards every file is searched for folders of the machine and for keys, and one hit ends the export.
Rows of the data can stand in a text only, so the card is where they are looked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import JobError
from rdagent_ft.reporting.public import Private

_NAME_KEYS = ("_name_or_path", "name_or_path")
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
_TABLES = frozenset({"tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model"})
"""Words of a vocabulary may look like anything; they are searched for known values only."""
_LARGE = (".safetensors", ".gguf")
_MAX_HEAD_BYTES = 64 << 20


def clean_configs(folder: Path, *, base: str, revision: str | None) -> None:
    """Take paths out of the configs of a model folder.

    Args:
        base: the base model's public name; an adapter names it.
        revision: its commit on the hub, None for a local one.
    """
    for name in _CONFIGS:
        path = folder / name
        if not path.is_file():
            continue
        config = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        changed = {key: value for key, value in config.items() if key not in _NAME_KEYS}
        if name == "adapter_config.json":
            changed |= {"base_model_name_or_path": base, "revision": revision}
        if changed != config:
            path.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_private(folder: Path, private: Private) -> None:
    """Raise `JobError` for the first file that holds a folder of the machine or a key."""
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        with path.open("rb") as stream:
            raw = stream.read(_MAX_HEAD_BYTES if path.suffix in _LARGE else -1)
        text = raw.decode("utf-8", "replace")
        exact_only = path.name in _TABLES or path.suffix in _LARGE
        found = private.known_in(text) if exact_only else private.found_in(text)
        if found is not None:
            raise JobError(
                f"{path.relative_to(folder).as_posix()} holds {found}, so the folder is not handed on",
                hint="look into that file of the run's export/ and take it out",
            )


def check_card(card: str, private: Private) -> None:
    """Raise `JobError` when a card holds what must stay on the machine."""
    found = private.found_in(card) or ("a row of the data" if private.has_row(card) else None)
    if found is not None:
        raise JobError(f"the model card would hold {found}, so it is not written")
