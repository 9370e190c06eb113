"""Cross-field rules of a recipe: V1 of the ladder, milliseconds, before anything is rendered.

A data script is compiled, once, in a process of its own; it is not run. Here stand the entry points and the
rules that every trained stage shares; those of one kind are in `rules_sft.py`, `rules_preference.py`,
`rules_online.py` and `rules_rewards.py`, and what is unusual but may be right is in `rule_warnings.py`.
Each rule is a small function in a table at the end of its file. Facts that are unknown switch it off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.data_rules import data_problems
from rdagent_ft.recipe.data_script import script_problems
from rdagent_ft.recipe.learnt import learnt_problems
from rdagent_ft.recipe.llamafactory.fits import fit_problems
from rdagent_ft.recipe.lora_targets import target_problems
from rdagent_ft.recipe.resources import resource_problems
from rdagent_ft.recipe.rule_facts import TINY_PARAMS as TINY_PARAMS
from rdagent_ft.recipe.rule_facts import Rule, RuleFacts, StageCheck
from rdagent_ft.recipe.rule_warnings import stage_warnings
from rdagent_ft.recipe.rules_checkpoints import CHECKPOINT_RULES, held_out_rows, stage_rows
from rdagent_ft.recipe.rules_online import ONLINE_RULES
from rdagent_ft.recipe.rules_preference import PREFERENCE_RULES
from rdagent_ft.recipe.rules_rewards import REWARD_RULES
from rdagent_ft.recipe.rules_sft import SFT_RULES
from rdagent_ft.recipe.rules_sft import VARLEN_KERNELS as VARLEN_KERNELS
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import GrpoStage, LoraAdapter, TrainedStage


def check_recipe(recipe: Recipe, facts: RuleFacts) -> list[Problem]:
    """Return every broken rule of data and stages; an empty list means the recipe may start."""
    problems = script_problems(recipe.data.script, facts.can_contain)
    problems += data_problems(recipe, facts.has_teacher)
    for index, stage in recipe.trained_stages:
        check = StageCheck(key=f"stages.{index}", index=index, stage=stage, recipe=recipe, facts=facts)
        for rule in _RULES:
            problems += rule(check)
    if facts.trainer == "llamafactory":
        problems += fit_problems(recipe)
    return problems + resource_problems(recipe, facts)


def recipe_warnings(recipe: Recipe, facts: RuleFacts) -> list[str]:
    """Return what lies outside usual practice, as sentences that name the prior."""
    found: list[str] = []
    for index, stage in recipe.trained_stages:
        found += stage_warnings(f"stages.{index}", stage, facts)
    return found


def optimizer_steps(stage: TrainedStage, n_rows: int) -> int:
    """Return the optimizer steps of a stage that reads `n_rows` rows (prompts for `grpo`).

    Rows that are held out (`eval_share`) make no step. The last partial batch counts, except for `grpo`,
    whose sampler leaves an incomplete batch out (TRL 1.16, `RepeatSampler`).
    """
    if stage.max_steps is not None:
        return stage.max_steps
    n_rows -= held_out_rows(stage, n_rows)
    if isinstance(stage, GrpoStage):
        return math.floor(n_rows // stage.effective_batch * stage.epochs)
    return int(-(-n_rows // stage.effective_batch) * stage.epochs)


def _micro_batch(check: StageCheck) -> Iterator[Problem]:
    stage, n_gpus = check.stage, max(check.facts.n_gpus or 1, 1)
    if isinstance(stage, GrpoStage):  # the program finds a micro-batch that holds whole groups
        completions = stage.effective_batch * stage.num_generations
        if completions % n_gpus:
            rule = f"times num_generations ({stage.num_generations}) cannot be split over {n_gpus} GPUs"
            fix = f"write {-(-stage.effective_batch // n_gpus) * n_gpus}"
            yield check.problem("effective_batch", stage.effective_batch, rule, fix)
    elif stage.effective_batch % stage.micro_batch:
        best = max(n for n in range(1, stage.micro_batch + 1) if stage.effective_batch % n == 0)
        rule = f"must divide effective_batch ({stage.effective_batch})"
        yield check.problem("micro_batch", stage.micro_batch, rule, f"write {best}")
    elif n_gpus > 1 and stage.effective_batch % (stage.micro_batch * n_gpus):
        rule = f"times {n_gpus} GPUs must divide effective_batch ({stage.effective_batch})"
        fitting = (n for n in range(stage.micro_batch, 0, -1) if stage.effective_batch % (n * n_gpus) == 0)
        best = next(fitting, None)
        fix = f"write {best}" if best else f"make effective_batch a multiple of {n_gpus}"
        yield check.problem("micro_batch", stage.micro_batch, rule, fix)


def _batch_size(check: StageCheck) -> Iterator[Problem]:
    read = stage_rows(check)
    if read is None:
        return
    rows = read - held_out_rows(check.stage, read)
    if check.stage.effective_batch > rows:
        rule = f"is larger than the {rows} training rows: no full step"
        yield check.problem(
            "effective_batch", check.stage.effective_batch, rule, f"write at most {max(rows, 1)}"
        )
    elif check.stage.max_steps is None and optimizer_steps(check.stage, read) < 1:
        rule = f"ends before the first optimizer step on {rows} rows"
        yield check.problem("epochs", check.stage.epochs, rule, "raise epochs or lower effective_batch")


def _length(check: StageCheck) -> Iterator[Problem]:
    limit = check.facts.max_positions or (check.facts.shape.max_positions if check.facts.shape else None)
    if limit is not None and check.stage.max_length > limit:
        rule = f"is above the model's context of {limit} tokens"
        yield check.problem(
            "max_length", check.stage.max_length, rule, f"write at most {limit}", "config.bad_value"
        )


def _kernel(check: StageCheck) -> Iterator[Problem]:
    stage, facts = check.stage, check.facts
    if stage.attn_implementation not in VARLEN_KERNELS:
        return
    if facts.device == "cpu":
        rule = "needs a GPU, and training runs on the CPU"
    elif facts.kernels and stage.attn_implementation not in facts.kernels:
        rule = f"is not in the environment, which has {', '.join(facts.kernels)}"
    else:
        return
    yield check.problem(
        "attn_implementation", stage.attn_implementation, rule, "write 'auto'", "env.flash_attn"
    )


def _optimizer(check: StageCheck) -> Iterator[Problem]:
    rule = _no_bitsandbytes(check.facts)
    if rule and check.stage.optim == "adamw_8bit":
        yield check.problem("optim", "adamw_8bit", rule, "write 'adamw_torch'", "env.missing_dep")


def _quantised(check: StageCheck) -> Iterator[Problem]:
    adapter, rule = check.stage.adapter, _no_bitsandbytes(check.facts)
    if rule and isinstance(adapter, LoraAdapter) and adapter.quantization != "none":
        fix = "write 'none' (LoRA on the whole weights)"
        yield check.problem("adapter.quantization", adapter.quantization, rule, fix, "env.missing_dep")


def _no_bitsandbytes(facts: RuleFacts) -> str | None:
    """Return why 8-bit optimizers and 4-bit weights cannot be used, or None."""
    if facts.device == "cpu":
        return "needs a GPU, and training runs on the CPU"
    if facts.bitsandbytes is False:
        return "needs the package bitsandbytes, which the environment lacks"
    return None


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
    yield from target_problems(check, adapter)


def _learnt(check: StageCheck) -> Iterator[Problem]:
    yield from learnt_problems(check.key, check.stage, check.facts.learnt)


_RULES: tuple[Rule, ...] = (
    _micro_batch,
    _batch_size,
    _length,
    *CHECKPOINT_RULES,
    *SFT_RULES,
    _kernel,
    _optimizer,
    _quantised,
    _adapter,
    *PREFERENCE_RULES,
    *ONLINE_RULES,
    *REWARD_RULES,
    _learnt,
)
