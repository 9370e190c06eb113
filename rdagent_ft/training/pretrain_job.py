# pyright: basic
"""Trains a small model from random weights: `python -m rdagent_ft.training.pretrain_job --spec spec.json`.

The spec:

    {"texts": "corpus.jsonl",                  rows {"text"}, or {"prompt", "completion"}
     "tokenizer": "/path" | null,              null trains one on the texts
     "vocab_size": 1024, "chat": false,        for a new tokenizer
     "sizes": {"hidden_size": 128, …},         keywords of Qwen3Config
     "seed": 0,
     "trainer": {"max_steps": 300, …}}         keys of a TRL SFT config

Leaves `model/`, `metrics.jsonl` and `result.json` in the working directory, as `stage_job` does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rdagent_ft.training.job_files import read_rows
from rdagent_ft.training.sft_run import JobPaths, run_sft
from rdagent_ft.training.tiny import save_random_model, train_tokenizer

DEFAULTS: dict[str, Any] = {
    "output_dir": "trainer",
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "max_length": 256,
    "logging_steps": 10,
    "logging_first_step": True,
    "logging_nan_inf_filter": False,
    "save_strategy": "no",
    "gradient_checkpointing": False,
    "report_to": "none",
    "push_to_hub": False,
    "disable_tqdm": True,
    "dtype": "float32",
    "bf16": False,
}


def main() -> None:
    """Make the random model where it is not there yet, and train it."""
    parser = argparse.ArgumentParser(description="Pre-train a small Qwen3 from random weights.")
    parser.add_argument("--spec", type=Path, required=True)
    spec = json.loads(parser.parse_args().spec.read_text(encoding="utf-8"))
    texts = Path(spec["texts"]).absolute()
    start = Path("random").absolute()
    if not (start / "config.json").is_file():
        _make_start(start, texts, spec)
    config = {
        **DEFAULTS,
        "seed": spec.get("seed", 0),
        **spec.get("trainer", {}),
        "model_name_or_path": str(start),
        "use_peft": False,
        "datasets": [{"path": "json", "data_files": str(texts)}],
    }
    path = Path("config.yaml")
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML
    run_sft(path, JobPaths())


def _make_start(folder: Path, texts: Path, spec: dict[str, Any]) -> None:
    sizes = spec["sizes"]
    if spec.get("tokenizer"):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"])
    else:
        rows = read_rows(texts, ("text", "prompt", "completion"))
        tokenizer = train_tokenizer(
            (" ".join(str(value) for value in row.values()) for row in rows),
            vocab_size=spec.get("vocab_size", 1024),
            max_positions=sizes.get("max_position_embeddings", 2048),
            chat=spec.get("chat", False),
        )
    staging = folder.with_name(".random.staging")
    save_random_model(staging, tokenizer, sizes, seed=spec.get("seed", 0))
    staging.rename(folder)


if __name__ == "__main__":
    main()
