"""V1's last rule with what a run measured: corrected memory, shared-out memory, and the time that is left."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.errors import PreflightError, TimeIsUpError
from rdagent_ft.planning.port import PlanContext
from rdagent_ft.planning.sample import first_new_proposal, space_of
from rdagent_ft.recipe.admission import MEASURED_MARGIN, MEMORY_MARGIN, lacks_only_time
from rdagent_ft.recipe.calibration import CalibrationFactor
from rdagent_ft.recipe.forecast import Throughput
from rdagent_ft.recipe.memory import read_model_shape
from rdagent_ft.recipe.resources import neutrally_fitting, recipe_time, resource_problems, stage_memory
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import DataMix, Recipe
from rdagent_ft.recipe.stages import DpoStage, FullAdapter, SftStage

SHAPE = read_model_shape(
    {
        "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "tie_word_embeddings": False,
    }
)  # fmt: skip
SPEED = Throughput(stage_kind="sft", tokens_per_s=1000, flops_per_token=3.2e10)


def facts(**more: Any) -> RuleFacts:
    known = {"device": "cuda", "shape": SHAPE, "model": "llama", "memory_gib": 500.0}
    return RuleFacts(**(known | more))


def timed(**more: Any) -> RuleFacts:
    return facts(speeds=(SPEED,), n_train_rows=1600, tokens_per_row=100.0, **more)


def factor(ratio: float, **more: Any) -> CalibrationFactor:
    known = {"model": "llama", "stage_kind": "sft", "adapter": "lora", "estimate_gib": 10.0}
    return CalibrationFactor(**(known | {"factor": ratio, "measured_gib": 10 * ratio} | more))


def gib(known: RuleFacts, recipe: Recipe | None = None) -> float:
    estimate = stage_memory(recipe or Recipe(), 0, known)
    assert estimate is not None
    return estimate.total_gib


def test_a_measured_peak_corrects_the_forecast_and_needs_less_margin() -> None:
    plain = gib(facts())
    known = facts(memory_factors=(factor(0.8), factor(1.2)))
    assert gib(known) == pytest.approx(1.2 * plain, rel=1e-3), "the newest factor counts"
    assert gib(facts(memory_factors=(factor(1.2, model="other"), factor(1.2, adapter="full")))) == plain
    limit = 1.2 * plain / (1 - MEASURED_MARGIN) + 0.01
    assert resource_problems(Recipe(), known.model_copy(update={"gpu_memory_gib": limit})) == []
    (problem,) = resource_problems(Recipe(), known.model_copy(update={"gpu_memory_gib": 1.2 * plain}))
    assert problem.problem_class == "resource.memory"
    assert f"{MEASURED_MARGIN:.0%} are kept free" in problem.rule
    (unmeasured,) = resource_problems(Recipe(), facts(gpu_memory_gib=plain))
    assert f"{MEMORY_MARGIN:.0%} are kept free" in unmeasured.rule


def test_what_the_gpus_share_out_is_not_counted_on_each() -> None:
    full = Recipe(stages=(SftStage(adapter=FullAdapter()),))
    sizes = [gib(facts(n_gpus=4, sharding=profile), full) for profile in ("ddp", "zero2", "zero3")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.4 * sizes[2]


def test_a_recipe_is_made_to_fit_by_what_keeps_its_task_only() -> None:
    need = gib(facts())
    tight = facts(gpu_memory_gib=need)
    fits = neutrally_fitting(Recipe(), tight)
    assert resource_problems(fits, tight) == []
    before, after = Recipe().first_stage, fits.first_stage
    assert after.micro_batch < before.micro_batch
    assert after.effective_batch == before.effective_batch
    assert neutrally_fitting(Recipe(), facts(gpu_memory_gib=2 * need)) == Recipe()
    assert neutrally_fitting(Recipe(), facts(gpu_memory_gib=4.0)) == Recipe(), "only another task would fit"
    assert neutrally_fitting(Recipe(), facts()) == Recipe()


def test_time_is_judged_once_something_was_measured() -> None:
    time = recipe_time(Recipe(), timed())
    assert time is not None
    assert time.total_seconds is not None
    needed = time.total_seconds
    assert recipe_time(Recipe(), facts(n_train_rows=1600, tokens_per_row=100.0)) is None
    assert recipe_time(Recipe(), facts(speeds=(SPEED,))) is None
    half = recipe_time(Recipe(data=DataMix(max_items=800)), timed())
    assert half is not None
    assert half.total_seconds == pytest.approx(needed / 2, rel=0.01)
    short = check_recipe(Recipe(), timed(remaining_s=needed))
    assert lacks_only_time(short)
    assert f"{needed:,.0f} s remain" in short[0].rule
    assert check_recipe(Recipe(), timed(remaining_s=2 * needed)) == []
    (limited,) = check_recipe(Recipe(), timed(stage_limit_s=needed / 2))
    assert "of one training" in limited.rule
    assert not lacks_only_time([])


def test_given_pairs_are_counted_and_sampled_ones_are_at_most_one_a_prompt() -> None:
    given = Recipe(stages=(DpoStage(pairs="given"),))
    few = recipe_time(given, timed(n_preferences=100))
    many = recipe_time(given, timed(n_preferences=1000))
    assert few is not None
    assert many is not None
    assert many.total_seconds == pytest.approx(10 * (few.total_seconds or 0), rel=0.15)
    sampled = Recipe(stages=(DpoStage(pairs="sampled"),))
    found = recipe_time(sampled, timed(n_preferences=100))
    assert found == recipe_time(sampled, timed())


def test_a_planner_that_lacks_only_time_says_so() -> None:
    needed = (recipe_time(Recipe(), timed()) or pytest.fail("no forecast")).total_seconds or 0.0

    def ask(remaining_s: float | None) -> None:
        context = PlanContext(
            loop=1, seed=0, default_recipe=Recipe(), parent=None, trials=(), device="cuda",
            rule_facts=timed(remaining_s=remaining_s),
        )  # fmt: skip
        longer = {"stages.0.epochs": Recipe().first_stage.epochs * 2}
        proposal = first_new_proposal(context, space_of(context), lambda _: longer, "tpe")
        assert proposal.diff == longer

    ask(None)
    ask(4 * needed)
    with pytest.raises(TimeIsUpError, match="in the time left"):
        ask(needed)
    tried = PlanContext(loop=1, seed=0, default_recipe=Recipe(), parent=None, trials=(), device="cuda")
    with pytest.raises(PreflightError, match="no new valid recipe"):
        first_new_proposal(tried, space_of(tried), lambda _: {"stages.0.micro_batch": 0}, "tpe")
