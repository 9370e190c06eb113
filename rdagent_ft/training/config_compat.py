"""Makes a checkpoint that transformers 5 wrote readable by transformers 4 readers as well.

transformers 5 moves `rope_theta` and `rope_scaling` into `rope_parameters`; a version-4 reader (an
older serving stack) then falls back to its default of 10000 without a word, and the model answers
nonsense. Both forms are written. Pure JSON, standard library only: jobs and the core use it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

Json = dict[str, Any]


def readable_config(config: Json) -> Json:
    """Return `config.json` with the version-4 keys beside the version-5 ones; idempotent.

    Adds `rope_theta`, `rope_scaling` (when the type is not `default`), `rope_local_base_freq` (when
    layer types have their own rope) and `torch_dtype`; nested configs are treated the same.
    """
    changed = dict(config)
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict):
            changed[key] = readable_config(cast(Json, value))
    rope = config.get("rope_parameters")
    if isinstance(rope, dict):
        changed.update(_rope_keys(cast(Json, rope)))
    if isinstance(config.get("dtype"), str):
        changed["torch_dtype"] = config["dtype"]
    return changed


def readable_tokenizer_config(config: Json) -> Json:
    """Return `tokenizer_config.json` with a class name and special-token key that version 4 knows."""
    changed = dict(config)
    if config.get("tokenizer_class") == "TokenizersBackend":
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return changed


def make_readable(folder: Path) -> None:
    """Rewrite `config.json` and `tokenizer_config.json` of a saved model, where they exist."""
    for name, change in (
        ("config.json", readable_config),
        ("tokenizer_config.json", readable_tokenizer_config),
    ):
        path = folder / name
        if path.is_file():
            config = change(json.loads(path.read_text(encoding="utf-8")))
            path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rope_keys(rope: Json) -> Json:
    full, local = rope.get("full_attention"), rope.get("sliding_attention")
    if isinstance(full, dict):
        keys = _rope_keys(cast(Json, full))
        if isinstance(local, dict) and "rope_theta" in local:
            keys["rope_local_base_freq"] = local["rope_theta"]
        return keys
    keys: Json = {}
    if "rope_theta" in rope:
        keys["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default":
        keys["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return keys
