# pyright: basic
"""One training through a TRL trainer, with the checks that exit codes do not make.

Shared by every kind of training (`*_run.py` say what differs) and by `pretrain_job`. No training loop
of our own: model, tokenisation, masking, generation, optimisation and checkpoints are TRL's.
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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rdagent_ft.training.config_compat import make_readable
from rdagent_ft.training.held_out import hold_out
from rdagent_ft.training.job_files import fail, package_versions, read_rows, write_json_file
from rdagent_ft.training.stage_health import TrainedKind

UNWANTED = ("training_args.bin", "README.md")
"""Left out of the saved weights: a pickle, and a card that names the base model `None`."""
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
ROW_NUMBER = "row_number"
"""Place of a row in the training file, from 0; a column only where tokens are shared (`token_run`)."""


@dataclass(frozen=True)
class JobPaths:
    """What the job writes and reads, relative to its working directory.

    `tokens` is the folder that tokens of an earlier training may lie in; None shares none.
    """

    metrics: Path = Path("metrics.jsonl")
    result: Path = Path("result.json")
    failure: Path = Path("failure.json")
    prompts_check: Path | None = None
    rewards: Path | None = None
    reward_model: Path | None = None
    tokens: Path | None = None


@dataclass(frozen=True)
class Setup:
    """What a trainer is made from: the parsed config, the rows and the callback that watches.

    `held_out` are the rows that checkpoints are measured on; none of them is among `rows`.
    """

    training_args: Any
    model_args: Any
    rows: list[dict[str, Any]]
    callback: Any
    paths: JobPaths
    held_out: list[dict[str, Any]] = field(default_factory=list)

    def dataset(self, rows: list[dict[str, Any]] | None = None) -> Any:
        """Return rows (the trained ones) as a dataset in memory, with every column that any row has.

        Ends the job when a column's values do not fit together.
        """
        import pyarrow
        from datasets import Dataset

        names = sorted(set().union(*self.rows, *self.held_out))
        rows = self.rows if rows is None else rows
        try:
            return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
        except pyarrow.ArrowException as error:
            fail(self.paths.failure, "data.columns", f"a column holds values of several types: {error}")

    def common(self) -> dict[str, Any]:
        """Return the arguments that all TRL trainers share."""
        from trl.trainer.utils import get_peft_config, get_quantization_config

        self.training_args.trust_remote_code = False
        self.training_args.model_init_kwargs = {
            "revision": self.model_args.model_revision,
            "attn_implementation": self.model_args.attn_implementation,
            "dtype": self.model_args.dtype,
            **(self.training_args.model_init_kwargs or {}),
        }
        return {
            "model": self.model_args.model_name_or_path,
            "args": self.training_args,
            "train_dataset": self.dataset(),
            "eval_dataset": self.dataset(self.held_out) if self.held_out else None,
            "quantization_config": get_quantization_config(self.model_args),
            "peft_config": get_peft_config(self.model_args),
            "callbacks": [self.callback],
        }


def save_weights(trainer: Any, setup: Setup) -> Literal["adapter", "model"]:
    """Save what was trained, the adapter or the whole model; return the folder's name."""
    folder = "adapter" if setup.model_args.use_peft else "model"
    into_place(trainer, Path(folder), lambda staging: trainer.save_model(str(staging)))
    return folder


@dataclass(frozen=True)
class Method:
    """What differs between kinds of training.

    Attributes:
        kind: the stage's kind.
        config: returns TRL's config class; a function, because the import takes seconds.
        columns: columns that are kept; empty keeps all of them.
        required: columns that every row must have.
        build: makes the trainer.
        check: judges the tokenised data, ends the job or returns what the result reports of it.
        save: writes the weights and returns the folder's name.
    """

    kind: TrainedKind
    config: Callable[[], type]
    columns: tuple[str, ...]
    required: tuple[str, ...]
    build: Callable[[Setup], Any]
    check: Callable[[Any, Setup], dict[str, Any]]
    save: Callable[[Any, Setup], Literal["adapter", "model"]] = save_weights


