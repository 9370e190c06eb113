# pyright: basic
"""What a model answers to eight fixed prompts: how jobs show that two folders hold the same model.

Used by the merge and the export jobs. It compares logits, which says nothing of how good a model is, and
it always computes in fp32, whatever the weights are stored in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PROMPTS = (
    "The capital of France is",
    "Question: What is 17 + 25? Answer:",
    "def add(a, b):\n    return",
    '{"name": "Ada", "born":',
    "Translate to German: good morning ->",
    "1, 1, 2, 3, 5, 8,",
    "User: please cancel my order.\nAssistant:",
    "Été, naïve, 東京, Привет 🙂",
)


def load_model(folder: Path) -> Any:
    """Return the model in fp32, ready to answer; only safetensors are read."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def folder_logits(folder: Path) -> list[Any]:
    """Return the logits of the model in a folder: one tensor (tokens, vocabulary) a prompt."""
    return prompt_logits(load_model(folder), load_tokenizer(folder))


def prompt_logits(model: Any, tokenizer: Any) -> list[Any]:
    """Return a loaded model's logits, moved to the CPU in fp32."""
    import torch

    outputs = []
    with torch.inference_mode():
        for prompt in PROMPTS:
            tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
            logits = model(input_ids=tokens.to(model.device)).logits[0]
            outputs.append(logits.float().cpu())
    return outputs


def largest_difference(before: list[Any], after: list[Any]) -> tuple[float, float]:
    """Return the largest absolute difference and the largest absolute logit of `before`."""
    diff = max(float((one - other).abs().max()) for one, other in zip(before, after, strict=True))
    return diff, max(float(one.abs().max()) for one in before)


def same_next_token(before: list[Any], after: list[Any]) -> float:
    """Return the share of positions at which both sides find the same token most likely."""
    same = [one.argmax(-1) == other.argmax(-1) for one, other in zip(before, after, strict=True)]
    return sum(int(part.sum()) for part in same) / sum(part.numel() for part in same)
