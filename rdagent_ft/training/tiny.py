# pyright: basic
"""Small random models with their own tokenizer, made on the spot: for the demo, checks and tests.

Nothing is downloaded. The architecture is Qwen3, so every tool that reads a Qwen3 reads these.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rdagent_ft.training.config_compat import make_readable

PAD, END, TURN_START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, max_positions: int, chat: bool) -> Any:
    """Return a byte-level BPE tokenizer (transformers) trained on `texts`; every text can be encoded.

    With `chat` it carries a ChatML template and ends turns with `<|im_end|>`, its EOS token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END if chat else END,
        pad_token=PAD,
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def make_tiny_model(
    out_dir: Path,
    texts: Iterable[str],
    *,
    vocab_size: int = 512,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    intermediate: int | None = None,
    max_positions: int = 2048,
    seed: int = 0,
    chat: bool = False,
) -> None:
    """Train a tokenizer on `texts` and save it with a random Qwen3 of the given sizes (fp32).

    `vocab_size` is at least 260: 256 bytes and four special tokens. The folder appears complete or
    not at all; the embedding has as many rows as the tokenizer has tokens.
    """
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size, max_positions=max_positions, chat=chat)
    staging = out_dir.with_name(f".{out_dir.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    save_random_model(
        staging,
        tokenizer,
        {
            "hidden_size": hidden,
            "intermediate_size": intermediate or 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "head_dim": hidden // heads,
            "max_position_embeddings": max_positions,
        },
        seed=seed,
    )
    shutil.rmtree(out_dir, ignore_errors=True)
    staging.rename(out_dir)


def save_random_model(folder: Path, tokenizer: Any, sizes: dict[str, Any], *, seed: int) -> None:
    """Save a randomly initialised Qwen3 with `Qwen3Config(**sizes)` and the tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_readable(folder)
