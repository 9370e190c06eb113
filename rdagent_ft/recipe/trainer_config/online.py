"""Cross-field rules of GRPO, RLOO and distillation: batches of whole groups, rewards, vLLM.

Source: TRL 1.16 `grpo_config.py`, `grpo_trainer.py`, `distillation_config.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding
from rdagent_ft.recipe.trainer_config.adapters import model_family
from rdagent_ft.recipe.trainer_config.config import TrainerConfig

REWARDS = (
    "accuracy_reward",
    "reasoning_accuracy_reward",
    "think_format_reward",
    "get_soft_overlong_punishment",
)


def check_online(config: TrainerConfig) -> Iterator[Finding]:
    """Yield findings for methods that generate; nothing for others."""
    if config.method in ("grpo", "rloo"):
        yield from _groups(config)
        yield from _eval_groups(config)
        yield from _rewards(config)
        yield from _shape(config)
    if config.method == "distillation" and not config.given("teacher_model_name_or_path"):
        rule = "is missing: there is nothing to learn from"
        yield finding(
            "teacher_model_name_or_path", None, rule, "config.missing_key", "name the teacher model"
        )
    if config.method == "distillation":
        yield from _teacher(config)
    if config.method in ("grpo", "rloo", "distillation"):
        yield from _vllm(config)


def _teacher(config: TrainerConfig) -> Iterator[Finding]:
    """Student and teacher must have one vocabulary: the loss compares them word by word."""
    student, teacher = (
        model_family(config, key) for key in ("model_name_or_path", "teacher_model_name_or_path")
    )
    pair = {student, teacher}
    if None in pair or len(pair) == 1 or pair == {"qwen2", "qwen3"}:
        return
    rule = f"is of the {teacher} family, the student of {student}: their vocabularies differ"
    name = config.text("teacher_model_name_or_path")
    fix = "choose a teacher of the student's family, or train with sft on the teacher's answers"
    yield finding("teacher_model_name_or_path", name, rule, "config.conflict", fix)


def _groups(config: TrainerConfig) -> Iterator[Finding]:
    """The generation batch must hold whole groups of `num_generations` completions."""
    if config.given("generation_batch_size") and config.given("steps_per_generation"):
        yield finding(
            "steps_per_generation",
            shown(config.value("steps_per_generation")),
            "cannot be set together with `generation_batch_size`",
            "config.grpo_batch",
            "keep one of the two",
        )
        return
    if config.flag("auto_find_batch_size"):
        yield finding(
            "auto_find_batch_size",
            True,
            "would break the groups of one prompt",
            "config.grpo_batch",
            "drop it and lower `per_device_train_batch_size`",
        )
    micro, group = config.number("per_device_train_batch_size"), config.number("num_generations")
    accumulation = config.number("gradient_accumulation_steps")
    if not micro or not group or not accumulation or group < 2 or micro < 1 or accumulation < 1:
        return
    per_pass = int(micro) * config.n_processes
    batch = config.number("generation_batch_size") or per_pass * (
        config.number("steps_per_generation") or accumulation
    )
    if config.given("generation_batch_size") and batch % per_pass:
        yield finding(
            "generation_batch_size",
            shown(batch),
            f"must be a multiple of the batch of all devices ({per_pass})",
            "config.grpo_batch",
            f"write {_next_multiple(batch, per_pass)}",
        )
    elif batch % group:
        key = "generation_batch_size" if config.given("generation_batch_size") else "num_generations"
        rule = f"does not divide the generation batch: {batch:g} completions, groups of {group:g}"
        yield finding(
            key, shown(config.value(key)), rule, "config.grpo_batch", _group_fix(config, per_pass, int(group))
        )


def _next_multiple(number: float, of: int) -> int:
    return -(-int(number) // of) * of


def _group_fix(config: TrainerConfig, per_pass: int, group: int) -> str:
    """Name the next accumulation that makes whole groups; the person decides, as it moves the batch."""
    steps = next(n for n in range(1, group + 1) if per_pass * n % group == 0)
    wanted = max(int(config.number("gradient_accumulation_steps") or 1), 1)
    accumulation = _next_multiple(wanted, steps)
    return f"write `gradient_accumulation_steps: {accumulation}`, or a divisor for `num_generations`"


def _eval_groups(config: TrainerConfig) -> Iterator[Finding]:
    if config.text("eval_strategy") not in ("steps", "epoch"):
        return
    group = config.number("num_generations_eval") or config.number("num_generations")
    size = config.number("per_device_eval_batch_size")
    if group and size and (size * config.n_processes) % group:
        rule = (
            f"times {config.n_processes} devices must be a multiple of the {group:g} completions per prompt"
        )
        yield finding(
            "per_device_eval_batch_size",
            shown(size),
            rule,
            "config.grpo_batch",
            f"write {_next_multiple(size, int(group))}",
        )


def _rewards(config: TrainerConfig) -> Iterator[Finding]:
    names = config.items("reward_funcs")
    if not names and not config.given("reward_model_name_or_path"):
        yield finding(
            "reward_funcs",
            None,
            "is missing: nothing scores the completions",
            "config.missing_key",
            f"name one of {', '.join(REWARDS)}, a dotted path, or `reward_model_name_or_path`",
        )
    for name in names:
        if isinstance(name, str) and name not in REWARDS and not _is_dotted(name):
            near = difflib.get_close_matches(name, REWARDS, n=1, cutoff=0.4)
            fix = (
                f"did you mean `{near[0]}`? " if near else ""
            ) + f"Known: {', '.join(REWARDS)}, or a dotted path such as my_rewards.exact"
            yield finding(
                "reward_funcs", name, "is not a reward of TRL, nor a dotted path", "config.bad_value", fix
            )
    n_rewards = len(names) + config.given("reward_model_name_or_path")
    weights = config.items("reward_weights")
    if weights and n_rewards and len(weights) != n_rewards:
        yield finding(
            "reward_weights",
            shown(list(weights)),
            f"has {len(weights)} entries for {n_rewards} rewards",
            "config.conflict",
            "give one weight per reward",
        )


def _is_dotted(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _shape(config: TrainerConfig) -> Iterator[Finding]:
    scale: Any = config.value("scale_rewards")
    if (
        config.given("scale_rewards")
        and config.method == "grpo"
        and scale not in ("group", "batch", "none", True, False)
    ):
        yield finding(
            "scale_rewards",
            shown(scale),
            "is not a value of `scale_rewards`",
            "config.bad_value",
            "use one of: group, batch, none",
        )
    loss, level = config.text("loss_type"), config.text("importance_sampling_level")
    if loss == "luspo" and level != "sequence":
        yield finding(
            "loss_type",
            loss,
            "is defined for sequence-level importance weights",
            "config.conflict",
            "write `importance_sampling_level: sequence`",
        )
    if (
        level == "sequence"
        and loss in ("bnpo", "dr_grpo", "dapo", "cispo")
        and config.given("importance_sampling_level")
    ):
        yield finding(
            "importance_sampling_level",
            level,
            f"with `loss_type: {loss}` weights answers by their length",
            "config.conflict",
            "write `loss_type: grpo` (GSPO), or `importance_sampling_level: token`",
        )
    low, high = config.number("epsilon"), config.number("epsilon_high")
    if (
        low is not None
        and high is not None
        and loss in ("grpo", "dapo", "dr_grpo", "bnpo", "luspo")
        and high < low
    ):
        yield finding(
            "epsilon_high",
            shown(high),
            f"is below `epsilon` ({low:g})",
            "config.conflict",
            "write a value at or above `epsilon`, e.g. 0.28",
        )
    clip_low, clip_high = (
        config.number("vllm_importance_sampling_clip_min"),
        config.number("vllm_importance_sampling_clip_max"),
    )
    if clip_low is not None and clip_high is not None and clip_low >= clip_high:
        yield finding(
            "vllm_importance_sampling_clip_min",
            shown(clip_low),
            f"must be below `vllm_importance_sampling_clip_max` ({clip_high:g})",
            "config.conflict",
            "lower it",
        )


def _vllm(config: TrainerConfig) -> Iterator[Finding]:
    window, answer = config.number("vllm_max_model_length"), config.number("max_completion_length")
    if window is not None and answer is not None and window <= answer:
        yield finding(
            "vllm_max_model_length",
            shown(window),
            f"leaves no room for a prompt beside {answer:g} completion tokens",
            "config.conflict",
            "write prompt length plus `max_completion_length`",
        )
    if (
        config.flag("vllm_enable_sleep_mode")
        and config.text("vllm_mode") == "server"
        and config.flag("use_vllm")
    ):
        yield finding(
            "vllm_enable_sleep_mode",
            True,
            "works for `vllm_mode: colocate` only",
            "config.conflict",
            "drop it",
            Edit(action="drop", key="vllm_enable_sleep_mode"),
        )
    if config.given("vllm_mode") and not config.flag("use_vllm"):
        yield finding(
            "vllm_mode",
            shown(config.value("vllm_mode")),
            "is ignored without `use_vllm: true`",
            "config.conflict",
            "add `use_vllm: true`, or drop it",
        )
    if (
        config.flag("use_vllm")
        and "use_transformers_continuous_batching" in config.keys
        and config.flag("use_transformers_continuous_batching")
    ):
        yield finding(
            "use_transformers_continuous_batching",
            True,
            "and `use_vllm` are two ways to generate",
            "config.conflict",
            "keep one of the two",
        )
