# pyright: basic
"""The LLaMA-Factory training job: `python -m rdagent_ft.training.llamafactory_job --config config.yaml`.

Runs in that trainer's environment with the job's folder as working directory, in one process. Model,
tokenisation, masking, optimisation and checkpoints are LLaMA-Factory's; around it stand the checks, the
metrics and the result that TRL's jobs have (`stage_run.py`).
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from rdagent_ft.training.config_compat import make_readable
from rdagent_ft.training.job_files import fail, package_versions, write_json_file
from rdagent_ft.training.llamafactory_checks import (
    check_prompts,
    check_tokens,
    copy_tokenizer,
    load_tokenizer,
    n_data_rows,
)
from rdagent_ft.training.stage_health import TrainedKind
from rdagent_ft.training.stage_run import JobPaths, last_checkpoint

KINDS: dict[str, TrainedKind] = {"sft": "sft", "dpo": "dpo", "kto": "kto", "rm": "reward"}
PACKAGES = ("llamafactory", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
OF_WEIGHTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
)


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description="Training with LLaMA-Factory.")
    parser.add_argument("--config", type=Path, required=True, help="LLaMA-Factory config (YAML)")
    parser.add_argument("--metrics", type=Path, default=Path("metrics.jsonl"))
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    parser.add_argument("--prompts-check", type=Path, default=None, help="JSON lines {messages, text}")
    args = parser.parse_args()
    run(args.config, JobPaths(args.metrics, args.result, args.failure, args.prompts_check))


def run(config_path: Path, paths: JobPaths) -> None:
    """Train as a LLaMA-Factory config file says; leave weights, `metrics.jsonl` and `result.json`.

    The folder of the weights is `adapter` or `model` in the working directory. Ends the process with
    exit code 3 and `failure.json` when the training went wrong, the data trains nothing, or the
    trainer's prompts are not those that the model is served with.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for path in (paths.result, paths.failure):
        path.unlink(missing_ok=True)
    config = read_config(config_path)
    output_dir = Path(config["output_dir"])
    _refuse_missing_gpu()
    own = load_tokenizer(Path(config["model_name_or_path"]))
    n_rows = n_data_rows(config)
    if n_rows == 0:
        fail(paths.failure, "data.empty_after_filter", "the training file has no rows")
    checks = check_prompts(config, own, paths.failure, paths.prompts_check)
    _ready_for_resume(output_dir, config_path, resumes=config["stage"] != "rm")
    watch = _train(config, own, n_rows, paths)
    metrics, state = watch.metrics, watch.state
    if metrics.failure is not None:
        found = metrics.failure
        fail(paths.failure, found.failure_class, found.message, **found.evidence)
    weights = "adapter" if config["finetuning_type"] == "lora" else "model"
    _save(output_dir, Path(weights), Path(config["model_name_or_path"]))
    losses = [entry["train_loss"] for entry in state.log_history if "train_loss" in entry]
    result = {
        "stage": metrics.kind,
        "n_steps": state.global_step,
        "max_steps": state.max_steps,
        "train_loss": losses[-1] if losses else None,
        "n_tokens": metrics.n_tokens,
        "train_s": round(watch.train_s, 3),
        "weights": weights,
        "resumed_from_step": metrics.first_step or None,
        "device": watch.device,
        "versions": package_versions(*PACKAGES),
        "metrics": {name: list(ends) for name, ends in metrics.ends.items()},
        "reference": _reference(config),
        **watch.checks,
        **checks,
    }
    write_json_file(paths.result, result)


def _reference(config: dict[str, Any]) -> str | None:
    """Return what a preference training compares its policy with: LoRA switches its adapter off."""
    if config["stage"] not in ("dpo", "kto"):
        return None
    return "adapter_off" if config["finetuning_type"] == "lora" else "frozen_copy"


def read_config(path: Path) -> dict[str, Any]:
    """Return the config as the trainer's own command reads it, and keep the process offline.

    To be called before the trainer is imported: its libraries read the environment once.
    """
    os.environ.update(HF_HUB_OFFLINE="1", USE_MODELSCOPE_HUB="0", USE_OPENMIND_HUB="0", WANDB_DISABLED="true")
    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARN")
    # Tokenised rows stay in the job's folder.
    os.environ["HF_DATASETS_CACHE"] = str(Path(".cache-datasets").absolute())
    from omegaconf import OmegaConf  # pyright: ignore[reportMissingImports]

    config: Any = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no mapping")
    return config


def _train(config: dict[str, Any], own: Any, n_rows: int, paths: JobPaths) -> Any:
    """Run the trainer; return the callback that saw it."""
    from llamafactory.train.tuner import run_exp  # pyright: ignore[reportMissingImports]

    from rdagent_ft.training.llamafactory_watch import TrainingWatch
    from rdagent_ft.training.metrics_callback import MetricsCallback

    stage = config["stage"]

    def judge(dataset: Any, ends: set[int]) -> dict[str, Any]:
        return check_tokens(dataset, {*ends, own.eos_token_id}, stage, n_rows, paths.failure)

    watch = TrainingWatch(MetricsCallback(paths.metrics, KINDS[stage]), judge)
    run_exp(dict(config), callbacks=[watch])
    shutil.rmtree(".cache-datasets", ignore_errors=True)
    if watch.state is None or watch.state.global_step == 0:
        fail(paths.failure, "data.too_few", f"{n_rows} rows make no step", n_rows=n_rows)
    return watch


def _refuse_missing_gpu() -> None:
    """End a job that was given a GPU and finds none: it must never train on the CPU instead."""
    if os.environ.get("RDAGENT_FT_NEEDS_GPU") != "1":
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("No CUDA GPUs are available, and this job was to run on one")


def _ready_for_resume(output_dir: Path, config_path: Path, *, resumes: bool) -> None:
    """Leave only a complete checkpoint of this config, which the trainer then finds by itself.

    It refuses a folder that holds weights of an attempt before, and does not resume a reward model.
    """
    last_checkpoint(output_dir, config_path)
    for path in output_dir.iterdir():
        if path.is_file() and path.name != "config.sha256":
            path.unlink()
        elif path.is_dir() and path.name.startswith("checkpoint-") and not resumes:
            shutil.rmtree(path)


def _save(trained: Path, folder: Path, base: Path) -> None:
    """Move the weights into `folder`, which appears only when it is complete, with the base's tokenizer."""
    staging = folder.with_name(f".{folder.name}.staging")
    for path in (staging, folder):
        shutil.rmtree(path, ignore_errors=True)
    staging.mkdir()
    for pattern in OF_WEIGHTS:
        for path in trained.glob(pattern):
            path.rename(staging / path.name)
    copy_tokenizer(base, staging)
    make_readable(staging)
    staging.rename(folder)


if __name__ == "__main__":
    main()
