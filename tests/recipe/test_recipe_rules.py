"""Cross-field rules, warnings, memory estimate, default recipe and search space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import PreflightError
from rdagent_ft.knowledge.store import prior_ids
from rdagent_ft.recipe.default import DEFAULT_PRIORS, MIN_STEPS, DefaultFacts, default_recipe
from rdagent_ft.recipe.diff import apply_diff
from rdagent_ft.recipe.memory import estimate_memory_gib, read_model_shape
from rdagent_ft.recipe.rules import RuleFacts, check_recipe, optimizer_steps, recipe_warnings
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.space import in_space, search_space

QWEN_05B: dict[str, Any] = {
    "hidden_size": 896, "num_hidden_layers": 24, "vocab_size": 151936, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True,
    "max_position_embeddings": 32768, "model_type": "qwen2",
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "tie_word_embeddings": False,
}  # fmt: skip


KERNEL = {"stages.0.attn_implementation": "kernels-community/flash-attn2"}
FULL = {"stages.0.adapter": {"kind": "full"}}
SMALL_GPU = {"device": "cuda", "gpu_memory_gib": 24.0, "shape": read_model_shape(LLAMA_8B)}


@pytest.mark.parametrize(
    ("diff", "facts", "key", "problem_class"),
    [
        ({"stages.0.micro_batch": 6}, {}, "stages.0.micro_batch", "config.conflict"),
        ({}, {"n_gpus": 4}, "stages.0.micro_batch", "config.conflict"),
        ({}, {"n_train_rows": 10}, "stages.0.effective_batch", "config.conflict"),
        ({"stages.0.epochs": 0.01}, {"n_train_rows": 16}, "stages.0.epochs", "config.conflict"),
        ({}, {"max_positions": 512}, "stages.0.max_length", "config.bad_value"),
        ({"stages.0.packing": True}, {}, "stages.0.packing", "config.packing"),
        (KERNEL, {"device": "cpu"}, "stages.0.attn_implementation", "env.flash_attn"),
        (KERNEL, {"device": "cuda", "kernels": ("sdpa",)}, "stages.0.attn_implementation", "env.flash_attn"),
        ({"stages.0.optim": "adamw_8bit"}, {"device": "cpu"}, "stages.0.optim", "env.missing_dep"),
        ({"stages.0.optim": "adamw_8bit"}, {"bitsandbytes": False}, "stages.0.optim", "env.missing_dep"),
        ({"stages.0.adapter.r": 64}, {"hidden_size": 32}, "stages.0.adapter.r", "config.bad_value"),
        ({"stages.0.adapter.r": 64}, {"serve_max_lora_rank": 32}, "stages.0.adapter.r", "config.bad_value"),
        (
            {"stages.0.adapter.target_modules": ["q_proj", "lm_head"]}, {},
            "stages.0.adapter.target_modules", "config.lora_targets",
        ),
        (
            {"stages.0.adapter.target_modules": []}, {},
            "stages.0.adapter.target_modules", "config.lora_targets",
        ),
        (FULL, SMALL_GPU, "stages.0.adapter", "resource.memory"),
        ({}, SMALL_GPU, "stages.0.micro_batch", "resource.memory"),
    ],
)  # fmt: skip
def test_broken_rule_is_named(
    diff: dict[str, Any], facts: dict[str, Any], key: str, problem_class: str
) -> None:
    problems = check_recipe(apply_diff(Recipe(), diff), RuleFacts(**facts))
    assert [(problem.key, problem.problem_class) for problem in problems] == [(key, problem_class)]
    assert problems[0].fix


def test_a_sound_recipe_has_no_problem_and_no_warning() -> None:
    facts = RuleFacts(
        device="cuda", n_gpus=2, n_params=8_000_000_000, hidden_size=4096, max_positions=8192,
        n_train_rows=1000, gpu_memory_gib=96.0, shape=read_model_shape(LLAMA_8B),
        kernels=("kernels-community/flash-attn2",), bitsandbytes=True,
    )  # fmt: skip
    packed = {"stages.0.packing": True, "stages.0.attn_implementation": "kernels-community/flash-attn2"}
    recipe = apply_diff(Recipe(), packed)
    assert check_recipe(recipe, facts) == []
    assert recipe_warnings(recipe, facts) == []


def test_a_rate_outside_the_priors_is_a_warning_that_cites_one() -> None:
    recipe = apply_diff(Recipe(), {"stages.0.learning_rate": 1e6})
    assert check_recipe(recipe, RuleFacts()) == []
    (warning,) = recipe_warnings(recipe, RuleFacts())
    assert "sft-lora-lr-grid" in warning
    assert "sft-lora-lr-grid" in prior_ids()
    tiny = apply_diff(Recipe(), {"stages.0.adapter": {"kind": "full"}, "stages.0.learning_rate": 1e-3})
    assert recipe_warnings(tiny, RuleFacts(n_params=2_000_000)) == []
    assert len(recipe_warnings(tiny, RuleFacts(n_params=2_000_000_000))) == 1


def test_parameter_counts_match_published_models() -> None:
    assert read_model_shape(QWEN_05B).n_params == pytest.approx(494e6, rel=0.01)
    assert read_model_shape(LLAMA_8B).n_params == pytest.approx(8.03e9, rel=0.01)


def test_memory_grows_with_what_should_cost_memory() -> None:
    shape = read_model_shape(LLAMA_8B)

    def total(**diff: Any) -> float:
        return estimate_memory_gib(apply_diff(Recipe(), diff), shape, "cuda").total_gib

    lora, full = total(), total(**{"stages.0.adapter": {"kind": "full"}})
    assert 16 < lora < 80 < full + 20
    assert full > lora + 30
    assert total(**{"stages.0.micro_batch": 16, "stages.0.effective_batch": 16}) > lora
    assert total(**{"stages.0.max_length": 4096}) > lora
    assert total(**{"stages.0.gradient_checkpointing": True}) < lora
    assert total(**{"stages.0.adapter.r": 256}) > lora
    eight_bit = total(**{"stages.0.adapter": {"kind": "full"}, "stages.0.optim": "adamw_8bit"})
    assert eight_bit < full
    grouped = read_model_shape({**LLAMA_8B, "num_key_value_heads": 32})
    assert estimate_memory_gib(Recipe(), grouped, "cuda").total_gib > lora


def test_parts_add_up_and_cpu_holds_float32() -> None:
    shape = read_model_shape(QWEN_05B)
    on_cpu = estimate_memory_gib(Recipe(), shape, "cpu")
    assert sum(on_cpu.parts.values()) == pytest.approx(on_cpu.total_gib, abs=0.01)
    on_gpu = estimate_memory_gib(Recipe(), shape, "cuda")
    ratio = on_cpu.parts["weights"] / on_gpu.parts["weights"]
    assert ratio == pytest.approx(2, rel=0.05)
    assert "GiB" in on_cpu.words()


def test_model_shape_from_a_folder_and_of_other_families(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_05B), encoding="utf-8")
    assert read_model_shape(tmp_path) == read_model_shape(QWEN_05B)
    gpt2 = read_model_shape(
        {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
    )
    assert (gpt2.head_dim, gpt2.n_kv_heads, gpt2.max_positions) == (64, 12, 1024)
    assert read_model_shape({"text_config": QWEN_05B}).hidden_size == 896
    with pytest.raises(PreflightError, match="hidden_size"):
        read_model_shape({"vocab_size": 3})
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(PreflightError):
        read_model_shape(tmp_path)


FACTS = st.builds(
    DefaultFacts,
    n_params=st.sampled_from([200_000, 1_600_000, 500_000_000, 8_000_000_000, 70_000_000_000]),
    n_train_rows=st.integers(1, 200_000),
    token_percentiles=st.fixed_dictionaries(
        {"p90": st.integers(100, 300), "max": st.just(9000), "p99": st.integers(300, 3000)}
    ),
    max_positions=st.sampled_from([128, 512, 2048, 32768]),
    device=st.sampled_from(["cpu", "cuda"]),
    hidden_size=st.sampled_from([8, 64, 2048]),
)  # fmt: skip


@given(FACTS)
def test_the_default_breaks_no_rule_and_its_space_gives_valid_recipes(facts: DefaultFacts) -> None:
    recipe = default_recipe(facts)
    rules = RuleFacts(
        device=facts.device, n_params=facts.n_params, hidden_size=facts.hidden_size,
        max_positions=facts.max_positions, n_train_rows=facts.n_train_rows,
    )  # fmt: skip
    assert check_recipe(recipe, rules) == []
    assert recipe_warnings(recipe, rules) == [] or facts.n_params < 50_000_000
    stage = recipe.stages[0]
    if facts.n_train_rows >= 400:
        assert optimizer_steps(stage, facts.n_train_rows) >= MIN_STEPS
    assert stage.max_length % 16 == 0 or stage.max_length == facts.max_positions
    space = search_space(
        recipe,
        device=facts.device,
        sources={"a": 50, "b": 30, "c": 5},
        token_percentiles=facts.token_percentiles,
        max_positions=facts.max_positions,
    )
    assert len({dimension.path for dimension in space}) == len(space)
    for dimension in space:
        assert in_space(dimension, dimension.centre)
        assert dimension.prior_id in prior_ids()
        values = dimension.choices or (dimension.low, dimension.high)
        for value in values:
            child = apply_diff(recipe, {dimension.path: value})
            if facts.n_train_rows >= 200:
                wrong = [p for p in check_recipe(child, rules) if p.key != "stages.0.adapter.r"]
                assert wrong == []


def test_the_default_trains_lora_for_real_models_and_all_weights_of_tiny_ones() -> None:
    base: dict[str, Any] = {
        "n_train_rows": 5000,
        "token_percentiles": {"p99": 100},
        "max_positions": 2048,
        "device": "cpu",
        "hidden_size": 128,
    }
    assert default_recipe(DefaultFacts(n_params=1_600_000, **base)).stages[0].adapter.kind == "full"
    assert default_recipe(DefaultFacts(n_params=600_000_000, **base)).stages[0].adapter.kind == "lora"
    assert default_recipe(DefaultFacts(n_params=600_000_000, **base)).stages[0].max_length == 112


def test_the_space_offers_sources_and_keeps_most_rows() -> None:
    space = {
        d.path: d
        for d in search_space(
            Recipe(),
            device="cpu",
            sources={"big": 90, "noisy": 10},
            token_percentiles={"p90": 50, "p99": 100, "max": 500},
        )
    }
    assert space["data.exclude_sources"].choices == ([], ["noisy"])
    assert space["data.max_row_tokens"].choices == (None, 100)
    assert "stages.0.neftune_noise_alpha" not in space
    assert not in_space(space["stages.0.learning_rate"], 1.0)
    child = apply_diff(Recipe(), {"data.exclude_sources": ["noisy"]})
    again = {
        d.path: d
        for d in search_space(
            child, device="cpu", sources={"big": 80, "noisy": 10, "odd": 10}, token_percentiles={}
        )
    }
    assert ["noisy", "odd"] in again["data.exclude_sources"].choices
    assert again["data.exclude_sources"].centre == ["noisy"]


def test_default_priors_resolve() -> None:
    assert set(DEFAULT_PRIORS) <= prior_ids()


@given(st.integers(1, 1000), st.integers(1, 100))
@settings(max_examples=30)
def test_optimizer_steps_count_the_last_partial_batch(n_rows: int, batch: int) -> None:
    stage = apply_diff(
        Recipe(), {"stages.0.effective_batch": batch, "stages.0.micro_batch": batch, "stages.0.epochs": 1}
    ).stages[0]
    assert optimizer_steps(stage, n_rows) == len(range(0, n_rows, batch))
