"""The demo's base model: what the pre-training job is told. Trains nothing itself.

`rdagent_ft.training.pretrain_job` makes the tokenizer and a random Qwen3 and trains it on the corpus
through TRL. Two variants: `plain` has read text only; `learned` has also read the task, with items of
its own, and is the control in which tuning has nothing left to teach.
"""

from __future__ import annotations

from typing import Any, Literal

from rdagent_ft.demo.base_text import text_blocks
from rdagent_ft.demo.router_task import router_items

BaseVariant = Literal["plain", "learned"]
CORPUS_FILE = "corpus.jsonl"
MODEL_SEED = 5
TEXT_SEED = 11
LEARNED_ITEMS_SEED = 9_001
N_DOCUMENTS: dict[BaseVariant, int] = {"plain": 18_000, "learned": 1_000}
N_LEARNED_ITEMS = 8_000
EPOCHS: dict[BaseVariant, int] = {"plain": 1, "learned": 3}

# 1.2 M weights. Below this width the time of a step on two cores hardly falls.
MODEL_SIZES: dict[str, Any] = {
    "hidden_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 40,
    "intermediate_size": 480,
    "max_position_embeddings": 512,
}
VOCAB_SIZE = 1536


def base_corpus(variant: BaseVariant, *, dataset_requests: list[str]) -> list[str]:
    """Return the texts that the base is trained on, every token of them.

    Args:
        variant: `learned` adds items of the task as `request, newline, plan`.
        dataset_requests: the dataset's requests; the added items are no near duplicates of them.
    """
    texts = text_blocks(N_DOCUMENTS[variant], TEXT_SEED)
    if variant == "learned":
        items = router_items(N_LEARNED_ITEMS, LEARNED_ITEMS_SEED, apart_from=dataset_requests)
        texts += [f"{item.request}\n{item.plan}" for item in items]
    return texts


def pretrain_spec(variant: BaseVariant, *, max_steps: int | None = None) -> dict[str, Any]:
    """Return the spec of `pretrain_job`. `max_steps` cuts the training short, for tests."""
    return {
        "texts": CORPUS_FILE,
        "tokenizer": None,
        "vocab_size": VOCAB_SIZE,
        "chat": False,
        "sizes": MODEL_SIZES,
        "seed": MODEL_SEED,
        "trainer": {
            "per_device_train_batch_size": 32,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "weight_decay": 0.01,
            "num_train_epochs": EPOCHS[variant],
            "max_steps": max_steps or -1,
            "max_length": 96,
            "packing": False,
            "logging_steps": 10,
        },
    }
