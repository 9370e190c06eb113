"""Seconds of training from counted arithmetic and measured speeds."""

from __future__ import annotations

import pytest

from rdagent_ft.errors import UserError
from rdagent_ft.recipe.forecast import Rows, Throughput, flops_per_token, forecast_time, measured_throughput
from rdagent_ft.recipe.model_shape import ModelShape
from rdagent_ft.recipe.rewards import ExactReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    DpoStage,
    FullAdapter,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    MergeStage,
    RewardStage,
    SftStage,
)

SHAPE = ModelShape(
    hidden_size=1024, n_layers=16, vocab_size=32_000, n_heads=16, n_kv_heads=4, head_dim=64,
    intermediate_size=4096, tied_embeddings=True,
)  # fmt: skip
FULL = FullAdapter()
GRPO = GrpoStage(rewards=(ExactReward(),), num_generations=4, max_completion_length=100, max_length=200)


def test_arithmetic_follows_the_known_rules() -> None:
    n = SHAPE.multiplied_params
    full = flops_per_token(SftStage(adapter=FULL), SHAPE, 1)
    assert full == pytest.approx(6 * n, rel=0.01)
    assert flops_per_token(SftStage(), SHAPE, 1) == pytest.approx(4 * n, rel=0.08)  # and the adapter's own
    again = flops_per_token(SftStage(adapter=FULL, gradient_checkpointing=True), SHAPE, 1)
    assert again == pytest.approx(full * 4 / 3, rel=0.01)
    assert flops_per_token(DpoStage(adapter=FULL), SHAPE, 1) == pytest.approx(8 * n, rel=0.01)
    assert flops_per_token(KtoStage(adapter=FULL), SHAPE, 1) == pytest.approx(12 * n, rel=0.01)
    assert flops_per_token(RewardStage(adapter=FULL), SHAPE, 1) < full
    assert flops_per_token(SftStage(adapter=FULL), SHAPE, 1000) > full  # attention grows with the row


def test_without_a_measurement_nothing_is_forecast() -> None:
    assert forecast_time(Recipe(), SHAPE, 1000, 100, []) is None


def test_a_training_like_the_measured_one_takes_its_time() -> None:
    stage = SftStage(epochs=2)
    speed = measured_throughput(stage, SHAPE, n_tokens=50_000, seconds=10, tokens_per_row=100)
    assert speed.tokens_per_s == 5000
    found = forecast_time(Recipe(stages=(stage,)), SHAPE, 1600, 100, [speed])
    assert found is not None
    assert found.total_seconds == pytest.approx(1600 * 2 * 100 / 5000, rel=0.01)
    assert speed.mfu(speed.flops_per_s * 4) == 0.25
    # Steps count whole batches, max_steps replaces epochs, all weights cost more than LoRA.
    steps = forecast_time(Recipe(stages=(SftStage(max_steps=10),)), SHAPE, 1600, 100, [speed])
    assert steps is not None
    assert steps.total_seconds == pytest.approx(10 * 16 * 100 / 5000, rel=0.01)
    full = forecast_time(
        Recipe(stages=(stage.model_copy(update={"adapter": FULL}),)), SHAPE, 1600, 100, [speed]
    )
    assert full is not None
    assert full.total_seconds == pytest.approx(found.total_seconds * 1.45, rel=0.06)


def test_stages_add_up_and_what_generates_needs_its_own_measurement() -> None:
    speed = measured_throughput(SftStage(), SHAPE, n_tokens=50_000, seconds=10, tokens_per_row=100)
    recipe = Recipe(stages=(SftStage(), MergeStage(), DpoStage(adapter=LoraAdapter()), GRPO))
    pairs = Rows(n_rows=100, tokens_per_row=300)
    found = forecast_time(recipe, SHAPE, 1600, 100, [speed], preferences=pairs)
    assert found is not None
    assert found.stage_seconds[1] == 0
    assert found.stage_seconds[3] is None
    assert found.total_seconds is None
    assert "unknown" in found.words
    slow = Throughput(stage_kind="grpo", tokens_per_s=100, flops_per_token=flops_per_token(GRPO, SHAPE, 200))
    known = forecast_time(recipe, SHAPE, 1600, 100, [speed, slow], preferences=pairs)
    assert known is not None
    assert known.stage_seconds[:3] == found.stage_seconds[:3]  # and generation speeds are not carried over
    assert known.stage_seconds[3] == pytest.approx(1600 * 4 * 200 / 100, rel=0.1)
    assert known.total_seconds == pytest.approx(sum(s or 0 for s in known.stage_seconds), abs=0.5)
    # A pair is two answers, both as long as their stage keeps of them.
    twice = forecast_time(recipe, SHAPE, 1600, 100, [speed], preferences=Rows(n_rows=200, tokens_per_row=300))
    assert twice is not None
    assert (twice.stage_seconds[2] or 0) == pytest.approx(2 * (found.stage_seconds[2] or 0), rel=0.15)


def test_no_time_is_no_speed() -> None:
    with pytest.raises(UserError, match="no speed"):
        measured_throughput(SftStage(), SHAPE, n_tokens=10, seconds=0, tokens_per_row=10)
