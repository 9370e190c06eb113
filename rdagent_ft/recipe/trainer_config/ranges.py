"""Numbers of a trainer config: ranges that hold for every config, and learning rates far off.

Ranges are what the trainer or torch refuses or what trains nothing. The learning-rate bounds are a
hundred times outside the priors in `knowledge/priors/`: a typo, not an opinion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Finding, finding
from rdagent_ft.recipe.trainer_config.config import TrainerConfig


class Range(NamedTuple):
    """Allowed numbers; `open_low` and `open_high` leave the bound itself out."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def holds(self, number: float) -> bool:
        """Whether `number` lies inside."""
        above = self.low is None or (number > self.low if self.open_low else number >= self.low)
        below = self.high is None or (number < self.high if self.open_high else number <= self.high)
        return above and below

    def words(self) -> str:
        """Return the range as people read it."""
        low = "" if self.low is None else f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        high = (
            ""
            if self.high is None
            else f"below {self.high:g}"
            if self.open_high
            else f"at most {self.high:g}"
        )
        return " and ".join(part for part in (low, high) if part)


_POSITIVE = Range(low=0, open_low=True)
_COUNT = Range(low=1)
_SHARE = Range(low=0, high=1)
_PART = Range(low=0, high=1, open_high=True)
_ZERO_UP = Range(low=0)

RANGES: dict[str, Range] = {
    "learning_rate": _POSITIVE,
    "num_train_epochs": Range(low=0, high=1000, open_low=True),
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "warmup_steps": _ZERO_UP,
    "weight_decay": _SHARE,
    "max_grad_norm": _ZERO_UP,
    "label_smoothing_factor": _PART,
    "label_smoothing": _PART,
    "adam_beta1": _PART,
    "adam_beta2": _PART,
    "adam_epsilon": _POSITIVE,
    "logging_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "save_total_limit": _COUNT,
    "max_length": Range(low=8),
    "seed": Range(low=0, high=2**32 - 1),
    "data_seed": Range(low=0, high=2**32 - 1),
    "neftune_noise_alpha": Range(low=0, high=100, open_low=True),
    "dataset_num_proc": _COUNT,
    "dataloader_num_workers": _ZERO_UP,
    "dataloader_prefetch_factor": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "test_split_size": _POSITIVE,
    "lora_r": Range(low=1, high=4096),
    "lora_alpha": _COUNT,
    "lora_dropout": _PART,
    "ld_alpha": _SHARE,
    "ref_model_mixup_alpha": _SHARE,
    "ref_model_sync_steps": _COUNT,
    "precompute_ref_batch_size": _COUNT,
    "desirable_weight": _POSITIVE,
    "undesirable_weight": _POSITIVE,
    "discopop_tau": _POSITIVE,
    "center_rewards_coefficient": _ZERO_UP,
    "num_generations": Range(low=2),
    "num_generations_eval": _COUNT,
    "max_completion_length": _COUNT,
    "generation_batch_size": _COUNT,
    "steps_per_generation": _COUNT,
    "num_iterations": _COUNT,
    "temperature": _POSITIVE,
    "top_p": Range(low=0, high=1, open_low=True),
    "top_k": _ZERO_UP,
    "min_p": _SHARE,
    "repetition_penalty": _POSITIVE,
    "epsilon": Range(low=0, high=1, open_low=True, open_high=True),
    "epsilon_high": _POSITIVE,
    "top_entropy_quantile": Range(low=0, high=1, open_low=True),
    "vllm_gpu_memory_utilization": Range(low=0, high=1, open_low=True),
    "vllm_tensor_parallel_size": _COUNT,
    "vllm_server_port": Range(low=1, high=65535),
    "vllm_group_port": Range(low=1, high=65535),
    "vllm_server_timeout": _POSITIVE,
    "vllm_max_model_length": _COUNT,
}

_BETA: dict[str, Range] = {
    "dpo": Range(low=0, high=10, open_low=True),
    "kto": Range(low=0, high=10, open_low=True),
    "grpo": Range(low=0, high=1),
    "rloo": Range(low=0, high=1),
    "distillation": Range(low=0, high=1),
}

# (method, adapter) -> plausible learning rates: the priors' range widened by about 100 on each side.
_LEARNING_RATE: dict[tuple[str, bool], tuple[float, float]] = {
    ("sft", False): (1e-8, 5e-3),
    ("sft", True): (1e-7, 1e-2),
    ("dpo", False): (2e-9, 1e-4),
    ("dpo", True): (5e-9, 1e-3),
    ("kto", False): (2e-9, 1e-4),
    ("kto", True): (5e-9, 1e-3),
    ("reward", False): (1e-8, 1e-3),
    ("reward", True): (1e-7, 1e-2),
    ("grpo", False): (1e-9, 1e-4),
    ("grpo", True): (1e-8, 5e-3),
    ("rloo", False): (1e-9, 1e-4),
    ("rloo", True): (1e-8, 5e-3),
    ("distillation", False): (1e-8, 5e-3),
    ("distillation", True): (1e-7, 5e-2),
}


def check_ranges(config: TrainerConfig) -> Iterator[Finding]:
    """Yield a finding for each given number outside its range."""
    for key in config.values:
        allowed = _BETA.get(config.method) if key == "beta" else RANGES.get(key)
        number = config.number(key) if config.given(key) and key in config.keys else None
        if allowed is None or number is None or allowed.holds(number):
            continue
        rule = f"must be {allowed.words()}" + (f" in {config.method}" if key == "beta" else "")
        problem_class = "config.grpo_batch" if key == "num_generations" else "config.bad_value"
        fix = f"choose a number {allowed.words()}"
        yield finding(key, shown(config.values[key]), rule, problem_class, fix)
    yield from _steps(config)
    yield from _learning_rate(config)


def _steps(config: TrainerConfig) -> Iterator[Finding]:
    steps = config.number("max_steps")
    if config.given("max_steps") and steps is not None and (steps == 0 or steps < -1):
        rule = "must be at least 1, or -1 to let epochs decide"
        yield finding(
            "max_steps",
            shown(config.values["max_steps"]),
            rule,
            "config.bad_value",
            "write 1 or more, or drop it",
        )
    for key in ("warmup_steps", "logging_steps", "save_steps", "eval_steps"):
        number = config.number(key)
        if config.given(key) and number is not None and number > 1 and number != int(number):
            rule = "is a share below 1 or a whole number of steps"
            fix = f"write {int(number)}, or a share such as 0.05"
            yield finding(key, shown(config.values[key]), rule, "config.bad_value", fix)


def _learning_rate(config: TrainerConfig) -> Iterator[Finding]:
    rate = config.number("learning_rate")
    low, high = _LEARNING_RATE[(config.method, config.uses_lora)]
    if not config.given("learning_rate") or rate is None or rate <= 0 or low <= rate <= high:
        return
    kind = "LoRA" if config.uses_lora else "full"
    rule = f"lies far outside what {kind} {config.method} is trained with ({low:g} to {high:g} is generous)"
    fix = f"check the exponent; a usual value is {_usual_rate(config.method, config.uses_lora):g}"
    yield finding("learning_rate", shown(config.values["learning_rate"]), rule, "config.bad_value", fix)


def _usual_rate(method: str, lora: bool) -> float:
    usual = {"sft": 2e-5, "dpo": 5e-7, "kto": 5e-7, "reward": 1e-5, "grpo": 1e-6, "rloo": 1e-6}
    return usual.get(method, 1e-5) * (10 if lora else 1)
