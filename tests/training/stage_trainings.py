"""Real trainings of tiny models through the local executor: what the tests of the stage jobs share."""

from __future__ import annotations

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec
from rdagent_ft.training.plan import merge_argv, stage_argv, tiny_argv

COLOURS, ANIMALS = ("red", "green", "blue"), ("cat", "dog", "owl")
PAIRS = tuple(product(COLOURS, ANIMALS))
WAIT_S = 300.0


def prompt_of(colour: str, animal: str) -> str:
    """The prompt of every row; the right answer is `<animal> is <colour>`."""
    return f"Colour {colour}, animal {animal}. Answer:"


def submit(
    folder: Path, argv: tuple[str, ...], attempt_id: str = "test-1"
) -> tuple[LocalExecutor, JobHandle]:
    executor = LocalExecutor(grace_s=2.0)
    spec = JobSpec(
        attempt_id=attempt_id,
        kind="train",
        argv=argv,
        out_dir=folder,
        env={"OMP_NUM_THREADS": "1"},
        deadline_unix=time.time() + WAIT_S,
    )
    return executor, executor.submit(spec)


def wait(executor: LocalExecutor, handle: JobHandle) -> JobResult:
    while executor.poll(handle).state == "running":
        time.sleep(0.05)
    return executor.collect(handle)


def run(folder: Path, argv: tuple[str, ...], attempt_id: str = "test-1") -> JobResult:
    return wait(*submit(folder, argv, attempt_id))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_file(folder: Path, model: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """Write the rows and a TRL config as the templates render it: LoRA on the CPU, every step logged."""
    folder.mkdir(parents=True, exist_ok=True)
    data = write_rows(folder / "rows.jsonl", rows)
    config = {
        "model_name_or_path": str(model),
        "output_dir": "trainer",
        "datasets": [{"path": "json", "data_files": str(data)}],
        "use_peft": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_target_modules": ["all-linear"],
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "max_steps": 12,
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "bf16": False,
        "use_cpu": True,
        "dtype": "float32",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        **changes,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return path


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
