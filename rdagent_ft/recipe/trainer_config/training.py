"""Cross-field rules that every method shares: steps, evaluation, saving, precision, hardware.

Source: what transformers 5.23 `TrainingArguments` and TRL 1.16 refuse or quietly ignore.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding
from rdagent_ft.recipe.trainer_config.config import TrainerConfig

_8BIT = ("8bit", "bnb", "paged", "4bit")


def check_training(config: TrainerConfig) -> Iterator[Finding]:
    """Yield findings of all groups."""
    yield from _duration(config)
    yield from _schedule(config)
    yield from _evaluation(config)
    yield from _best_model(config)
    yield from _precision(config)
    yield from _cpu(config)
    yield from _loading(config)


def _conflict(config: TrainerConfig, key: str, rule: str, fix: str, *edits: Edit) -> Finding:
    return finding(key, shown(config.value(key)), rule, "config.conflict", fix, *edits)


def _duration(config: TrainerConfig) -> Iterator[Finding]:
    steps = config.number("max_steps") or -1
    if steps > 0 and config.given("num_train_epochs"):
        yield _conflict(
            config, "num_train_epochs", f"is ignored because `max_steps` is {steps:g}", "keep one of the two",
            Edit(action="drop", key="num_train_epochs"),
        )  # fmt: skip
    warmup = config.number("warmup_steps") or 0
    if steps > 0 and warmup >= 1 and warmup >= steps:
        yield _conflict(
            config,
            "warmup_steps",
            f"warms up for all {steps:g} steps",
            "write a share such as 0.05, or fewer steps",
        )
    if config.flag("streaming") and steps <= 0:
        yield _conflict(
            config,
            "streaming",
            "has no length, so epochs cannot end",
            "set `max_steps`, or `streaming: false`",
        )


def _schedule(config: TrainerConfig) -> Iterator[Finding]:
    name = config.text("lr_scheduler_type")
    if name in ("reduce_lr_on_plateau", "greedy") and config.text("eval_strategy") in (None, "no"):
        yield _conflict(
            config,
            "lr_scheduler_type",
            "needs evaluation during training",
            "set `eval_strategy: steps`, or use `cosine`",
        )
    if name == "constant" and (config.number("warmup_steps") or 0) > 0:
        yield _conflict(
            config,
            "warmup_steps",
            "is ignored by the `constant` schedule",
            "write `lr_scheduler_type: constant_with_warmup`",
        )
    kwargs = config.mapping("lr_scheduler_kwargs")
    floor_missing = not {"min_lr", "min_lr_rate"} & set(kwargs) and not config.text("lr_scheduler_kwargs")
    if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr") and floor_missing:
        rule = "needs `lr_scheduler_kwargs` with `min_lr` or `min_lr_rate`"
        yield _conflict(config, "lr_scheduler_type", rule, "write `lr_scheduler_kwargs: {min_lr_rate: 0.1}`")
    for key, value in kwargs.items():
        if key in ("min_lr", "min_lr_rate", "num_cycles") and isinstance(value, str):
            rule = "is text: YAML reads 1e-6 (no dot) as text, and nothing converts it here"
            yield finding(
                f"lr_scheduler_kwargs.{key}",
                shown(value),
                rule,
                "config.bad_value",
                "write it with a dot, e.g. 1.0e-6",
            )


def _evaluation(config: TrainerConfig) -> Iterator[Finding]:
    strategy = config.text("eval_strategy")
    evaluates = strategy in ("steps", "epoch")
    if evaluates and config.given("datasets") and not config.given("test_split_size"):
        yield finding(
            "eval_strategy", strategy, "needs a test split; `datasets` gives only train", "config.eval_save",
            "set `test_split_size: 0.05`, or `eval_strategy: \"no\"`",
        )  # fmt: skip
    if config.given("eval_steps") and not evaluates:
        yield finding(
            "eval_steps", shown(config.value("eval_steps")), "is ignored without `eval_strategy: steps`",
            "config.eval_save", "set `eval_strategy: steps`, or drop it",
        )  # fmt: skip
    if not evaluates and config.given("eval_strategy") and config.flag("do_eval"):
        yield _conflict(
            config, "do_eval", "contradicts `eval_strategy: no`", "drop it, or set `eval_strategy: steps`"
        )
    if config.flag("eval_on_start") and not evaluates:
        yield finding(
            "eval_on_start",
            True,
            "needs evaluation during training",
            "config.eval_save",
            "set `eval_strategy: steps`",
        )


def _best_model(config: TrainerConfig) -> Iterator[Finding]:
    if not config.flag("load_best_model_at_end"):
        return
    evaluates, saves = config.text("eval_strategy") or "no", config.text("save_strategy") or "steps"
    if evaluates == "no" or saves == "no":
        rule = "needs evaluation and saving during training"
        fix = "set `eval_strategy: steps` and `save_strategy: steps`, or drop it"
        yield finding("load_best_model_at_end", True, rule, "config.eval_save", fix)
    elif saves not in ("best", evaluates):
        rule = f"needs save and eval strategy to match: save is {saves}, eval is {evaluates}"
        yield finding("save_strategy", saves, rule, "config.eval_save", f"write `save_strategy: {evaluates}`")
    elif evaluates == "steps" and saves == "steps":
        save = config.number("save_steps") or 0
        step = config.number("eval_steps") or config.number("logging_steps") or 0
        uneven = (save < 1) != (step < 1) or (step > 0 and abs(save / step - round(save / step)) > 1e-9)
        if save > 0 and step > 0 and uneven:
            rule = f"must be a multiple of the evaluation interval ({step:g})"
            yield finding(
                "save_steps",
                shown(config.value("save_steps")),
                rule,
                "config.eval_save",
                f"write `save_steps: {step:g}` or a multiple",
            )


def _precision(config: TrainerConfig) -> Iterator[Finding]:
    if config.flag("fp16") and config.flag("bf16"):
        yield _conflict(
            config,
            "fp16",
            "cannot be on together with `bf16`",
            "keep `bf16: true` on Ampere or newer, else `fp16: true`",
        )
    if config.flag("fp16_full_eval") and config.flag("bf16_full_eval"):
        yield _conflict(
            config, "fp16_full_eval", "cannot be on together with `bf16_full_eval`", "keep one of the two"
        )
    if config.flag("fp16") and config.text("dtype") == "float16" and not config.flag("load_in_4bit"):
        rule = "with `fp16: true` leaves gradients in half precision that cannot be unscaled"
        yield finding(
            "dtype",
            "float16",
            rule,
            "config.fp16_adapter",
            "write `dtype: float32`, or `bf16: true` with `dtype: bfloat16`",
        )
    if config.flag("bf16") and config.given("bf16") and config.text("dtype") == "float16":
        yield _conflict(config, "dtype", "contradicts `bf16: true`", "write `dtype: bfloat16`")
    kwargs = config.mapping("model_init_kwargs")
    for old in ("torch_dtype", "dtype"):
        if old in kwargs and (old == "torch_dtype" or kwargs[old] in ("bf16", "fp16", "fp32")):
            yield finding(
                f"model_init_kwargs.{old}",
                shown(kwargs[old]),
                "belongs to the key `dtype`",
                "config.renamed_key",
                "write `dtype: bfloat16` at the top",
            )
    if config.given("deepspeed") and config.given("fsdp"):
        yield _conflict(config, "fsdp", "cannot be used together with `deepspeed`", "keep one of the two")


def _cpu(config: TrainerConfig) -> Iterator[Finding]:
    if not config.flag("use_cpu"):
        return
    optim = config.text("optim") or ""
    if any(part in optim for part in _8BIT):
        yield finding(
            "optim",
            optim,
            "needs bitsandbytes on a GPU, and `use_cpu` is on",
            "env.missing_dep",
            "write `optim: adamw_torch`",
        )
    for key in ("fp16", "tf32", "load_in_4bit", "load_in_8bit", "use_vllm", "activation_offloading"):
        if key in config.keys and config.flag(key):
            yield _conflict(config, key, "needs a GPU, and `use_cpu` is on", "drop it, or drop `use_cpu`")
    kernel = config.text("attn_implementation") or ""
    if "flash" in kernel:
        yield finding(
            "attn_implementation",
            kernel,
            "needs a GPU, and `use_cpu` is on",
            "env.flash_attn",
            "write `attn_implementation: sdpa`",
        )


def _loading(config: TrainerConfig) -> Iterator[Finding]:
    old, new = "gradient_checkpointing", "activation_checkpointing"
    if config.given(old) and config.given(new) and config.flag(old) != config.flag(new):
        yield _conflict(config, old, f"contradicts `{new}`, its newer name", "keep one of the two")
    for key in (f"{old}_kwargs", f"{new}_kwargs"):
        reentrant = config.mapping(key).get("use_reentrant", False)
        if not isinstance(reentrant, bool):
            rule = "must be true or false: any text counts as true"
            name = f"{key}.use_reentrant"
            yield finding(
                name, shown(reentrant), rule, "config.bad_value", f"write `{key}: {{use_reentrant: false}}`"
            )
    workers = config.number("dataloader_num_workers") or 0
    for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
        on = config.flag(key) if key.endswith("workers") else config.given(key)
        if on and workers == 0:
            yield _conflict(
                config,
                key,
                "needs `dataloader_num_workers` above 0",
                "drop it, or set `dataloader_num_workers: 2`",
            )
