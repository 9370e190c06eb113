# pyright: basic
"""Three real optimizer steps on the longest rows: what a stage needs on this very device.

    python -m rdagent_ft.training.probe_job --kind sft --config config.yaml

Finds what a forecast cannot know: the true peak of memory and the true speed of this device. It takes the
arguments of `stage_job`, trains what that would train, and keeps no weights. See `stage_run`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rdagent_ft.training.job_files import fail, write_json_file
from rdagent_ft.training.stage_job import METHODS
from rdagent_ft.training.stage_run import JobPaths, Method, refuse_missing_gpu, setup_of

N_STEPS = 3
MAX_ACCUMULATION = 2
"""The second pass meets the first one's gradients; more passes of the same size need no more memory."""
GIB = 1 << 30


class StepClock(TrainerCallback):
    """Notes when each step ended and how many tokens were seen until then."""

    def __init__(self) -> None:
        self.started: list[float] = []
        self.seconds: list[float] = []
        self.tokens: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        """Start the step's clock."""
        self.started.append(time.perf_counter())

    def on_step_end(self, args, state, control, **kwargs):
        """Stop it once the device has really finished."""
        if args.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started[-1])

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the tokens that the trainer counts, all steps together."""
        if logs and logs.get("num_tokens") is not None:
            self.tokens.append(float(logs["num_tokens"]))


def probe(method: Method, config_path: Path, paths: JobPaths) -> None:
    """Train `N_STEPS` steps on the longest rows and write what they took to `result.json`."""
    for path in (paths.result, paths.failure):
        path.unlink(missing_ok=True)
    refuse_missing_gpu()
    setup = setup_of(method, config_path, paths)
    _shorten(setup.training_args)
    n_rows = _rows_needed(setup.training_args)
    # TRL drops pairs above `max_length` from a reward training: its longest rows are known after that only.
    kept = setup.rows if method.kind == "reward" else _longest(setup.rows, n_rows)
    setup = replace(setup, rows=kept, held_out=[])
    clock = StepClock()
    importlib.import_module(method.config().__module__.replace("_config", "_trainer"))
    importlib.import_module("peft")
    before = _resident_gib("VmRSS")
    trainer = method.build(setup)
    if method.kind == "reward":
        trainer.train_dataset = _longest_pairs(trainer.train_dataset, n_rows)
    if len(trainer.train_dataset) == 0:
        fail(paths.failure, "data.empty_after_filter", "no row is left to probe with", n_rows=len(kept))
    trainer.add_callback(clock)
    trainer.train()
    if setup.callback.failure is not None:
        found = setup.callback.failure
        fail(paths.failure, found.failure_class, found.message, **found.evidence)
    on_gpu = trainer.args.device.type == "cuda"
    later = clock.seconds[1:] or clock.seconds  # the first step warms up
    n_tokens = clock.tokens[-1] if clock.tokens else None
    share = sum(later) * len(clock.seconds) / len(later)
    result = {
        "stage": method.kind,
        "device": trainer.args.device.type,
        "n_steps": trainer.state.global_step,
        "n_rows": len(trainer.train_dataset),
        "n_tokens": n_tokens,
        "longest_row_tokens": _longest_tokens(trainer.train_dataset),
        "peak_gib": round(_gpu_peak_gib() if on_gpu else _resident_gib("VmHWM"), 4),
        "before_gib": None if on_gpu else round(before, 4),
        "step_s": round(statistics.median(later), 4),
        "tokens_per_s": None if n_tokens is None else round(n_tokens / share, 2),
    }
    if trainer.is_world_process_zero():
        write_json_file(paths.result, result)


def _shorten(args: Any) -> None:
    """Few steps, nothing saved, every step logged; completions as long as they may become."""
    args.max_steps = N_STEPS
    args.save_strategy = "no"
    args.eval_strategy = "no"
    args.load_best_model_at_end = False
    args.logging_strategy = "steps"
    args.logging_steps = 1
    args.warmup_steps = 0
    if hasattr(args, "max_completion_length"):
        if not getattr(args, "use_vllm", False):
            kwargs = dict(args.generation_kwargs or {})
            args.generation_kwargs = {**kwargs, "min_new_tokens": args.max_completion_length}
        return  # all completions of a step are generated together: fewer passes would need less memory
    args.gradient_accumulation_steps = min(args.gradient_accumulation_steps, MAX_ACCUMULATION)


def _rows_needed(args: Any) -> int:
    """Return the rows of all steps; a `grpo` step repeats each prompt."""
    passes = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return N_STEPS * passes // getattr(args, "num_generations", 1)


def _longest(rows: list[dict[str, Any]], n_rows: int) -> list[dict[str, Any]]:
    """Return the rows with the most text; all of them when there are fewer."""
    return sorted(rows, key=lambda row: -len(str(row)))[:n_rows]


def _longest_pairs(dataset: Any, n_rows: int) -> Any:
    """Return the pairs with the most tokens."""
    lengths = [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in dataset]
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return dataset.select(order[:n_rows])


def _longest_tokens(dataset: Any) -> int | None:
    """Return the tokens of the longest tokenised row; None where the trainer tokenises later."""
    if "input_ids" in dataset.column_names:
        return max(map(len, dataset["input_ids"]))
    if {"chosen_ids", "rejected_ids"} <= set(dataset.column_names):
        return max(
            len(row.get("prompt_ids") or []) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
            for row in dataset
        )
    return None


def _gpu_peak_gib() -> float:
    """Return the most that the allocator held, and what the process holds beside it (context, libraries)."""
    import torch

    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return (torch.cuda.max_memory_reserved() + max(beside, 0)) / GIB


def _resident_gib(name: str) -> float:
    """Return `VmRSS` (now) or `VmHWM` (peak) of this process. `ru_maxrss` would count a parent's peak too."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / GIB


def main() -> None:
    """Parse the arguments and probe."""
    parser = argparse.ArgumentParser(description="Three real steps on the longest rows.")
    parser.add_argument("--kind", choices=sorted(METHODS), required=True)
    parser.add_argument("--config", type=Path, required=True, help="TRL config (YAML)")
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    parser.add_argument("--rewards", type=Path, default=None, help="grpo: declarations (JSON list)")
    parser.add_argument("--reward-model", type=Path, default=None, help="grpo: folder of a reward model")
    args = parser.parse_args()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")
    paths = JobPaths(
        metrics=Path("probe-metrics.jsonl"),
        result=args.result,
        failure=args.failure,
        rewards=args.rewards,
        reward_model=args.reward_model,
    )
    probe(METHODS[args.kind], args.config, paths)


if __name__ == "__main__":
    main()
