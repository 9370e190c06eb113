"""Real trainings of tiny models: the task, the models and the config that tests of the stage jobs share."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

from local_jobs import run, write_config, write_rows

from rdagent_ft.training.plan import merge_argv, stage_argv, tiny_argv

COLOURS, ANIMALS = ("red", "green", "blue"), ("cat", "dog", "owl")
PAIRS = tuple(product(COLOURS, ANIMALS))


def prompt_of(colour: str, animal: str) -> str:
    """The prompt of every row; the right answer is `<animal> is <colour>`."""
    return f"Colour {colour}, animal {animal}. Answer:"


def config_file(folder: Path, model: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """Write the rows and a TRL config of the usual size: LoRA on the CPU, every step logged."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, Any] = {
        "lora_r": 16,
        "lora_alpha": 32,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "max_steps": 12,
    }
    return write_config(folder, model, write_rows(folder / "rows.jsonl", rows), **sizes | changes)


def make_random_model(folder: Path, *, seed: int = 0, vocab_size: int = 320) -> Path:
    """A random model whose tokenizer knows the words of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [{"text": f"{prompt_of(colour, animal)} {animal} is {colour}"} for colour, animal in PAIRS]
    write_rows(folder / "texts.jsonl", texts * 4)
    spec = {"out": "model", "texts": "texts.jsonl", "vocab_size": vocab_size, "hidden": 48, "seed": seed}
    (folder / "spec.json").write_text(json.dumps(spec))
    result = run(folder, tiny_argv(folder / "spec.json"))
    assert result.failure_class == "ok", result.log_tail
    return folder / "model"


def make_merged_model(folder: Path, start: Path) -> Path:
    """A model that answers ` <any animal> is <colour>`: all weights trained, then an adapter, then merged."""
    rows = [
        {"prompt": prompt_of(colour, animal), "completion": f" {answer} is {colour}"}
        for colour, animal in PAIRS
        for answer in ANIMALS
    ]
    config = config_file(
        folder / "full", start, rows, use_peft=False, per_device_train_batch_size=27, max_steps=60
    )
    result = run(folder / "full", stage_argv("sft", config))
    assert result.failure_class == "ok", result.log_tail
    base = folder / "full" / "model"
    config = config_file(folder / "lora", base, rows, learning_rate=1e-3, max_steps=6)
    result = run(folder / "lora", stage_argv("sft", config))
    assert result.failure_class == "ok", result.log_tail
    merged = run(folder, merge_argv(base, Path("merged"), adapter=folder / "lora" / "adapter"))
    assert merged.failure_class == "ok", merged.log_tail
    return folder / "merged"
