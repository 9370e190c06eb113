"""Model families for the tests: what tells them apart, and the template that each must get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Family(NamedTuple):
    """`model_type`, a chat template with the family's marks, and LLaMA-Factory's name for it."""

    model_type: str
    chat_template: str
    template: str


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}", "llama3"),
    "qwen2": Family("qwen2", "{{ '<|im_start|>system\\nYou are Qwen' }}", "qwen"),
    "qwen3": Family("qwen3", "{{ '<|im_start|>' + message.role }}", "qwen3_nothink"),
    "mistral": Family("mistral", "{{ '[INST] ' + message['content'] }}", "mistral"),
    "gemma": Family("gemma3_text", "{{ '<start_of_turn>' + role }}", "gemma3"),
    "phi": Family("phi3", "{{ '<|user|>\\n' + message['content'] }}", "phi"),
    "smollm": Family("llama", "{{ '<|im_start|>system\\nnamed SmolLM, trained by' }}", "smollm2"),
}


def write_family(folder: Path, name: str) -> None:
    """Write the two files by which a family is known."""
    family = FAMILIES[name]
    (folder / "config.json").write_text(json.dumps({"model_type": family.model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": family.chat_template}))
