"""Memory of every stage kind, adapter and sharding, and its calibration."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.errors import UserError
from rdagent_ft.recipe.calibration import HIGH, calibrate, calibrated
from rdagent_ft.recipe.memory import MemoryEstimate, MemorySetup, estimate_memory_gib
from rdagent_ft.recipe.model_shape import ModelShape, read_model_shape, with_stored_params
from rdagent_ft.recipe.rewards import ExactReward, RewardModelReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DistillStage,
    DpoStage,
    FullAdapter,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    MergeStage,
    RewardStage,
    SftStage,
)

LLAMA_8B = read_model_shape(
    {
        "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "tie_word_embeddings": False,
        "max_position_embeddings": 8192,
    }
)  # fmt: skip
MIXTRAL: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32000, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2,
    "max_position_embeddings": 8192,
}  # fmt: skip
FULL = FullAdapter()
GIB = 1 << 30


def estimate(
    stage: AnyTrainedStage, shape: ModelShape = LLAMA_8B, device: Any = "cuda", **setup: Any
) -> MemoryEstimate:
    return estimate_memory_gib(Recipe(stages=(stage,)), shape, device, setup=MemorySetup(**setup))


def test_every_kind_has_an_estimate_whose_parts_add_up() -> None:
    stages = (
        SftStage(), DpoStage(), KtoStage(), RewardStage(), GrpoStage(rewards=(ExactReward(),)),
        DistillStage(teacher="t"),
    )  # fmt: skip
    for stage in stages:
        for device in ("cpu", "cuda"):
            found = estimate(stage, device=device)
            assert found.stage_kind == stage.kind
            assert sum(found.parts.values()) == pytest.approx(found.total_gib, abs=0.01)
            assert min(found.parts.values()) >= 0


def test_a_quantised_base_takes_about_a_quarter_and_its_head_stays_wide() -> None:
    wide, narrow = estimate(SftStage()), estimate(SftStage(adapter=LoraAdapter(quantization="nf4")))
    linear, other = LLAMA_8B.linear_params, LLAMA_8B.n_params - LLAMA_8B.linear_params
    expected = (linear * (0.5 + 0.127 / 8) + other * 2) / GIB
    assert narrow.parts["weights"] == pytest.approx(expected, rel=0.02)
    assert narrow.parts["weights"] < 0.45 * wide.parts["weights"]
    assert (wide.adapter, narrow.adapter) == ("lora", "qlora")
    assert estimate(SftStage(adapter=LoraAdapter(use_dora=True))).total_gib > wide.total_gib


def test_pairs_pass_together_and_a_full_reference_is_a_second_model() -> None:
    lora = estimate(DpoStage(adapter=LoraAdapter()))
    assert lora.parts["activations"] > 1.9 * estimate(SftStage()).parts["activations"]
    assert "other models" not in lora.parts  # the reference is the base with the adapter off
    full = estimate(DpoStage(adapter=FULL))
    assert full.parts["other models"] == pytest.approx(LLAMA_8B.n_params * 2 / GIB, rel=0.01)
    assert estimate(KtoStage(adapter=FULL)).parts["other models"] == full.parts["other models"]
    before = estimate(DpoStage(adapter=FULL, precompute_ref_log_probs=True))
    assert "other models" not in before.parts
    assert before.total_gib < full.total_gib - 14


def test_a_reward_model_has_no_logits_of_the_vocabulary() -> None:
    reward, dpo = estimate(RewardStage()), estimate(DpoStage())
    assert reward.parts["logits"] < dpo.parts["logits"]
    assert reward.parts["weights"] < dpo.parts["weights"] - 0.9  # no head of 128,256 x 4,096


def test_grpo_counts_the_cache_of_all_completions_and_its_other_models() -> None:
    base: dict[str, Any] = {"rewards": (ExactReward(),), "micro_batch": 1, "max_length": 4096}
    few = estimate(GrpoStage(**base, effective_batch=1, num_generations=2, max_completion_length=3072))
    many = estimate(GrpoStage(**base, effective_batch=16, num_generations=8, max_completion_length=3072))
    cache = 2 * 8 * 128 * 2 * 4096 * 128 * 32 / GIB  # keys and values, bytes, sequences, layers
    assert many.parts["generation"] > 0.5 * cache
    assert many.total_gib > few.total_gib + 0.5 * cache
    with_reference = GrpoStage(**base, adapter=FULL, beta=0.1)
    assert "other models" in estimate(with_reference).parts
    assert "other models" not in estimate(GrpoStage(**base, adapter=FULL)).parts
    judged = GrpoStage(**base | {"rewards": (RewardModelReward(),)})
    assert estimate(judged).parts["other models"] > 14
    vllm = estimate(GrpoStage(**base, use_vllm=True, vllm_gpu_memory_utilization=0.5), gpu_memory_gib=80.0)
    in_turn = sum(vllm.parts[name] for name in ("activations", "logits", "generation"))
    assert in_turn == pytest.approx(0.5 * 80, rel=0.06)  # vLLM sleeps while the pass runs


def test_a_teacher_is_held_whole() -> None:
    student = LLAMA_8B.model_copy(update={"n_layers": 8})
    alone = estimate(DistillStage(teacher="t"), student)
    taught = estimate(DistillStage(teacher="t"), student, teacher=LLAMA_8B)
    assert taught.parts["other models"] == pytest.approx(LLAMA_8B.n_params * 2 / GIB, rel=0.01)
    assert taught.total_gib > alone.total_gib + 8


def test_experts_are_stored_all_and_only_the_active_ones_are_passed() -> None:
    shape = read_model_shape(MIXTRAL)
    assert shape.n_params == pytest.approx(46.7e9, rel=0.01)
    assert shape.multiplied_params == pytest.approx(12.9e9, rel=0.05)
    dense = estimate(SftStage(), shape.model_copy(update={"n_experts": 2}))
    assert estimate(SftStage(), shape).parts["activations"] == dense.parts["activations"]
    assert estimate(SftStage(), shape).parts["weights"] > 3 * dense.parts["weights"]


def test_the_number_of_stored_weights_decides_when_it_is_known() -> None:
    shape = with_stored_params(LLAMA_8B, 9_000_000_000)
    assert shape.n_params == 9_000_000_000
    assert estimate(SftStage(), shape).parts["weights"] > estimate(SftStage()).parts["weights"] + 1.5


def test_sharding_divides_what_it_shards_and_ddp_nothing() -> None:
    stage = SftStage(adapter=FULL, micro_batch=1, gradient_checkpointing=True)
    alone = estimate(stage)
    ddp = estimate(stage, n_devices=8)
    assert ddp.parts["weights"] == alone.parts["weights"]
    assert ddp.parts["communication"] == pytest.approx(alone.parts["gradients"], rel=0.01)
    zero2, zero3, fsdp2 = (
        estimate(stage, n_devices=8, sharding=name) for name in ("zero2", "zero3", "fsdp2")
    )
    assert zero2.parts["weights"] == alone.parts["weights"]
    assert zero2.parts["gradients"] == pytest.approx(alone.parts["gradients"] / 8, rel=0.01)
    assert zero3.parts["weights"] == pytest.approx(alone.parts["weights"] / 8, rel=0.01)
    assert fsdp2.parts["optimizer"] == pytest.approx(LLAMA_8B.n_params * 8 / 8 / GIB, rel=0.01)
    assert zero3.total_gib < zero2.total_gib < ddp.total_gib
    assert fsdp2.total_gib < zero2.total_gib
    # Splitting over one device is no split.
    assert estimate(stage, sharding="zero3").total_gib == alone.total_gib


def test_optimizers_and_row_lengths() -> None:
    full = SftStage(adapter=FULL)
    sizes = [
        estimate(full.model_copy(update={"optim": name})).parts["optimizer"]
        for name in ("adamw_torch", "adamw_8bit", "adafactor")
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0
    short = estimate(SftStage(), longest_row_tokens=128)
    assert short.parts["activations"] < 0.2 * estimate(SftStage()).parts["activations"]
    assert estimate(SftStage(), longest_row_tokens=50_000) == estimate(SftStage())
    packed = SftStage(packing=True, attn_implementation="kernels-community/flash-attn2")
    assert estimate(packed, longest_row_tokens=128) == estimate(packed)  # packing fills rows up


def test_a_merge_holds_the_model_twice_in_float32() -> None:
    found = estimate_memory_gib(Recipe(stages=(SftStage(), MergeStage())), LLAMA_8B, "cuda", stage_index=1)
    assert found.total_gib == pytest.approx(2 * 4 * LLAMA_8B.n_params / GIB, rel=0.02)


def test_a_measured_peak_corrects_later_estimates_of_the_same_thing() -> None:
    found = estimate(SftStage())
    factor = calibrate(found, found.total_gib * 1.2, model="m")
    assert factor.factor == pytest.approx(1.2, abs=1e-3)
    longer = estimate(SftStage(max_length=2048))
    corrected = calibrated(longer, [factor], model="m")
    assert corrected.total_gib == pytest.approx(longer.total_gib * 1.2, rel=1e-3)
    assert corrected.calibration == factor.factor
    assert sum(corrected.parts.values()) == pytest.approx(corrected.total_gib, abs=0.01)
    # Another model, kind or adapter is another thing; correcting twice is no correction.
    assert calibrated(longer, [factor], model="other") == longer
    assert calibrated(estimate(DpoStage()), [factor], model="m").calibration is None
    assert calibrated(corrected, [factor], model="m") == corrected
    # A second measurement of a corrected estimate starts from the formulas again.
    assert calibrate(corrected, longer.total_gib, model="m").factor == pytest.approx(1.0, abs=1e-3)


def test_a_factor_is_bounded_and_says_so() -> None:
    found = estimate(SftStage())
    factor = calibrate(found, found.total_gib * 10, model="m")
    assert (factor.factor, factor.is_bounded) == (HIGH, True)
    assert "held within" in factor.words()
    for peak in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="not usable"):
            calibrate(found, peak, model="m")
