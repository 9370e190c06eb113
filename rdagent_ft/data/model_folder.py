"""Read a local model directory: what it is, whether it is whole, and its fingerprint.

Only JSON and safetensors headers are read. Pickled weights are refused: loading them runs code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from rdagent_ft.data.hub import MANIFEST
from rdagent_ft.data.rows import ModelSource
from rdagent_ft.data.safetensors_header import count_weights
from rdagent_ft.data.tokens import chat_template_text
from rdagent_ft.errors import UserError
from rdagent_ft.values import content_hash, sha256_file

_MAX_JSON_BYTES = 64 << 20
_INDEX = "model.safetensors.index.json"
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
_POSITION_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
_FINGERPRINT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    _INDEX,
)


def is_model_folder(path: Path) -> bool:
    """Return whether the directory claims to be a model."""
    return (path / "config.json").is_file()


def read_model_folder(name: str, path: Path, choice_reason: str | None = None) -> ModelSource:
    """Return the pinned model of a directory.

    The fingerprint hashes every weight file in full (about 1 s per GB), because nothing less shows that
    two directories hold the same model. Raises `UserError` for what is missing, damaged or pickled.
    """
    config = _read_object(path / "config.json")
    weights = weight_files(path)
    if not (path / "tokenizer.json").is_file():
        raise UserError(
            f"model {str(path)!r} has no tokenizer.json",
            hint="save its fast tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    n_params = count_weights(weights)
    present = [path / item for item in _FINGERPRINT_FILES if (path / item).is_file()]
    hashes = [[item.name, sha256_file(item)] for item in (*present, *weights)]
    fingerprint = content_hash(hashes, n_chars=16)
    return ModelSource(
        name=name,
        path=str(path.absolute()),
        revision=_hub_revision(path) or fingerprint,
        fingerprint=fingerprint,
        architecture=_architecture(path, config),
        n_params=n_params,
        max_positions=_size(path, config, _POSITION_KEYS, "context length"),
        vocab_size=_size(path, config, ("vocab_size",), "vocabulary size"),
        has_chat_template=chat_template_text(path) is not None,
        choice_reason=choice_reason,
    )


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of the model, all of them present. Raises `UserError`."""
    index = path / _INDEX
    if index.is_file():
        shards = cast("dict[str, Any]", _read_object(index).get("weight_map") or {})
        names = sorted({str(shard) for shard in shards.values()})
        missing = [name for name in names if "/" in name or not (path / name).is_file()]
        if missing or not names:
            raise UserError(
                f"model {str(path)!r} lacks the weight file {(missing or ['(none listed)'])[0]!r}"
            )
        return [path / name for name in names]
    found = sorted(path.glob("model*.safetensors")) or [
        item
        for item in sorted(path.glob("*.safetensors"))
        if not item.name.startswith(("adapter", "consolidated"))
    ]
    if found:
        return found
    if (path / "adapter_config.json").is_file():
        raise UserError(f"{str(path)!r} is an adapter, not a base model", hint="merge it into its base first")
    pickled = sorted(item.name for item in path.iterdir() if item.name.endswith(_PICKLE_ENDINGS))
    if pickled:
        raise UserError(
            f"model {str(path)!r} has only pickled weights ({pickled[0]}), and loading those runs code",
            hint="load it once with transformers and save_pretrained(…): that writes safetensors",
        )
    raise UserError(f"model {str(path)!r} has no safetensors weights")


def _architecture(path: Path, config: dict[str, Any]) -> str:
    listed = config.get("architectures")
    first = cast("list[Any]", listed)[0] if isinstance(listed, list) and listed else None
    if not isinstance(first, str):
        raise UserError(f"config.json of {str(path)!r} names no architecture")
    return first


def _size(path: Path, config: dict[str, Any], keys: tuple[str, ...], what: str) -> int:
    """Return the first of the keys that is a positive integer, also inside `text_config`."""
    inner = config.get("text_config")
    for part in (config, cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}):
        for key in keys:
            value = part.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    raise UserError(f"config.json of {str(path)!r} names no {what} ({', '.join(keys)})")


def _hub_revision(path: Path) -> str | None:
    """Return the commit that a download recorded."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        return None
    revision = _read_object(manifest).get("revision")
    return revision if isinstance(revision, str) else None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{str(path)!r} is larger than {_MAX_JSON_BYTES >> 20} MiB")
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{str(path)!r} is not valid JSON") from None
    if not isinstance(value, dict):
        raise UserError(f"{str(path)!r} is not a JSON object")
    return cast("dict[str, Any]", value)
