"""Commands of the training jobs, and what they leave: the core's side, without torch.

All paths in results are relative to the job's folder and are checked to lie in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from rdagent_ft.errors import JobError
from rdagent_ft.execution.job_tree import list_tree
from rdagent_ft.execution.outputs import clean_text, read_json_file
from rdagent_ft.execution.weight_files import MAX_FILES
from rdagent_ft.training.stage_health import TrainedKind
from rdagent_ft.values import Frozen

_MODULE = "rdagent_ft.training"
T = TypeVar("T", bound=Frozen)

# What a job reports goes into the journal and onto terminals: short, clean and of drawable size.
Word = Annotated[str, StringConstraints(max_length=100), AfterValidator(clean_text)]
Versions = Annotated[dict[Word, Word], Field(max_length=64)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Number = Annotated[float, Field(ge=0, le=1e15)]
Value = Annotated[float, Field(ge=-1e30, le=1e30)]
Ends = Annotated[dict[Word, tuple[Value, Value]], Field(max_length=64)]


class KeptCheckpoint(Frozen):
    """Which weights a training with held-out rows left.

    Attributes:
        step: the optimizer step whose weights were kept: the best one, or the last.
        best_step, best_value: the best step by `metric`; None when it never was a number.
        metric: what was measured on the held-out rows, by the trainer's name.
        n_held_out: how many rows were held out.
    """

    step: Count
    best_step: Count | None
    metric: Word
    best_value: Value | None
    n_held_out: Count


class TrainResult(Frozen):
    """What a training job reports of itself (`result.json`).

    Attributes:
        n_steps, max_steps: optimizer steps done and planned.
        train_loss: mean over the attempt's steps.
        n_tokens: tokens seen, prompts included and padding not; None when unknown.
        n_rows, n_rows_trained: rows read and not held out, and rows left after tokenisation and truncation.
        share_tokens_trained: tokens with a loss / all tokens; None where no answer is given (`grpo`,
            `distill`) or the whole text is scored (`reward`).
        share_rows_with_end: rows that train the end token (truncated ones do not); None as above.
        train_s: seconds in the training loop of this attempt.
        weights: the folder with the weights.
        resumed_from_step: step of the checkpoint it went on from.
        device: `cpu` or `cuda`.
        versions: package -> version.
        stage: the kind of training; None in results of older versions.
        metrics: metric -> its first and last logged value.
        reference: what the policy was compared with: the start model with the adapter off, a frozen
            copy of it, or its scores computed before; None where nothing is compared.
        kept: which checkpoint the weights are; None when no row was held out.
        tokens: whether the tokens of an earlier training were used; None where none are shared.
    """

    n_steps: Count
    max_steps: Count
    train_loss: float | None
    n_tokens: Count | None
    n_rows: Count
    n_rows_trained: Count
    share_tokens_trained: Number | None
    share_rows_with_end: Number | None
    train_s: Number
    weights: Literal["adapter", "model"]
    resumed_from_step: Count | None
    device: Word
    versions: Versions
    stage: TrainedKind | None = None
    metrics: Ends = {}
    reference: Literal["adapter_off", "frozen_copy", "precomputed"] | None = None
    kept: KeptCheckpoint | None = None
    tokens: Literal["cached", "made"] | None = None


MAX_LOGIT_DIFF = 1e-5
"""Largest difference between merged and adapter logits in fp32, relative to the largest logit, that still
counts as equal: rounding grows with the logits."""


class MergeResult(Frozen):
    """What a merge job reports. `max_abs_diff` compares fp32 logits after a reload from disk."""

    max_abs_diff: Number
    max_abs_logit: Number
    n_prompts: Count
    kind: Literal["merged", "copied"]
    dtype: Word
    seconds: Number
    versions: Versions

    @property
    def is_equal(self) -> bool:
        """Whether merged and unmerged model are the same model. False for NaN."""
        return self.max_abs_diff <= MAX_LOGIT_DIFF * max(1.0, self.max_abs_logit)

    @property
    def words(self) -> str:
        """The comparison as part of a sentence."""
        return (
            f"merged and adapter logits differ by {self.max_abs_diff:.2e}, more than {MAX_LOGIT_DIFF:.0e} "
            f"of the largest logit {self.max_abs_logit:.3g}"
        )


def stage_argv(
    kind: TrainedKind,
    config: Path,
    *,
    rewards: Path | None = None,
    reward_model: Path | None = None,
    prompts_check: Path | None = None,
    tokens: Path | None = None,
) -> tuple[str, ...]:
    """Return a training's command; it writes into its working directory.

    Args:
        kind, config: the stage's kind and its rendered TRL config.
        rewards: `grpo` only, and needed there: the stage's reward declarations as a JSON list.
        reward_model: the folder of the reward model that one of them asks.
        prompts_check: rendered prompts to compare with the model's own template.
        tokens: `sft` on prompts and answers only: the folder of a cache entry (`token_files`).
    """
    if tokens is not None and kind != "sft":
        raise ValueError("`tokens` belongs to an `sft` stage")
    if (kind == "grpo") != (rewards is not None):
        raise ValueError("`rewards` belongs to a `grpo` stage, which needs it")
    argv = ("python", "-m", f"{_MODULE}.stage_job", "--kind", kind, "--config", str(config))
    for flag, path in (
        ("--rewards", rewards),
        ("--reward-model", reward_model),
        ("--prompts-check", prompts_check),
        ("--tokens", tokens),
    ):
        if path is not None:
            argv = (*argv, flag, str(path))
    return argv


def shared_argv(argv: tuple[str, ...], accelerate_config: Path) -> tuple[str, ...]:
    """Return a stage's command as accelerate starts it: one process a GPU, as the config says."""
    if argv[:2] != ("python", "-m"):
        raise ValueError("only a module can be started in several processes")
    launcher = ("python", "-m", "accelerate.commands.launch", "--config_file", str(accelerate_config))
    return (*launcher, "--module", *argv[2:])


