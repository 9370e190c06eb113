"""A tiny Qwen3 model, its byte-level tokenizer and a LoRA adapter, built on the spot."""

from __future__ import annotations

from pathlib import Path

EOS = "<|endoftext|>"
TEXTS = [f"what is {a} plus {b}? answer: {a + b}" for a in range(20) for b in range(20)]


def build_model(folder: Path, *, bos: bool = False) -> None:
    """Write a random 2-layer model with its tokenizer; `bos` adds a BOS token to plain texts."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS, "<|pad|>", "<|bos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token="<|pad|>", bos_token="<|bos|>" if bos else None
    )
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        initializer_range=0.3,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
    )
    model = transformers.Qwen3ForCausalLM(config)
    model.generation_config.repetition_penalty = 5.0  # a checkpoint's own taste; it must not apply
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def build_adapter(model_dir: Path, folder: Path, *, zero: bool) -> None:
    """Write a LoRA adapter; with `zero` it is untrained and changes nothing."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "down_proj"])
    )
    if not zero:
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(folder)


def greedy_answers(
    model_dir: Path, prompts: list[str], n_tokens: int, *, add_special_tokens: bool
) -> list[str]:
    """Return the model's greedy answers by transformers alone, one prompt at a time."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=n_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers: list[str] = []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=add_special_tokens, return_tensors="pt")["input_ids"]
        answer = model.generate(input_ids=ids)[0, ids.shape[1] :]
        answers.append(tokenizer.decode(answer, skip_special_tokens=True))
    return answers


def choice_likelihoods(model_dir: Path, prompts: list[str], choices: list[str]) -> list[list[float]]:
    """Return the log-probability of each choice after each prompt, by transformers alone."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    found: list[list[float]] = []
    for prompt in prompts:
        n_prompt = len(tokenizer(prompt)["input_ids"])
        row: list[float] = []
        for choice in choices:
            ids = torch.tensor([tokenizer(prompt + choice)["input_ids"]])
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0].log_softmax(-1)
            row.append(sum(logs[place - 1, ids[0, place]].item() for place in range(n_prompt, ids.shape[1])))
        found.append(row)
    return found
