"""What is unusual in a recipe but may be right: sentences with the prior that says otherwise.

Nothing here stops a recipe; what must not start is in the `rules*.py` files.
"""

from __future__ import annotations

import re

from rdagent_ft.recipe.rewards import RegexReward
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DpoStage,
    FullAdapter,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    PreferenceStage,
)
from rdagent_ft.recipe.usual_values import usual_rates

_KTO_BALANCE = (1.0, 4 / 3)
"""Weight times count of good answers over that of bad ones (KTO, arXiv 2402.01306, section 4.2)."""


def stage_warnings(key: str, stage: AnyTrainedStage, facts: RuleFacts) -> list[str]:
    """Return the warnings of one trained stage, whose dotted path is `key`."""
    found = [*_rate(key, stage, facts), *_habits(key, stage)]
    if isinstance(stage, PreferenceStage):
        found += _preference(key, stage, facts)
    if isinstance(stage, GrpoStage):
        found += _grpo(key, stage)
    return found


def _rate(key: str, stage: AnyTrainedStage, facts: RuleFacts) -> list[str]:
    usual = usual_rates(stage, facts.n_params)
    if usual is None or usual.low <= stage.learning_rate <= usual.high:
        return []
    adapter = "LoRA" if isinstance(stage.adapter, LoraAdapter) else "full"
    return [
        f"`{key}.learning_rate` {stage.learning_rate:g} is outside {usual.low:g} to {usual.high:g}, "
        f"usual for {adapter} {stage.kind.upper()} ({usual.prior_id})"
    ]


def _habits(key: str, stage: AnyTrainedStage) -> list[str]:
    found: list[str] = []
    if stage.epochs > 10 and stage.max_steps is None and stage.kind == "sft":
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


def _preference(key: str, stage: PreferenceStage, facts: RuleFacts) -> list[str]:
    found: list[str] = []
    if stage.epochs > 3 and stage.max_steps is None:
        found.append(f"`{key}.epochs` {stage.epochs:g} is above the usual 1 to 2 (dpo-batch)")
    if isinstance(stage, DpoStage) and "robust" in stage.loss_type and stage.label_smoothing == 0:
        found.append(f"`{key}.loss_type` robust with label_smoothing 0 is the loss sigmoid (dpo-stabiliser)")
    if isinstance(stage, KtoStage) and facts.n_desirable and facts.n_undesirable:
        good = stage.desirable_weight * facts.n_desirable
        balance = good / (stage.undesirable_weight * facts.n_undesirable)
        low, high = _KTO_BALANCE
        if not low * 0.999 <= balance <= high * 1.001:
            fitting = stage.undesirable_weight * facts.n_undesirable / facts.n_desirable
            found.append(
                f"`{key}.desirable_weight` {stage.desirable_weight:g} weighs good answers {balance:.2f} "
                f"times the bad ones; {low:g} to {high:.2f} is usual, e.g. {fitting:.2g} (kto-beta)"
            )
    return found


def _grpo(key: str, stage: GrpoStage) -> list[str]:
    found: list[str] = []
    if stage.num_generations < 4:
        found.append(
            f"`{key}.num_generations` {stage.num_generations} is below the usual 8 (grpo-generations)"
        )
    if stage.temperature < 0.5:
        found.append(
            f"`{key}.temperature` {stage.temperature:g} makes samples alike: without differing rewards in a "
            "group nothing is learnt (grpo-readiness)"
        )
    if isinstance(stage.adapter, LoraAdapter) and stage.adapter.r > 32:
        found.append(f"`{key}.adapter.r` {stage.adapter.r} is above 1 to 32 (grpo-lora-rank)")
    if stage.beta > 0 and isinstance(stage.adapter, FullAdapter):
        found.append(f"`{key}.beta` {stage.beta:g} keeps a second copy of all weights (grpo-full-lr)")
    for place, reward in enumerate(stage.rewards):
        if isinstance(reward, RegexReward) and not reward.whole and _matches_nothing(reward.pattern):
            found.append(
                f"`{key}.rewards.{place}.pattern` is found in an empty completion too (grpo-readiness)"
            )
    return found


def _matches_nothing(pattern: str) -> bool:
    try:
        return re.search(pattern, "") is not None
    except (re.error, OverflowError, RecursionError):
        return False
