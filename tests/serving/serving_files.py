"""Model and adapter folders without torch: real safetensors headers, no meaning."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "head_dim": 32,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
}
PEFT: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "use_dora": False}
PREFIX = "base_model.model.model.layers.0."


def write_tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        n_bytes = 4
        for size in shape:
            n_bytes *= size
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + n_bytes]}
        position += n_bytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(position))


def write_model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    write_tokenizer(folder)
    write_tensors(folder / "model.safetensors", {"lm_head.weight": (2, 2)})
    return folder


def write_tokenizer(folder: Path, *added: str) -> None:
    tokens = [{"content": token} for token in ("<eos>", *added)]
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": tokens})
    )
    (folder / "tokenizer_config.json").write_text("{}")


def write_adapter(
    folder: Path,
    *,
    rank: int = 4,
    module: str = "self_attn.q_proj",
    extra: tuple[str, ...] = (),
    **config: Any,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(PEFT | config))
    shapes: dict[str, tuple[int, ...]] = {
        f"{PREFIX}{module}.lora_A.weight": (rank, 8),
        f"{PREFIX}{module}.lora_B.weight": (8, rank),
    }
    write_tensors(folder / "adapter_model.safetensors", shapes | dict.fromkeys(extra, (2, 2)))
    return folder
