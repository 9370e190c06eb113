"""Judging the model folder that a job left, before anything loads, scores, merges or exports it.

The job ran code and configs that nobody vouches for. Its weights may be pickles, links to a file of
the host or garbage of any size, and a config beside them can make a loader import code. Only what
`check_weights` let through is handed on. It says nothing of how good the weights are, and it does not
look into tokenizer tables: those are read by jobs alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.errors import JobError
from rdagent_ft.execution.job_tree import TreeEntry, list_tree
from rdagent_ft.execution.outputs import open_inside, read_json_file
from rdagent_ft.tensor_files import DamagedTensorsError, Tensor, read_tensors
from rdagent_ft.values import Frozen, sha256_text

WeightKind = Literal["adapter", "model"]

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAX_FILES = 2_000
MAX_HEADER_BYTES = 16 << 20
MAX_OTHER_BYTES = 64 << 20
"""A tokenizer, a vocabulary or a template; the largest known ones have about 33 MiB."""
MAX_JSON_BYTES = 8 << 20
_BASE_FACTOR, _EXTRA_BYTES = 8, 1 << 30
_PIECE_BYTES = 1 << 20
_WEIGHTS, _INDEX = ".safetensors", ".safetensors.index.json"
_ALLOWED_ENDINGS = (_WEIGHTS, ".json", ".jinja", ".txt", ".model")
_ALLOWED_NAMES = ("README.md",)
_TEMPLATES = "additional_chat_templates"
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
# Their keys are words of a vocabulary, which may be any text.
_TABLES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
# What makes transformers or peft import a module, run code of a folder, or load other files.
_CODE_KEYS = frozenset({
    "auto_map", "auto_mapping", "custom_pipelines", "custom_generate", "trust_remote_code",
    "megatron_config", "transformers_weights",
})  # fmt: skip
# A slash in their value names a repository of kernels, which is fetched and imported.
_KERNEL_KEYS = frozenset({
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
})  # fmt: skip


class WeightFile(Frozen):
    """One safetensors file of a checked folder."""

    name: str
    n_bytes: int
    sha256: str


def check_weights(
    root: Path,
    name: str,
    *,
    base_model: Path,
    kind: WeightKind,
    max_bytes: int | None = None,
    max_files: int = MAX_FILES,
) -> tuple[WeightFile, ...]:
    """Return the safetensors files of `root/name`, in name order, when the whole folder can be trusted.

    Args:
        root, name: the ended job's folder and the folder of weights in it.
        base_model: the base that the job was given; an adapter must name exactly this path.
        kind: LoRA adapter or whole model.
        max_bytes: bound of all files together; None derives it from the base (`max_model_bytes`).
        max_files: bound of their number.

    Raises `JobError` with the file and the rule it breaks.
    """
    entries = list_tree(root, name, max_entries=max_files)
    limit = max_model_bytes(base_model) if max_bytes is None else max_bytes
    _check_entries(entries, name, limit)
    names = [entry.name for entry in entries if entry.kind == "file"]
    _check_required(names, name, kind)
    for file in names:
        if file.endswith(".json") and file not in _TABLES:
            config = read_json_file(root, f"{name}/{file}", MAX_JSON_BYTES)
            _check_config(f"{name}/{file}", config)
            if file.endswith(_INDEX):
                _check_index(f"{name}/{file}", config, names)
            elif file == "adapter_config.json":
                _check_adapter(f"{name}/{file}", config, base_model)
    weights = [file for file in names if file.endswith(_WEIGHTS)]
    for file in weights:  # all headers before the first hash: hashing a large file takes minutes
        read_job_tensors(root, f"{name}/{file}")
    return tuple(_hashed(root, name, file) for file in weights)


def combined_sha256(files: tuple[WeightFile, ...]) -> str:
    """Return the SHA-256 of the only file, or of the files' hashes in name order when several."""
    hashes = [file.sha256 for file in files]
    return hashes[0] if len(hashes) == 1 else sha256_text("".join(hashes))


def max_model_bytes(base_model: Path) -> int:
    """Return the most bytes that a model made from this base may have: 8 times its own, and 1 GiB.

    Eight times is a base stored in 4 bits and saved in 32.
    """
    own = sum(path.stat().st_size for path in base_model.glob(f"*{_WEIGHTS}"))
    return _BASE_FACTOR * own + _EXTRA_BYTES


def read_job_tensors(root: Path, name: str) -> dict[str, Tensor]:
    """Return the entries of a job's safetensors file. Raises `JobError` when it is damaged."""
    with os.fdopen(open_inside(root, name), "rb") as stream:
        n_bytes = os.fstat(stream.fileno()).st_size
        try:
            return read_tensors(stream, n_bytes, max_header_bytes=MAX_HEADER_BYTES)
        except DamagedTensorsError as error:
            raise JobError(f"`{name}` is not a whole safetensors file: {error}") from None


