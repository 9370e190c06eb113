"""A recipe that cannot fit or cannot finish never starts; the numbers and a working fix are told."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.recipe.admission import MEMORY_MARGIN, Limits, admit, memory_ladder
from rdagent_ft.recipe.forecast import Throughput, TimeForecast, forecast_time
from rdagent_ft.recipe.memory import MemoryEstimate, estimate_memory_gib, read_model_shape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import DpoStage, FullAdapter, KtoStage, LoraAdapter, MergeStage, SftStage

SHAPE = read_model_shape(
    {
        "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "tie_word_embeddings": False,
    }
)  # fmt: skip


def memory(recipe: Recipe, place: int) -> MemoryEstimate:
    return estimate_memory_gib(recipe, SHAPE, "cuda", stage_index=place)


def gpu(memory_gib: float | None, **more: Any) -> Limits:
    return Limits(device="cuda", memory_gib=memory_gib, **more)


def test_what_fits_with_its_margin_is_admitted() -> None:
    need = memory(Recipe(), 0).total_gib
    assert admit(Recipe(), memory, None, gpu(need / (1 - MEMORY_MARGIN) + 0.1)) == []
    assert len(admit(Recipe(), memory, None, gpu(need + 0.1))) == 1
    assert admit(Recipe(), memory, None, gpu(None)) == []


def test_a_smaller_pass_comes_first_and_keeps_the_task() -> None:
    (problem,) = admit(Recipe(), memory, None, gpu(memory(Recipe(), 0).total_gib))
    assert (problem.key, problem.value, problem.problem_class) == (
        "stages.0.micro_batch",
        8,
        "resource.memory",
    )
    assert "micro_batch 4" in problem.fix
    assert "the task stays the same" in problem.fix
    assert "GiB are there" in problem.rule


def test_the_ladder_goes_down_in_order_and_names_other_tasks() -> None:
    recipe = Recipe(stages=(SftStage(adapter=FullAdapter(), learning_rate=1e-5),))
    rungs = list(memory_ladder(recipe, 0, memory, gpu(80.0, has_bitsandbytes=True)))
    last = rungs[-1]
    order = ("micro_batch 1", "gradient_checkpointing", "adamw_8bit", "LoRA", "nf4", "max_length 64")
    places = [last.words.index(word) for word in order]
    assert places == sorted(places)
    assert [rung.changes_task for rung in rungs] == sorted(rung.changes_task for rung in rungs)
    sizes = [rung.total_gib for rung in rungs]
    assert sizes == sorted(sizes, reverse=True)
    first_scope = next(rung for rung in rungs if rung.changes_task)
    assert first_scope.recipe.first_stage.adapter.kind == "lora"
    assert all(rung.recipe.first_stage.effective_batch == 16 for rung in rungs)


def test_a_named_fix_really_fits() -> None:
    recipe = Recipe(stages=(SftStage(adapter=FullAdapter()),))
    for limit in (30.0, 50.0, 70.0, 100.0):
        limits = gpu(limit, has_bitsandbytes=True)
        (problem,) = admit(recipe, memory, None, limits)
        fitting = next(
            rung
            for rung in memory_ladder(recipe, 0, memory, limits)
            if problem.fix.startswith(f"{rung.words}:")
        )
        assert ("another task" in problem.fix) == fitting.changes_task
        assert admit(fitting.recipe, memory, None, limits) == []


def test_8_bit_is_offered_only_where_it_exists_and_kto_keeps_two_rows() -> None:
    recipe = Recipe(stages=(KtoStage(adapter=LoraAdapter()),))
    for limits in (Limits(device="cpu", memory_gib=8.0, has_bitsandbytes=True), gpu(8.0)):
        last = list(memory_ladder(recipe, 0, memory, limits))[-1]
        assert "8bit" not in last.words
        assert "nf4" not in last.words
        assert "micro_batch 2" in last.words


def test_a_model_that_is_too_large_is_said_to_be() -> None:
    (problem,) = admit(Recipe(), memory, None, gpu(4.0, has_bitsandbytes=True))
    assert "choose a smaller model" in problem.fix
    assert problem.key == "stages.0.adapter"


def test_every_stage_is_judged_merges_too() -> None:
    recipe = Recipe(stages=(SftStage(), MergeStage(), DpoStage(adapter=FullAdapter())))
    keys = [problem.key for problem in admit(recipe, memory, None, gpu(40.0, host_gib=40.0))]
    assert keys == ["stages.0.micro_batch", "stages.1", "stages.2.adapter"]
    # A merge happens in the host's memory.
    assert "stages.1" not in [each.key for each in admit(recipe, memory, None, gpu(40.0, host_gib=80.0))]


def forecast(recipe: Recipe, n_rows: int = 1600) -> TimeForecast:
    speed = Throughput(stage_kind="sft", tokens_per_s=1000, flops_per_token=3.2e10)
    found = forecast_time(recipe, SHAPE, n_rows, 100, [speed])
    assert found is not None
    return found


def test_what_cannot_finish_is_refused_with_the_epochs_that_can() -> None:
    recipe = Recipe(stages=(SftStage(epochs=4, gradient_checkpointing=True),))
    seconds = forecast(recipe).total_seconds
    assert seconds is not None
    limits = gpu(None, remaining_s=seconds / 2)
    (problem,) = admit(recipe, memory, forecast(recipe), limits)
    assert (problem.key, problem.value, problem.problem_class) == ("stages.0.epochs", 4, "resource.time")
    epochs = float(problem.fix.split("at most ")[1].split(" ")[0])
    assert 1.5 < epochs < 2
    assert "gradient_checkpointing false" in problem.fix
    assert admit(recipe, memory, forecast(recipe), gpu(None, remaining_s=seconds * 1.3)) == []
    shorter = Recipe(stages=(SftStage(epochs=epochs, gradient_checkpointing=True),))
    assert admit(shorter, memory, forecast(shorter), limits) == []


def test_steps_are_named_where_steps_decide_and_unknown_time_refuses_nothing() -> None:
    recipe = Recipe(stages=(SftStage(max_steps=1000),))
    (problem,) = admit(recipe, memory, forecast(recipe), gpu(None, remaining_s=100.0))
    assert problem.key == "stages.0.max_steps"
    assert "max_steps" in problem.fix
    assert admit(recipe, memory, None, gpu(None, remaining_s=1.0)) == []
    assert admit(recipe, memory, forecast(recipe), gpu(None)) == []


@pytest.mark.parametrize("n_devices", [1, 2, 4])
def test_smaller_passes_still_divide_over_the_devices(n_devices: int) -> None:
    recipe = Recipe(stages=(SftStage(effective_batch=24, micro_batch=6),))
    for rung in memory_ladder(recipe, 0, memory, gpu(80.0, n_devices=n_devices)):
        stage = rung.recipe.first_stage
        assert stage.effective_batch % (stage.micro_batch * n_devices) == 0
