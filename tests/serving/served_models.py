"""A tiny Qwen3 with a head size that vLLM serves on CPU, LoRA adapters, and PEFT's own log-probabilities.

Run as a script in a process of its own, so that torch stays out of pytest: `served_models.py FOLDER`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EOS = "<|endoftext|>"
PROMPTS = [
    "what is 1 plus 2? answer:",
    "3 plus 4",
    "answer: 17",
    "what is 19 plus 19? answer: 38",
    "plus plus plus",
    "0",
    "is what 5",
    "2 plus 2? answer: 5",
]


def build(folder: Path) -> None:
    """Write `base`, `adapter`, `other`, `zero` and `expected.json` into the folder."""
    import peft
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    sums = [f"what is {a} plus {b}? answer: {a + b}" for a in range(20) for b in range(20)]
    tokenizer.train_from_iterator(sums, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS)
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=32,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
        initializer_range=0.3, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config)
    model.generation_config.repetition_penalty = 5.0  # a checkpoint's own taste; it must not apply
    model.save_pretrained(folder / "base")
    fast.save_pretrained(folder / "base")
    expected = {"base": _logprobs(model, fast)}
    for number, name in enumerate(("adapter", "other", "zero")):
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
        lora = peft.LoraConfig(
            r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"],
            rank_pattern={"down_proj": 8}, use_rslora=name == "other",
        )  # fmt: skip
        adapted = peft.get_peft_model(base, lora)
        torch.manual_seed(number + 1)
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name and name != "zero":
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(folder / name)
        fast.save_pretrained(folder / name)
        expected[name] = _logprobs(adapted.eval(), fast)
    (folder / "expected.json").write_text(json.dumps(expected))


def _logprobs(model, tokenizer) -> list[list[float]]:
    """Log-probability of each token of each prompt but the first, given those before."""
    import torch

    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].float().log_softmax(-1)
        found.append([float(logits[place, token]) for place, token in enumerate(ids[0, 1:])])
    return found


if __name__ == "__main__":
    build(Path(sys.argv[1]))
