"""The usual learning rates of each kind of stage, with the prior that each rests on.

One table for warnings and for the search space, so that what planners draw is never warned about.
Tiny models are in it for `sft` only: nobody published rates for preferences or rewards at that size.
"""

from __future__ import annotations

from typing import NamedTuple

from rdagent_ft.recipe.rule_facts import TINY_PARAMS
from rdagent_ft.recipe.stages import AnyTrainedStage, LoraAdapter, SftStage

TINY_RATE = 2e-4
"""An `sft` stage that trains all weights from this rate on is meant for a tiny model."""


class UsualRates(NamedTuple):
    """Bounds of a peak learning rate, and the id of the prior behind them."""

    low: float
    high: float
    prior_id: str


_LORA = {
    "sft": UsualRates(5e-5, 1e-3, "sft-lora-lr-grid"),
    "dpo": UsualRates(5e-6, 1e-5, "dpo-lora-lr"),
    "kto": UsualRates(5e-6, 1e-5, "dpo-lora-lr"),
    "reward": UsualRates(1e-5, 1e-4, "reward-lr"),
    "grpo": UsualRates(1e-5, 8e-5, "grpo-lora-lr"),
    "distill": UsualRates(5e-5, 1e-4, "distill-lr"),
}
_FULL = {
    "sft": UsualRates(5e-6, 5e-5, "sft-full-lr"),
    "dpo": UsualRates(2e-7, 1e-6, "dpo-full-lr"),
    "kto": UsualRates(2e-7, 5e-6, "dpo-full-lr"),
    "reward": UsualRates(1e-5, 1e-4, "reward-lr"),
    "grpo": UsualRates(1e-6, 2e-6, "grpo-full-lr"),
    "distill": UsualRates(5e-5, 1e-4, "distill-lr"),
}
_TINY_SFT = UsualRates(2e-4, 3e-3, "sft-tiny-full-lr")


def usual_rates(stage: AnyTrainedStage, n_params: int | None) -> UsualRates | None:
    """Return the usual learning rates of a stage; None where nothing is known (tiny models but for `sft`).

    KTO takes those of DPO, whose trainer it shares.
    """
    lora, tiny = isinstance(stage.adapter, LoraAdapter), n_params is not None and n_params < TINY_PARAMS
    if lora and (isinstance(stage, SftStage) or not tiny):
        return _LORA[stage.kind]
    if tiny:
        return _TINY_SFT if isinstance(stage, SftStage) else None
    return _FULL[stage.kind]
