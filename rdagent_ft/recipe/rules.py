"""Cross-field rules of a recipe: V1 of the ladder, milliseconds, before anything is rendered.

A data script is compiled, once, in a process of its own; it is not run.

`check_recipe` gives what must not start; `recipe_warnings` gives what is unusual but may be right.
Each rule is a small function in the table at the end. Facts that are unknown switch their rule off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.data_script import script_problems
from rdagent_ft.recipe.memory import ModelShape, estimate_memory_gib
from rdagent_ft.recipe.schema import LoraAdapter, Recipe, SftStage
from rdagent_ft.values import Frozen

VARLEN_KERNELS = ("kernels-community/flash-attn2",)
TINY_PARAMS = 50_000_000


class RuleFacts(Frozen):
    """What is known of model, data and machine. None or empty means unknown.

    Attributes:
        device, n_gpus: where training runs.
        n_params, hidden_size, vocab_size, max_positions: of the base model.
        shape: all sizes of the base model; switches the memory rule on.
        memory_gib: host memory a job may use.
        gpu_memory_gib: memory of one GPU.
        kernels: attention kernels that the environment has.
        n_train_rows: rows of the train split.
        bitsandbytes: whether the package is there.
        serve_max_lora_rank: largest rank that the server takes unmerged.
        can_contain: whether jobs run in containers, which code in a recipe needs.
    """

    device: Literal["cpu", "cuda"] | None = None
    n_gpus: int | None = None
    n_params: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    max_positions: int | None = None
    shape: ModelShape | None = None
    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    kernels: tuple[str, ...] = ()
    n_train_rows: int | None = None
    bitsandbytes: bool | None = None
    serve_max_lora_rank: int | None = None
    can_contain: bool | None = None


class StageCheck(Frozen):
    """One stage with its place and the facts, as rules read it."""

    key: str
    index: int
    stage: SftStage
    recipe: Recipe
    facts: RuleFacts

    def problem(
        self, field: str, value: object, rule: str, fix: str, kind: str = "config.conflict"
    ) -> Problem:
        """Return a problem of one field of the stage."""
        return Problem(f"{self.key}.{field}", value, rule, kind, fix)


def check_recipe(recipe: Recipe, facts: RuleFacts) -> list[Problem]:
    """Return every broken rule of data and stages; an empty list means the recipe may start."""
    problems = script_problems(recipe.data.script, facts.can_contain)
    for index, stage in enumerate(recipe.stages):
        check = StageCheck(key=f"stages.{index}", index=index, stage=stage, recipe=recipe, facts=facts)
        for rule in _RULES:
            problems += rule(check)
    return problems


def recipe_warnings(recipe: Recipe, facts: RuleFacts) -> list[str]:
    """Return what lies outside usual practice, as sentences that name the prior."""
    found: list[str] = []
    for index, stage in enumerate(recipe.stages):
        found += _rate_warning(f"stages.{index}", stage, facts)
        found += _habit_warnings(f"stages.{index}", stage)
    return found


def optimizer_steps(stage: SftStage, n_rows: int) -> int:
    """Return the optimizer steps of a stage over `n_rows` rows (the last partial batch counts)."""
    if stage.max_steps is not None:
        return stage.max_steps
    return int(-(-n_rows // stage.effective_batch) * stage.epochs)


def usual_learning_rates(*, lora: bool, n_params: int | None) -> tuple[float, float]:
    """Return the range of `sft-lora-lr-grid`, `sft-full-lr` or `sft-tiny-full-lr`."""
    if lora:
        return (5e-5, 1e-3)
    return (2e-4, 3e-3) if n_params is not None and n_params < TINY_PARAMS else (5e-6, 5e-5)


def _micro_batch(check: StageCheck) -> Iterator[Problem]:
    stage, n_gpus = check.stage, max(check.facts.n_gpus or 1, 1)
    if stage.effective_batch % stage.micro_batch:
        best = max(n for n in range(1, stage.micro_batch + 1) if stage.effective_batch % n == 0)
        rule = f"must divide effective_batch ({stage.effective_batch})"
        yield check.problem("micro_batch", stage.micro_batch, rule, f"write {best}")
    elif n_gpus > 1 and stage.effective_batch % (stage.micro_batch * n_gpus):
        rule = f"times {n_gpus} GPUs must divide effective_batch ({stage.effective_batch})"
        yield check.problem(
            "micro_batch", stage.micro_batch, rule, f"write {max(stage.effective_batch // n_gpus, 1)}"
        )


def _batch_size(check: StageCheck) -> Iterator[Problem]:
    rows = check.facts.n_train_rows
    if rows is not None and check.recipe.data.max_items is not None:
        rows = min(rows, check.recipe.data.max_items)
    if rows is None:
        return
    if check.stage.effective_batch > rows:
        rule = f"is larger than the {rows} training rows: no full step"
        yield check.problem(
            "effective_batch", check.stage.effective_batch, rule, f"write at most {max(rows, 1)}"
        )
    if check.stage.max_steps is None and optimizer_steps(check.stage, rows) < 1:
        rule = f"ends before the first optimizer step on {rows} rows"
        yield check.problem("epochs", check.stage.epochs, rule, "raise epochs or lower effective_batch")


def _length(check: StageCheck) -> Iterator[Problem]:
    limit = check.facts.max_positions or (check.facts.shape.max_positions if check.facts.shape else None)
    if limit is not None and check.stage.max_length > limit:
        rule = f"is above the model's context of {limit} tokens"
        yield check.problem(
            "max_length", check.stage.max_length, rule, f"write at most {limit}", "config.bad_value"
        )


def _packing(check: StageCheck) -> Iterator[Problem]:
    stage, facts = check.stage, check.facts
    if stage.packing and stage.attn_implementation not in VARLEN_KERNELS:
        rule = (
            f"needs a variable-length kernel; with {stage.attn_implementation!r} packed rows see each other"
        )
        fix = f"set attn_implementation to {VARLEN_KERNELS[0]!r} on a GPU, or packing to false"
        yield check.problem("packing", True, rule, fix, "config.packing")
    if stage.attn_implementation not in VARLEN_KERNELS:
        return
    if facts.device == "cpu":
        rule = "needs a GPU, and training runs on the CPU"
        yield check.problem(
            "attn_implementation", stage.attn_implementation, rule, "write 'auto'", "env.flash_attn"
        )
    elif facts.kernels and stage.attn_implementation not in facts.kernels:
        rule = f"is not in the environment, which has {', '.join(facts.kernels)}"
        yield check.problem(
            "attn_implementation", stage.attn_implementation, rule, "write 'auto'", "env.flash_attn"
        )


def _optimizer(check: StageCheck) -> Iterator[Problem]:
    if check.stage.optim != "adamw_8bit":
        return
    if check.facts.device == "cpu":
        rule = "needs a GPU, and training runs on the CPU"
        yield check.problem("optim", "adamw_8bit", rule, "write 'adamw_torch'", "env.missing_dep")
    elif check.facts.bitsandbytes is False:
        rule = "needs the package bitsandbytes, which the environment lacks"
        yield check.problem("optim", "adamw_8bit", rule, "write 'adamw_torch'", "env.missing_dep")


def _adapter(check: StageCheck) -> Iterator[Problem]:
    adapter, facts = check.stage.adapter, check.facts
    if not isinstance(adapter, LoraAdapter):
        return
    hidden = facts.hidden_size or (facts.shape.hidden_size if facts.shape else None)
    if hidden is not None and adapter.r > hidden:
        rule = f"is above the hidden size {hidden}: the adapter would be larger than the layer"
        yield check.problem("adapter.r", adapter.r, rule, f"write at most {hidden}", "config.bad_value")
    if facts.serve_max_lora_rank is not None and adapter.r > facts.serve_max_lora_rank:
        rule = f"is above the rank {facts.serve_max_lora_rank} that the server takes"
        yield check.problem(
            "adapter.r", adapter.r, rule, f"write at most {facts.serve_max_lora_rank}", "config.bad_value"
        )
    targets = () if adapter.target_modules == "all-linear" else adapter.target_modules
    names = [name.split(".")[-1] for name in targets]
    if "lm_head" in names:
        rule = "holds lm_head, whose plain weight the loss reads: it would not be trained"
        yield check.problem(
            "adapter.target_modules", list(targets), rule, "write 'all-linear'", "config.lora_targets"
        )
    if targets == () and adapter.target_modules != "all-linear":
        rule = "is empty: nothing would be trained"
        yield check.problem("adapter.target_modules", [], rule, "write 'all-linear'", "config.lora_targets")


def _memory(check: StageCheck) -> Iterator[Problem]:
    facts = check.facts
    limit = facts.gpu_memory_gib if facts.device == "cuda" else facts.memory_gib
    if facts.shape is None or facts.device is None or limit is None:
        return
    estimate = estimate_memory_gib(check.recipe, facts.shape, facts.device, stage_index=check.index)
    if estimate.total_gib <= limit:
        return
    by_batch = estimate.parts["activations"] + estimate.parts["logits"]
    if estimate.total_gib - by_batch < limit:
        field, value, fix = "micro_batch", check.stage.micro_batch, "lower it, or set gradient_checkpointing"
    else:
        field, value, fix = "adapter", check.stage.adapter.kind, "train LoRA, or choose a smaller model"
    rule = f"needs about {estimate.words()}; {limit:.1f} GiB are there"
    yield check.problem(field, value, rule, fix, "resource.memory")


_RULES: tuple[Callable[[StageCheck], Iterator[Problem]], ...] = (
    _micro_batch,
    _batch_size,
    _length,
    _packing,
    _optimizer,
    _adapter,
    _memory,
)


def _rate_warning(key: str, stage: SftStage, facts: RuleFacts) -> list[str]:
    lora = isinstance(stage.adapter, LoraAdapter)
    low, high = usual_learning_rates(lora=lora, n_params=facts.n_params)
    if low <= stage.learning_rate <= high:
        return []
    kind = "LoRA" if lora else "full"
    tiny = facts.n_params is not None and facts.n_params < TINY_PARAMS
    prior = "sft-lora-lr-grid" if lora else "sft-tiny-full-lr" if tiny else "sft-full-lr"
    return [
        f"`{key}.learning_rate` {stage.learning_rate:g} is outside {low:g} to {high:g}, "
        f"usual for {kind} SFT ({prior})"
    ]


def _habit_warnings(key: str, stage: SftStage) -> list[str]:
    found: list[str] = []
    if stage.epochs > 10 and stage.max_steps is None:
        found.append(f"`{key}.epochs` {stage.epochs:g} is far above the usual 1 to 3 (sft-epochs)")
    if stage.weight_decay > 0.1:
        found.append(f"`{key}.weight_decay` {stage.weight_decay:g} is above 0.1 (sft-weight-decay)")
    if stage.warmup_ratio > 0.3:
        found.append(f"`{key}.warmup_ratio` {stage.warmup_ratio:g} is above 0.3 (sft-warmup)")
    if isinstance(stage.adapter, LoraAdapter) and stage.effective_batch > 128:
        found.append(f"`{key}.effective_batch` {stage.effective_batch} is large for LoRA (sft-lora-batch)")
    if stage.lr_scheduler == "constant" and stage.warmup_ratio > 0:
        found.append(f"`{key}.warmup_ratio` is ignored by the constant schedule (sft-scheduler)")
    if stage.max_grad_norm == 0:
        found.append(f"`{key}.max_grad_norm` 0 switches clipping off (sft-clip)")
    return found
