"""Fixes after a failed training: which keep the task, which change it and say so, and when they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.recipe.learnt import failed_try, learn, learnt_problems
from rdagent_ft.recipe.rewards import ExactReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, GrpoStage, KtoStage, LoraAdapter, MergeStage, SftStage
from rdagent_ft.training.repair import RepairFacts, changed_task, neutral_fix

CPU = RepairFacts(device="cpu")
GPU = RepairFacts(device="cuda", has_bitsandbytes=True)


@given(st.integers(1, 64), st.integers(1, 64))
def test_the_ladder_keeps_the_effective_batch_and_ends(micro: int, times: int) -> None:
    stage = SftStage(micro_batch=micro, effective_batch=micro * times)
    words: list[str] = []
    while (fix := neutral_fix(stage, "resource.gpu_oom", GPU)) is not None:
        assert fix.stage.effective_batch == stage.effective_batch
        assert fix.stage.effective_batch % fix.stage.micro_batch == 0
        assert (fix.stage.learning_rate, fix.stage.max_length) == (stage.learning_rate, stage.max_length)
        assert isinstance(fix.stage, SftStage)
        stage = fix.stage
        words.append(fix.words)
    assert (stage.micro_batch, stage.gradient_checkpointing, stage.optim) == (1, True, "adamw_8bit")
    assert len(words) == len(set(words)) <= 9


def test_an_8_bit_optimizer_is_no_fix_without_a_gpu() -> None:
    stage = SftStage(micro_batch=1, gradient_checkpointing=True)
    assert neutral_fix(stage, "resource.host_oom", CPU) is None


def test_kto_keeps_two_rows_a_pass() -> None:
    fix = neutral_fix(KtoStage(micro_batch=2, effective_batch=8), "resource.gpu_oom", CPU)
    assert fix is not None
    assert fix.stage.micro_batch == 2
    assert fix.stage.gradient_checkpointing


def test_other_failures_have_no_neutral_fix() -> None:
    assert neutral_fix(SftStage(), "train.diverged", GPU) is None


def test_divergence_lowers_the_rate_then_warms_up_then_gives_up() -> None:
    recipe = Recipe(stages=(SftStage(learning_rate=1.0),))
    first = changed_task(recipe, 0, "train.diverged")
    assert first is not None
    assert first.recipe.first_stage.learning_rate == pytest.approx(0.1)
    second = changed_task(first.recipe, 0, "train.diverged", n_before=1)
    assert second is not None
    assert second.recipe.first_stage.warmup_ratio == 0.1
    assert second.recipe.first_stage.learning_rate == pytest.approx(0.1 / 3)
    assert changed_task(second.recipe, 0, "train.diverged", n_before=2) is None


def test_memory_that_no_neutral_fix_finds_becomes_lora_and_then_shorter_rows() -> None:
    recipe = Recipe(stages=(SftStage(adapter=FullAdapter(), learning_rate=1e-5, max_length=512),))
    lora = changed_task(recipe, 0, "resource.gpu_oom")
    assert lora is not None
    assert isinstance(lora.recipe.first_stage.adapter, LoraAdapter)
    assert "LoRA" in lora.reason
    shorter = changed_task(lora.recipe, 0, "resource.gpu_oom", n_before=1)
    assert shorter is not None
    assert shorter.recipe.first_stage.max_length == 256
    assert "256" in shorter.reason


def test_the_failing_stage_is_changed_and_no_other() -> None:
    grpo = GrpoStage(rewards=(ExactReward(),), max_completion_length=64, max_length=512)
    recipe = Recipe(stages=(SftStage(), MergeStage(), grpo))
    change = changed_task(recipe, 2, "train.truncated")
    assert change is not None
    assert change.recipe.stages[:2] == recipe.stages[:2]
    changed = change.recipe.stages[2]
    assert isinstance(changed, GrpoStage)
    assert changed.max_completion_length == 128


def test_unknown_failures_are_left_to_others() -> None:
    assert changed_task(Recipe(), 0, "env.engine") is None


def test_what_failed_twice_alike_is_refused_and_what_is_smaller_is_not() -> None:
    failing = SftStage(micro_batch=8, max_length=1024)
    once = learn([failed_try(failing, "resource.gpu_oom")])
    assert once == ()
    larger = SftStage(micro_batch=16, max_length=1024)
    rules = learn([failed_try(larger, "resource.gpu_oom"), failed_try(failing, "resource.gpu_oom")])
    (problem,) = learnt_problems("stages.0", failing, rules)
    assert (problem.key, problem.problem_class) == ("stages.0.micro_batch", "resource.gpu_oom")
    assert learnt_problems("stages.0", SftStage(micro_batch=4, max_length=1024), rules) == []
    full = SftStage(adapter=FullAdapter(), micro_batch=16, max_length=1024)
    assert learnt_problems("stages.0", full, rules) == [], "another adapter learns for itself"


def test_environment_faults_teach_nothing() -> None:
    assert learn([failed_try(SftStage(), "env.engine")] * 5) == ()
