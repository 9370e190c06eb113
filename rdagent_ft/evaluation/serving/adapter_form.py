"""Whether an adapter can be served as it is, or must be merged into its base first.

The rules are those of vLLM 0.32 (`lora/peft_helper.py`, `lora/lora_model.py`). Some of what it cannot
apply it refuses, some it skips without a word (changed embeddings), so that the tensors' names decide,
not the config alone. Merging is always right and only costs time: anything unknown is merged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.serving.spec import LORA_TARGETS
from rdagent_ft.evaluation.serving.spool import ADAPTER_CONFIG
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.execution.weight_files import ADAPTER_WEIGHTS, read_job_tensors
from rdagent_ft.tensor_files import Tensor
from rdagent_ft.values import Frozen

_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_UNKNOWN_TO_SERVER = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in its LoRA layers",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "target_parameters",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "fan_in_fan_out": "transposed layers (fan_in_fan_out)",
}
_TENSOR = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")
_TOKENIZER_BYTES = 64 << 20


class ServingForm(Frozen):
    """How a candidate is served. `reasons` say why it must be merged; empty for `adapter`."""

    form: Literal["adapter", "merged"]
    reasons: tuple[str, ...] = ()


def serving_form(adapter_dir: Path, base_dir: Path, max_lora_rank: int) -> ServingForm:
    """Return whether the adapter can be loaded into a server of its base with this limit of ranks.

    Raises `JobError` when its config or weights are missing or damaged.
    """
    config = read_json_file(adapter_dir, ADAPTER_CONFIG)
    tensors = read_job_tensors(adapter_dir, ADAPTER_WEIGHTS)
    reasons = [*_config_reasons(config), *_tensor_reasons(tensors, max_lora_rank)]
    if adds_tokens(adapter_dir, base_dir):
        reasons.append("its tokenizer is not the base's: the vocabulary was changed")
    return ServingForm(form="merged" if reasons else "adapter", reasons=tuple(reasons))


def adapter_rank(adapter_dir: Path) -> int:
    """Return the largest rank among the adapter's layers, read from its weights. Raises `JobError`."""
    return _rank(read_job_tensors(adapter_dir, ADAPTER_WEIGHTS))


def adds_tokens(adapter_dir: Path, base_dir: Path) -> bool:
    """Return whether the adapter comes with a tokenizer of another vocabulary than its base's."""
    if not (adapter_dir / "tokenizer.json").is_file() or not (base_dir / "tokenizer.json").is_file():
        return False
    base = (base_dir / "tokenizer.json").resolve()  # a folder of the hub's cache is made of links
    return _vocabulary(adapter_dir, "tokenizer.json") != _vocabulary(base.parent, base.name)


def _config_reasons(config: dict[str, Any]) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield f"its type is {config.get('peft_type')!r:.40}, not LoRA"
    for key, words in _UNKNOWN_TO_SERVER.items():
        if config.get(key):
            yield f"it uses {words}"
    if config.get("modules_to_save"):
        yield f"it replaces whole modules (modules_to_save {config['modules_to_save']!r:.80})"
    if config.get("bias", "none") != "none":
        yield f"it trains biases (bias {config['bias']!r:.20})"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        yield f"its start ({init[:40]}) changed the base's weights"


def _tensor_reasons(tensors: dict[str, Tensor], max_lora_rank: int) -> Iterator[str]:
    unknown = [name for name in sorted(tensors) if not _TENSOR.fullmatch(name)]
    if unknown:
        yield f"it holds weights that are no LoRA layer's ({unknown[0][:120]})"
    modules = sorted({found["module"] for name in tensors if (found := _TENSOR.fullmatch(name))})
    foreign = [name for name in modules if name.rsplit(".", 1)[-1] not in LORA_TARGETS or ".experts." in name]
    if foreign:
        yield f"it changes {foreign[0][:120]}, which the server may not adapt"
    if not modules:
        yield "it has no LoRA layers"
    rank = _rank(tensors)
    if rank > max_lora_rank:
        yield f"its rank {rank} is above the server's limit of {max_lora_rank}"


def _rank(tensors: dict[str, Tensor]) -> int:
    """Return the largest rank: the first dimension of a LoRA layer's A."""
    ranks = [
        tensor.shape[0]
        for name, tensor in tensors.items()
        if (found := _TENSOR.fullmatch(name)) and found["side"] == "A" and tensor.shape
    ]
    return max(ranks, default=0)


def _vocabulary(folder: Path, name: str) -> tuple[int, frozenset[str]]:
    """Return the size of a tokenizer's vocabulary and its added tokens."""
    tokenizer = read_json_file(folder, name, _TOKENIZER_BYTES)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        added = cast("list[dict[str, Any]]", tokenizer.get("added_tokens") or [])
        return len(vocabulary), frozenset(str(token["content"]) for token in added)
    except (KeyError, TypeError) as error:
        raise JobError(f"`{folder.name}/{name}` is not a tokenizer: {error!r:.80}") from None