def merge_argv(
    base: Path, out: Path, *, adapter: Path | None = None, model: Path | None = None
) -> tuple[str, ...]:
    """Return the merge job's command: `adapter` is merged into `base`, or full weights are copied."""
    if (adapter is None) == (model is None):
        raise ValueError("name either an adapter or a full model")
    source = ("--adapter", str(adapter)) if adapter is not None else ("--model", str(model))
    return ("python", "-m", f"{_MODULE}.merge_job", "--base", str(base), *source, "--out", str(out))


def pretrain_argv(spec: Path) -> tuple[str, ...]:
    """Return the command that trains a small model from random weights."""
    return ("python", "-m", f"{_MODULE}.pretrain_job", "--spec", str(spec))


def tiny_argv(spec: Path) -> tuple[str, ...]:
    """Return the command that makes a tiny random model."""
    return ("python", "-m", f"{_MODULE}.tiny_job", "--spec", str(spec))


def read_train_result(out_dir: Path) -> TrainResult:
    """Read `result.json` of a training job and check that its weights are there.

    Raises `JobError`: a job without a readable result and safetensors has not succeeded, whatever
    its exit code.
    """
    result = _read(out_dir, TrainResult)
    _require_weights(out_dir, result.weights)
    return result


def read_merge_result(out_dir: Path) -> MergeResult:
    """Read `result.json` of a merge job. Raises `JobError`."""
    return _read(out_dir, MergeResult)


def read_failure(out_dir: Path) -> dict[str, Any] | None:
    """Return `failure.json` of a job that judged itself; None where there is none to be read."""
    try:
        return read_json_file(out_dir, "failure.json", 1 << 16)
    except JobError:
        return None


def _require_weights(out_dir: Path, folder: Literal["adapter", "model"]) -> None:
    """Raise `JobError` when the weights are missing; whether they can be trusted is asked later."""
    try:
        left = list_tree(out_dir, folder, max_entries=MAX_FILES)
    except JobError:
        if os.path.lexists(out_dir / folder):
            return  # a link, or too much: `check_weights` names it
        raise
    wanted = "adapter_model.safetensors" if folder == "adapter" else "config.json"
    if not any(entry.name == wanted for entry in left):
        raise JobError(f"the job left no `{folder}/{wanted}`")
    if not any(entry.name.endswith(".safetensors") for entry in left):
        raise JobError(f"the job left no safetensors in `{folder}`")


def _read(out_dir: Path, kind: type[T]) -> T:
    values = read_json_file(out_dir, "result.json", 1 << 20)
    try:
        fields = kind.model_fields.items()
        return kind.model_validate(
            {name: values.get(name) for name, field in fields if name in values or field.is_required()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise JobError(f"`result.json` is not usable: {key}: {first['msg']}") from None