def run_stage(method: Method, config_path: Path, paths: JobPaths) -> None:
    """Train as a TRL config file says; leave weights, `metrics.jsonl` and `result.json`.

    The folder of the weights is `adapter` or `model` in the working directory. Ends the process
    with exit code 3 and `failure.json` when the training went wrong or the data trains nothing.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for path in (paths.result, paths.failure):
        path.unlink(missing_ok=True)
    refuse_missing_gpu()
    setup = setup_of(method, config_path, paths)
    trainer = method.build(setup)
    checks = method.check(trainer, setup) | _check_prompts(trainer.processing_class, paths)
    _check_held_out(trainer, setup)
    with setup.training_args.main_process_first(local=False):
        checkpoint = last_checkpoint(Path(setup.training_args.output_dir), config_path)
    started = time.monotonic()
    output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    train_s = time.monotonic() - started
    callback = setup.callback
    if callback.failure is not None:
        found = callback.failure
        fail(paths.failure, found.failure_class, found.message, **found.evidence)
    if trainer.state.global_step == 0:
        fail(paths.failure, "data.too_few", f"{len(setup.rows)} rows make no step", n_rows=len(setup.rows))
    kept = _kept_checkpoint(trainer, setup)
    weights = method.save(trainer, setup)
    result = {
        "stage": method.kind,
        "n_steps": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "train_loss": output.training_loss,
        "n_tokens": callback.n_tokens,
        "train_s": round(train_s, 3),
        "weights": weights,
        "resumed_from_step": callback.first_step or None,
        "device": str(trainer.args.device.type),
        "versions": package_versions(*PACKAGES),
        "metrics": {name: list(ends) for name, ends in callback.ends.items()},
        "reference": reference_of(trainer),
        "n_rows": len(setup.rows),
        "kept": kept,
        **checks,
    }
    if trainer.is_world_process_zero():
        write_json_file(paths.result, result)


def reference_of(trainer: Any) -> str | None:
    """Return what the training compared its policy with; None for a kind that compares with nothing."""
    if not hasattr(trainer, "ref_model") or getattr(trainer, "beta", None) == 0.0:
        return None
    if getattr(trainer.args, "precompute_ref_log_probs", False):
        return "precomputed"
    return "adapter_off" if trainer.ref_model is None else "frozen_copy"


def _check_held_out(trainer: Any, setup: Setup) -> None:
    """End the job when nothing is left of the held-out rows: no checkpoint could be measured."""
    if setup.held_out and len(trainer.eval_dataset) == 0:
        message = f"none of the {len(setup.held_out)} held-out rows fits in `max_length`"
        fail(setup.paths.failure, "data.empty_after_filter", message, n_held_out=len(setup.held_out))


def _kept_checkpoint(trainer: Any, setup: Setup) -> dict[str, Any] | None:
    """Return which step's weights are kept and which step was best; None without held-out rows.

    The trainer has loaded the best checkpoint by now where the config asks for it. Ends the job when it
    could not: the last weights must never pass as the best ones.
    """
    if not setup.held_out:
        return None
    args, state = trainer.args, trainer.state
    metric, best = args.metric_for_best_model, state.best_global_step
    if args.load_best_model_at_end and best is None:
        message = f"`{metric}` was never a number on the {len(setup.held_out)} held-out rows"
        fail(setup.paths.failure, "train.diverged", message)
    if args.load_best_model_at_end and state.best_model_checkpoint is None:
        fail(setup.paths.failure, "train.no_result", f"the best checkpoint, of step {best}, is gone")
    return {
        "step": best if args.load_best_model_at_end else state.global_step,
        "best_step": best,
        "metric": metric,
        "best_value": None if best is None else state.best_metric,
        "n_held_out": len(setup.held_out),
    }


def into_place(trainer: Any, folder: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a folder, which appears only when it is complete. All processes call this."""
    staging = folder.with_name(f".{folder.name}.staging")
    if trainer.is_world_process_zero():
        for path in (staging, folder):
            shutil.rmtree(path, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    write(staging)
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return
    for name in UNWANTED:
        (staging / name).unlink(missing_ok=True)
    make_readable(staging)
    staging.rename(folder)


def last_checkpoint(output_dir: Path, config_path: Path) -> Path | None:
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


def end_tokens(trainer: Any) -> list[int]:
    """Return the tokens that end a generation: the tokenizer's and the generation config's."""
    listed = getattr(trainer.model.generation_config, "eos_token_id", None)
    ends = set(listed if isinstance(listed, list) else [listed])
    ends.add(trainer.processing_class.eos_token_id)
    return [token for token in ends if token is not None]


def setup_of(method: Method, config_path: Path, paths: JobPaths) -> Setup:
    from rdagent_ft.training.metrics_callback import MetricsCallback

    _, training_args, model_args, dataset_args = _parse(config_path, method.config())
    rows = _rows(dataset_args, method.columns)
    if not rows:
        fail(paths.failure, "data.empty_after_filter", "the training file has no rows")
    if paths.tokens is not None:
        rows = [{**row, ROW_NUMBER: number} for number, row in enumerate(rows)]
    for number, row in enumerate(rows):
        missing = [name for name in method.required if row.get(name) is None]
        if missing:
            message = f"row {number} has no `{missing[0]}`, which a {method.kind} training reads"
            fail(paths.failure, "data.columns", message, n_rows=len(rows), columns=sorted(row))
    held_out: list[dict[str, Any]] = []
    if dataset_args.test_split_size is not None:
        try:
            rows, held_out = hold_out(rows, dataset_args.test_split_size, training_args.seed)
        except ValueError as error:
            fail(paths.failure, "data.too_few", f"no row can be held out: {error}", n_rows=len(rows))
    callback = MetricsCallback(paths.metrics, method.kind)
    return Setup(training_args, model_args, rows, callback, paths, held_out)


def refuse_missing_gpu() -> None:
    """End a job that was given a GPU and finds none: it must never train on the CPU instead."""
    if os.environ.get("RDAGENT_FT_NEEDS_GPU") != "1":
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("No CUDA GPUs are available, and this job was to run on one")


def _parse(config_path: Path, config_class: type) -> Any:
    from trl.scripts.utils import DatasetMixtureConfig, ScriptArguments, TrlParser
    from trl.trainer.model_config import ModelConfig

    groups: Any = (ScriptArguments, config_class, ModelConfig, DatasetMixtureConfig)
    parser = TrlParser(groups)
    return parser.parse_args_and_config(["--config", str(config_path)])


def _rows(dataset_args: Any, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read the JSON lines files that `datasets:` names, in order.

    Straight into memory instead of through a dataset builder: no builder start-up (about 2 s), no
    cache outside the job's folder, and no code of a dataset repository.
    """
    rows: list[dict[str, Any]] = []
    for entry in dataset_args.datasets:
        if entry.path != "json" or not isinstance(entry.data_files, str):
            raise ValueError("`datasets` must name JSON lines files: {path: json, data_files: FILE}")
        rows += read_rows(Path(entry.data_files), columns)
    return rows


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


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
