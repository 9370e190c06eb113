"""What of a recipe LLaMA-Factory can say, and what it cannot: refused before anything is rendered.

A field without a counterpart is a problem, never left out: the same recipe must train the same thing
with either trainer. Rules that hold for every trainer are in `recipe/rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DpoStage,
    KtoStage,
    LoraAdapter,
    MergeStage,
    RewardStage,
    SftStage,
)

DPO_LOSSES = ("sigmoid", "hinge", "ipo")
FLASH_ATTN = {"auto": "sdpa", "sdpa": "sdpa", "eager": "disabled"}
"""Attention kernels by the word that the trainer has for them."""
_SWITCH = "train this recipe with `trl`"


def fit_problems(recipe: Recipe) -> list[Problem]:
    """Return what of a recipe this trainer cannot do; an empty list means that all of it fits."""
    problems: list[Problem] = []
    for place, stage in enumerate(recipe.stages):
        problems += stage_problems(stage, f"stages.{place}")
    return problems


def stage_problems(stage: AnyTrainedStage | MergeStage, key: str) -> list[Problem]:
    """Return what of one stage this trainer cannot do; `key` is the stage's place, as `stages.0`."""
    if isinstance(stage, MergeStage):
        return []
    if not isinstance(stage, (SftStage, DpoStage, KtoStage, RewardStage)):
        rule = "is a stage that LLaMA-Factory does not have"
        return [Problem(f"{key}.kind", stage.kind, rule, "config.trainer", _SWITCH)]
    found = list(_shared(stage, key))
    if isinstance(stage, DpoStage):
        found += _dpo(stage, key)
    if isinstance(stage, RewardStage) and stage.center_rewards_coefficient is not None:
        rule = "has no counterpart: LLaMA-Factory does not centre rewards"
        value = stage.center_rewards_coefficient
        fix = f"write null, or {_SWITCH}"
        found.append(Problem(f"{key}.center_rewards_coefficient", value, rule, "config.trainer", fix))
    return found


def sft_share(stage: DpoStage) -> float:
    """Return the weight of the SFT loss beside the preference loss of weight 1 (`pref_ftx`)."""
    if "sft" not in stage.loss_type:
        return 0.0
    weights = stage.loss_weights or (1.0,) * len(stage.loss_type)
    return weights[stage.loss_type.index("sft")]


def _shared(stage: AnyTrainedStage, key: str) -> Iterator[Problem]:
    if stage.eval_share > 0 or stage.keep != "last":
        rule = "has no counterpart: held-out rows are measured by TRL jobs only"
        fix = f"write 0 and `keep: last`, or {_SWITCH}"
        yield Problem(f"{key}.eval_share", stage.eval_share, rule, "config.trainer", fix)
    if stage.attn_implementation not in FLASH_ATTN:
        rule = (
            "is a kernel from the Hub; LLaMA-Factory takes only the package flash-attn, which it lacks here"
        )
        fix = "write 'auto'"
        yield Problem(f"{key}.attn_implementation", stage.attn_implementation, rule, "config.trainer", fix)
    lacks = "needs the package bitsandbytes, which LLaMA-Factory's environment lacks"
    if isinstance(stage.adapter, LoraAdapter) and stage.adapter.quantization != "none":
        value = stage.adapter.quantization
        yield Problem(
            f"{key}.adapter.quantization", value, lacks, "env.missing_dep", f"write 'none', or {_SWITCH}"
        )
    if stage.optim == "adamw_8bit":
        yield Problem(f"{key}.optim", stage.optim, lacks, "env.missing_dep", "write 'adamw_torch'")


def _dpo(stage: DpoStage, key: str) -> Iterator[Problem]:
    main = [word for word in stage.loss_type if word != "sft"]
    if len(main) != 1 or len(stage.loss_type) > 2 or main[0] not in DPO_LOSSES:
        rule = f"has no counterpart: LLaMA-Factory takes one of {', '.join(DPO_LOSSES)}, alone or with sft"
        value = list(stage.loss_type)
        yield Problem(f"{key}.loss_type", value, rule, "config.trainer", f"write ['sigmoid'], or {_SWITCH}")
    elif stage.loss_weights is not None:
        weights = dict(zip(stage.loss_type, stage.loss_weights, strict=False))
        if weights.get(main[0]) != 1.0:
            rule = f"must give {main[0]} the weight 1: LLaMA-Factory weighs only the sft loss"
            fix = "divide all weights, and learn with the rate times the divisor"
            yield Problem(f"{key}.loss_weights", list(stage.loss_weights), rule, "config.trainer", fix)
    if stage.label_smoothing and main != ["sigmoid"]:
        rule = "is known for the sigmoid loss only"
        fix = "write 0, or loss_type ['sigmoid']"
        yield Problem(f"{key}.label_smoothing", stage.label_smoothing, rule, "config.trainer", fix)
    if stage.precompute_ref_log_probs:
        rule = "has no counterpart: LLaMA-Factory scores the reference in every step"
        yield Problem(f"{key}.precompute_ref_log_probs", True, rule, "config.trainer", "write false")
