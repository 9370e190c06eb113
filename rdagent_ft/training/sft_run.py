# pyright: basic
"""One supervised training through TRL's `SFTTrainer`, with the checks that exit codes do not make.

Shared by `sft_job` (a stage of a recipe) and `pretrain_job` (a small base model). No training loop
of our own: model, tokenisation, masking, optimisation and checkpoints are TRL's.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdagent_ft.training.config_compat import make_readable
from rdagent_ft.training.job_files import fail, package_versions, read_rows, write_json_file

TRAINED_COLUMNS = ("prompt", "completion", "messages", "text", "tools", "chat_template_kwargs")
UNWANTED = ("training_args.bin", "README.md")
"""Left out of the saved weights: a pickle, and a card that names the base model `None`."""


@dataclass(frozen=True)
class JobPaths:
    """Where the job writes, relative to its working directory."""

    metrics: Path = Path("metrics.jsonl")
    result: Path = Path("result.json")
    failure: Path = Path("failure.json")
    prompts_check: Path | None = None


def run_sft(config_path: Path, paths: JobPaths) -> None:
    """Train as a TRL config file says; leave weights, `metrics.jsonl` and `result.json`.

    The folder of the weights is `adapter` or `model` in the working directory. Ends the process
    with exit code 3 and `failure.json` when the training diverged or the data trains nothing.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for path in (paths.result, paths.failure):
        path.unlink(missing_ok=True)
    _refuse_missing_gpu()
    _, training_args, model_args, dataset_args = _parse(config_path)
    rows = _rows(dataset_args)
    if not rows:
        fail(paths.failure, "data.empty_after_filter", "the training file has no rows")
    trainer, callback = _trainer(training_args, model_args, rows, paths.metrics)
    checks = _check_tokens(trainer, len(rows), paths.failure)
    checks |= _check_prompts(trainer.processing_class, paths)
    checkpoint = _last_checkpoint(Path(training_args.output_dir), config_path)
    started = time.monotonic()
    output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    train_s = time.monotonic() - started
    if callback.failure is not None:
        message, evidence = callback.failure
        fail(paths.failure, "train.diverged", message, **evidence)
    kind = "adapter" if model_args.use_peft else "model"
    _save(trainer, Path(kind))
    result = {
        "n_steps": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "train_loss": output.training_loss,
        "n_tokens": callback.n_tokens,
        "train_s": round(train_s, 3),
        "weights": kind,
        "resumed_from_step": callback.first_step or None,
        "device": str(trainer.args.device.type),
        "versions": package_versions("torch", "transformers", "trl", "peft", "datasets", "accelerate"),
        **checks,
    }
    write_json_file(paths.result, result)


def _refuse_missing_gpu() -> None:
    """End a job that was given a GPU and finds none: it must never train on the CPU instead."""
    if os.environ.get("RDAGENT_FT_NEEDS_GPU") != "1":
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("No CUDA GPUs are available, and this job was to run on one")


def _parse(config_path: Path) -> Any:
    from trl.scripts.utils import DatasetMixtureConfig, ScriptArguments, TrlParser
    from trl.trainer.model_config import ModelConfig
    from trl.trainer.sft_config import SFTConfig

    groups: Any = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)
    parser = TrlParser(groups)
    return parser.parse_args_and_config(["--config", str(config_path)])


def _rows(dataset_args: Any) -> list[dict[str, Any]]:
    """Read the JSON lines files that `datasets:` names, in order.

    Straight into memory instead of through a dataset builder: no builder start-up (about 2 s), no
    cache outside the job's folder, and no code of a dataset repository.
    """
    rows: list[dict[str, Any]] = []
    for entry in dataset_args.datasets:
        if entry.path != "json" or not isinstance(entry.data_files, str):
            raise ValueError("`datasets` must name JSON lines files: {path: json, data_files: FILE}")
        rows += read_rows(Path(entry.data_files), TRAINED_COLUMNS)
    return rows


