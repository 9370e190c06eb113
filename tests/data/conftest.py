"""Small models and rows that the data tests share. No torch: a model is a config, a tokenizer, zeros."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rdagent_ft.data.rows import Message, Row, make_row

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEXTS = ["send the report to Ann", "pay the bill of 42 euros", '{"route": "mail", "to": "Ann"}'] * 20


def one_turn(prompt: str, completion: str, source: str | None = None) -> Row:
    """Return a single-turn row."""
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=completion))
    return make_row(turns, source=source)


def write_tokenizer(folder: Path, *, template: str | None = CHATML, eos: str | None = "<|im_end|>") -> Path:
    """Write a byte-level BPE tokenizer trained on the spot, with its configuration."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>"}
    if eos is not None:
        config["eos_token"] = eos
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Write float32 zeros in the safetensors form."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(end))
    return path


def write_model(folder: Path, *, n_params: int = 60, template: str | None = CHATML) -> Path:
    """Write a complete model directory with `n_params` weights (a multiple of 10)."""
    write_tokenizer(folder, template=template)
    config = {"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 512, "vocab_size": 400}
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", {"a": (n_params // 10, 5), "b": (n_params // 10, 5)})
    return folder


@pytest.fixture
def row() -> Callable[..., Row]:
    """`row(prompt, completion, source=None)`."""
    return one_turn


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Callable[..., Path]:
    """`tokenizer_folder(template=…, eos=…)` writes a tokenizer and returns its folder."""
    return lambda **options: write_tokenizer(tmp_path / "tokenizer", **options)


@pytest.fixture
def model_folder() -> Callable[..., Path]:
    """`model_folder(path, n_params=…, template=…)` writes a model directory."""
    return write_model


@pytest.fixture
def safetensors_file() -> Callable[[Path, dict[str, tuple[int, ...]]], Path]:
    """`safetensors_file(path, shapes)` writes zeros."""
    return write_safetensors
