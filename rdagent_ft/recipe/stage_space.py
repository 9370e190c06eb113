"""What planners may vary in one trained stage, by its kind.

Ranges are the priors'. A centre far outside them (a tiny model at a preference stage, a person's own
recipe) gets a range of its own around it, because no prior speaks of that place.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.recipe.dimensions import Dimension, choice, floats
from rdagent_ft.recipe.rule_facts import TINY_PARAMS
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DistillStage,
    DpoStage,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    SftStage,
)
from rdagent_ft.recipe.usual_values import TINY_RATE, UsualRates, usual_rates

_WIDE_SFT = {"sft-lora-lr-grid": 2e-3, "sft-tiny-full-lr": 5e-3}
"""Rates up to which `sft` is searched; above the usual ones, because small sets sometimes want more."""

_AROUND = 3.0
_EPOCHS = {
    "dpo": (1.0, 2.0, "preference-order"),
    "kto": (1.0, 2.0, "preference-order"),
    "reward": (1.0, 2.0, "reward-lr"),
    "grpo": (1.0, 3.0, "grpo-readiness"),
    "distill": (1.0, 3.0, "distill-lr"),
}
_BATCHES = {
    "dpo": ((16, 32, 64, 128), "dpo-batch"),
    "kto": ((16, 32, 64, 128), "kto-beta"),
    "reward": ((16, 32, 64, 128), "dpo-batch"),
    "grpo": ((8, 16, 32, 64), "grpo-full-lr"),
    "distill": ((16, 32, 64, 128), "distill-lr"),
}


def stage_dimensions(index: int, stage: AnyTrainedStage, n_params: int | None) -> Iterator[Dimension]:
    """Yield the dimensions of the stage at place `index`; see `search_space` for `n_params`."""
    key = f"stages.{index}"
    rates = _rates(stage, n_params)
    yield floats(f"{key}.learning_rate", rates.low, rates.high, stage.learning_rate, rates.prior_id, log=True)
    yield _amount(key, stage, rates.prior_id == "sft-tiny-full-lr")
    yield _batch(key, stage)
    if isinstance(stage, SftStage):
        yield floats(f"{key}.warmup_ratio", 0.0, 0.15, stage.warmup_ratio, "sft-warmup")
        yield choice(f"{key}.weight_decay", (0.0, 0.01, 0.1), stage.weight_decay, "sft-weight-decay")
    yield from _adapter(key, stage)
    yield from _method(key, stage)


def _rates(stage: AnyTrainedStage, n_params: int | None) -> UsualRates:
    if n_params is None and isinstance(stage, SftStage) and stage.learning_rate >= TINY_RATE:
        n_params = TINY_PARAMS - 1 if not isinstance(stage.adapter, LoraAdapter) else None
    known = usual_rates(stage, n_params)
    rates = known or usual_rates(stage, None)
    assert rates is not None
    if isinstance(stage, SftStage):
        return rates._replace(high=_WIDE_SFT.get(rates.prior_id, rates.high))
    if known is None or not rates.low <= stage.learning_rate <= rates.high:
        return UsualRates(stage.learning_rate / _AROUND, stage.learning_rate * _AROUND, rates.prior_id)
    return rates


def _amount(key: str, stage: AnyTrainedStage, tiny: bool) -> Dimension:
    """Vary the passes, or the steps where steps decide: `epochs` is ignored then."""
    low, high, prior = _EPOCHS.get(stage.kind, (1.0, 5.0, "sft-epochs"))
    if tiny:
        low, high, prior = 1.0, 12.0, "sft-tiny-epochs"
    if stage.max_steps is None:
        return floats(f"{key}.epochs", low, high, stage.epochs, prior)
    return Dimension(
        path=f"{key}.max_steps", kind="int", log=True, low=max(1, stage.max_steps // 3),
        high=stage.max_steps * 3, centre=stage.max_steps, prior_id=prior,
    )  # fmt: skip


def _batch(key: str, stage: AnyTrainedStage) -> Dimension:
    lora = isinstance(stage.adapter, LoraAdapter)
    wanted, prior = _BATCHES.get(
        stage.kind, ((4, 8, 16, 32, 64, 128), "sft-lora-batch" if lora else "sft-full-batch")
    )
    if not isinstance(stage, GrpoStage):  # whose micro-batch the program finds
        wanted = tuple(n for n in wanted if n % stage.micro_batch == 0)
    return choice(f"{key}.effective_batch", wanted, stage.effective_batch, prior)


def _adapter(key: str, stage: AnyTrainedStage) -> Iterator[Dimension]:
    adapter = stage.adapter
    if not isinstance(adapter, LoraAdapter):
        return
    ranks: dict[str, tuple[tuple[int, ...], str]] = {
        "sft": ((8, 16, 32, 64), "lora-rank-small-data"),
        "grpo": ((8, 16, 32), "grpo-lora-rank"),
        "distill": ((16, 32, 64, 128), "distill-lr"),
    }
    if stage.kind in ranks:
        wanted, prior = ranks[stage.kind]
        yield choice(f"{key}.adapter.r", wanted, adapter.r, prior)
    yield choice(f"{key}.adapter.alpha", (16, 32, 64, 128), adapter.alpha, "lora-alpha-2r")


def _method(key: str, stage: AnyTrainedStage) -> Iterator[Dimension]:
    """Yield what only this kind of training has."""
    if isinstance(stage, (DpoStage, KtoStage)):
        prior = "dpo-beta" if isinstance(stage, DpoStage) else "kto-beta"
        yield floats(f"{key}.beta", 0.01, 0.5, stage.beta, prior, log=True)
    elif isinstance(stage, GrpoStage):
        yield choice(f"{key}.num_generations", (4, 8, 16), stage.num_generations, "grpo-generations")
        if stage.loss_type != "cispo":
            highs = tuple(high for high in (None, 0.28) if high is None or high >= stage.epsilon)
            yield choice(f"{key}.epsilon_high", highs, stage.epsilon_high, "grpo-dapo")
        yield choice(
            f"{key}.mask_truncated_completions", (False, True), stage.mask_truncated_completions, "grpo-dapo"
        )
    elif isinstance(stage, DistillStage):
        yield choice(f"{key}.beta", (0.0, 0.5, 1.0), stage.beta, "distill-lr")