def _trainer(
    training_args: Any, model_args: Any, rows: list[dict[str, Any]], metrics: Path
) -> tuple[Any, Any]:
    from datasets import Dataset
    from trl.trainer.sft_trainer import SFTTrainer
    from trl.trainer.utils import get_peft_config, get_quantization_config

    from rdagent_ft.training.metrics_callback import MetricsCallback

    training_args.trust_remote_code = False
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    callback = MetricsCallback(metrics)
    trainer = SFTTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=Dataset.from_list(rows),
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        callbacks=[callback],
    )
    return trainer, callback


def _check_tokens(trainer: Any, n_rows: int, failure: Path) -> dict[str, Any]:
    """Count what the tokenised data really trains. Fails when no token, or no end token, is trained."""
    import numpy as np

    dataset = trainer.train_dataset
    if len(dataset) == 0:
        fail(
            failure,
            "data.empty_after_filter",
            "no row has a trained token: every completion lies past `max_length`",
            n_rows=n_rows,
        )
    ends = _end_tokens(trainer)
    n_tokens = n_trained = n_with_end = 0
    for batch in dataset.select_columns(["labels"]).iter(batch_size=1000):
        for labels in batch["labels"]:
            trained = np.asarray(labels)
            trained, n_all = trained[trained != -100], trained.size
            n_tokens += n_all
            n_trained += trained.size
            n_with_end += bool(np.isin(trained, ends).any())
    checks = {
        "n_rows": n_rows,
        "n_rows_trained": len(dataset),
        "share_tokens_trained": round(n_trained / max(1, n_tokens), 6),
        "share_rows_with_end": round(n_with_end / len(dataset), 6),
    }
    if n_trained == 0:
        fail(failure, "data.empty_after_filter", "no token is trained: all labels are masked", **checks)
    if n_with_end == 0:
        fail(failure, "data.eos", "no row trains the end token: the model would never stop", **checks)
    return checks


def _end_tokens(trainer: Any) -> list[int]:
    """Return the tokens that end a generation: the tokenizer's and the generation config's."""
    listed = getattr(trainer.model.generation_config, "eos_token_id", None)
    ends = set(listed if isinstance(listed, list) else [listed])
    ends.add(trainer.processing_class.eos_token_id)
    return [token for token in ends if token is not None]


def _check_prompts(tokenizer: Any, paths: JobPaths) -> dict[str, Any]:
    """Compare up to three prompts, as the program renders them, with this tokenizer's template."""
    if paths.prompts_check is None:
        return {}
    rows = read_rows(paths.prompts_check, ("messages", "text"))[:3]
    for number, row in enumerate(rows):
        rendered = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
        if rendered != row["text"]:
            fail(
                paths.failure,
                "data.template",
                f"prompt {number} is rendered differently here: {rendered[:200]!r}",
                expected=row["text"][:200],
            )
    return {"n_prompts_checked": len(rows)}


def _last_checkpoint(output_dir: Path, config_path: Path) -> Path | None:
    """Return the newest complete checkpoint of this very config; older configs' are removed.

    The trainer writes `trainer_state.json` last, so a folder without it was cut off while saving.
    """
    key = hashlib.sha256(config_path.read_bytes()).hexdigest()
    key_file = output_dir / "config.sha256"
    output_dir.mkdir(parents=True, exist_ok=True)
    found: list[tuple[int, Path]] = []
    for folder in output_dir.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        known = key_file.is_file() and key_file.read_text(encoding="ascii") == key
        if known and number.isdigit() and _is_complete(folder):
            found.append((int(number), folder))
        else:
            print(f"removing {folder}: cut off, or of another config", file=sys.stderr)  # noqa: T201
            shutil.rmtree(folder)
    key_file.write_text(key, encoding="ascii")
    return max(found)[1] if found else None


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _save(trainer: Any, folder: Path) -> None:
    """Save weights and tokenizer into `folder`, which appears only when it is complete."""
    staging = folder.with_name(f".{folder.name}.staging")
    for path in (staging, folder):
        shutil.rmtree(path, ignore_errors=True)
    trainer.save_model(str(staging))
    for name in UNWANTED:
        (staging / name).unlink(missing_ok=True)
    make_readable(staging)
    staging.rename(folder)