def _check_entries(entries: list[TreeEntry], name: str, max_bytes: int) -> None:
    """Check names, kinds and sizes without opening a file."""
    n_bytes = 0
    for entry in entries:
        place = f"{name}/{entry.name}"
        if entry.kind not in {"file", "folder"}:
            raise JobError(f"`{place!a}` is {_WORDS[entry.kind]}")
        lower = entry.name.lower()
        if lower.endswith(_PICKLE_ENDINGS):
            raise JobError(f"`{place}` may be a pickle, and loading one runs code; weights are safetensors")
        if not _is_known(entry):
            raise JobError(f"`{place}` does not belong into a folder of weights")
        n_bytes += entry.n_bytes if entry.kind == "file" else 0
        if not lower.endswith(_WEIGHTS) and entry.kind == "file" and entry.n_bytes > MAX_OTHER_BYTES:
            raise JobError(f"`{place}` is larger than {MAX_OTHER_BYTES} bytes")
    if n_bytes > max_bytes:
        raise JobError(f"`{name}` has {n_bytes} bytes, more than {max_bytes}")


_WORDS = {
    "link": "a symbolic link",
    "shared": "a file with another name somewhere (hard link)",
    "special": "no regular file",
    "deep": "a folder nested too deeply",
    "unnamed": "named in unprintable characters",
}


def _is_known(entry: TreeEntry) -> bool:
    folder, _, file = entry.name.rpartition("/")
    if entry.kind == "folder":
        return entry.name == _TEMPLATES
    if folder:
        return folder == _TEMPLATES and file.endswith(".jinja")
    return file.endswith(_ALLOWED_ENDINGS) or file in _ALLOWED_NAMES


def _check_required(names: list[str], name: str, kind: WeightKind) -> None:
    if kind == "adapter":
        wanted = ("adapter_config.json", ADAPTER_WEIGHTS)
        unwanted = [file for file in names if file.endswith((_WEIGHTS, _INDEX)) and file != ADAPTER_WEIGHTS]
    else:
        # A loader that finds an adapter's config in a model's folder loads the base that it names.
        wanted, unwanted = ("config.json",), [file for file in names if file.startswith("adapter_")]
        if not any(file.endswith(_WEIGHTS) for file in names):
            raise JobError(f"the job left no safetensors in `{name}`")
    for file in wanted:
        if file not in names:
            raise JobError(f"the job left no `{name}/{file}`")
    if unwanted:
        raise JobError(f"`{name}/{unwanted[0]}` does not belong to a {kind}")


def _check_config(place: str, config: dict[str, Any]) -> None:
    """Refuse keys, at any depth, that make a loader import code or read other files."""
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += cast("list[Any]", value)
        elif isinstance(value, dict):
            for key, inner in cast("dict[str, Any]", value).items():
                if key in _CODE_KEYS and inner not in (None, False):
                    raise JobError(f"`{place}` sets `{key}`, which makes a loader run or read other files")
                if key in _KERNEL_KEYS and not _is_built_in(inner):
                    raise JobError(f"`{place}` sets `{key}` to code that would be fetched: {inner!r:.80}")
                waiting.append(inner)


def _is_built_in(implementation: Any) -> bool:
    if isinstance(implementation, dict):
        return all(map(_is_built_in, cast("dict[str, Any]", implementation).values()))
    return implementation is None or (isinstance(implementation, str) and "/" not in implementation)


def _check_index(place: str, config: dict[str, Any], names: list[str]) -> None:
    shards = config.get("weight_map")
    if not isinstance(shards, dict):
        raise JobError(f"`{place}` has no `weight_map`")
    for shard in cast("dict[str, Any]", shards).values():
        if not isinstance(shard, str) or not shard.endswith(_WEIGHTS) or shard not in names:
            raise JobError(f"`{place}` names a weight file that is not there: {shard!r:.80}")


def _check_adapter(place: str, config: dict[str, Any], base_model: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise JobError(f"`{place}` is of the type {config.get('peft_type')!r:.80}, expected 'LORA'")
    base = config.get("base_model_name_or_path")
    if base != str(base_model):
        raise JobError(f"`{place}` names another base model: {base!r:.200}, expected {str(base_model)!r}")


def _hashed(root: Path, name: str, file: str) -> WeightFile:
    digest = hashlib.sha256()
    n_bytes = 0
    with os.fdopen(open_inside(root, f"{name}/{file}"), "rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            n_bytes += len(piece)
    return WeightFile(name=file, n_bytes=n_bytes, sha256=digest.hexdigest())
