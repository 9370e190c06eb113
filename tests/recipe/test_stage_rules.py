"""Cross-field rules and warnings of each kind of stage, with and without facts."""

from __future__ import annotations

from typing import Any

import pytest

from rdagent_ft.knowledge.store import prior_ids
from rdagent_ft.recipe.batches import device_batch
from rdagent_ft.recipe.learnt import LearntRule
from rdagent_ft.recipe.parse import load_recipe
from rdagent_ft.recipe.rules import RuleFacts, check_recipe, optimizer_steps, recipe_warnings
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import GrpoStage, TrainedStage

EXACT = {"rewards": [{"kind": "exact"}]}
NF4 = {"adapter": {"kind": "lora", "quantization": "nf4"}}


def recipe(kind: str, **fields: Any) -> Recipe:
    needed = {"grpo": EXACT, "distill": {"teacher": "teacher-8b"}}.get(kind, {})
    after = [{"kind": "grpo", "rewards": [{"kind": "reward_model"}]}] if kind == "reward" else []
    return load_recipe({"stages": [{"kind": kind, **needed, **fields}, *after]})


def found(broken: Recipe, **facts: Any) -> list[tuple[str, str]]:
    return [(problem.problem_class, problem.key) for problem in check_recipe(broken, RuleFacts(**facts))]


@pytest.mark.parametrize(
    ("kind", "fields", "facts", "expected"),
    [
        ("sft", {"train_on": "assistant_turns"}, {"has_training_template": False},
         "data.template_mask train_on"),
        ("sft", NF4, {"device": "cpu"}, "env.missing_dep adapter.quantization"),
        ("sft", NF4, {"bitsandbytes": False}, "env.missing_dep adapter.quantization"),
        ("sft", {"adapter": {"kind": "lora", "target_modules": ["c_attn"]}}, {"linear_names": ("q_proj",)},
         "config.lora_targets adapter.target_modules"),
        ("dpo", {}, {"has_preferences": False}, "data.preferences pairs"),
        ("kto", {}, {"has_preferences": False}, "data.preferences pairs"),
        ("dpo", {"pairs": "sampled"}, {"has_scorer": False, "has_preferences": True},
         "data.preferences pairs"),
        ("dpo", {}, {"n_preferences": 10}, "config.conflict effective_batch"),
        ("kto", {"micro_batch": 1}, {}, "config.conflict micro_batch"),
        ("dpo", {"micro_batch": 8}, {"n_gpus": 4}, "config.conflict micro_batch"),
        ("grpo", {"use_vllm": True}, {"device": "cpu"}, "env.missing_dep use_vllm"),
        ("grpo", {"use_vllm": True}, {"device": "cuda", "vllm": False}, "env.missing_dep use_vllm"),
        ("grpo", {"rewards": [{"kind": "code"}]}, {"can_contain": False},
         "config.needs_container rewards.0.kind"),
        ("grpo", {"rewards": [{"kind": "python", "function": "a.b"}]}, {"can_contain": False},
         "config.needs_container rewards.0.kind"),
        ("grpo", {"rewards": [{"kind": "code"}]}, {"has_tests": False}, "data.columns rewards.0.kind"),
        ("grpo", {"rewards": [{"kind": "math"}]}, {"math_verify": False}, "env.missing_dep rewards.0.kind"),
        ("grpo", {"effective_batch": 5, "num_generations": 3}, {"n_gpus": 2},
         "config.conflict effective_batch"),
        ("grpo", {}, {"n_train_rows": 10}, "config.conflict effective_batch"),
        ("grpo", {"epochs": 0.4}, {"n_train_rows": 31}, "config.conflict epochs"),
        ("distill", {}, {"vocab_size": 100, "teacher_vocab_sizes": {"teacher-8b": 101}},
         "distill.vocabulary teacher"),
        ("distill", {}, {"teacher_vocab_sizes": {"teacher-8b": None}}, "distill.teacher teacher"),
        ("distill", {"max_completion_length": 2048}, {}, "config.conflict max_completion_length"),
    ],
)  # fmt: skip
def test_a_rule_of_one_kind_names_class_and_key(
    kind: str, fields: dict[str, Any], facts: dict[str, Any], expected: str
) -> None:
    problem_class, key = expected.split(" ")
    assert found(recipe(kind, **fields), **facts) == [(problem_class, f"stages.0.{key}")]


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "reward", "grpo", "distill"])
def test_the_defaults_of_a_kind_break_no_rule_and_raise_no_warning(kind: str) -> None:
    facts = RuleFacts(
        device="cuda", n_params=8_000_000_000, vocab_size=100, teacher_vocab_sizes={"teacher-8b": 100},
        has_preferences=True, n_preferences=500, has_scorer=True, n_train_rows=500, bitsandbytes=True,
        has_training_template=True, vllm=True, math_verify=True, can_contain=True,
    )  # fmt: skip
    sound = recipe(kind)
    assert check_recipe(sound, facts) == []
    assert recipe_warnings(sound, facts) == []


def test_a_teacher_that_nobody_looked_up_is_not_judged() -> None:
    assert found(recipe("distill"), vocab_size=100, teacher_vocab_sizes={"other": 5}) == []


def test_rows_of_sampled_pairs_are_not_known_before() -> None:
    assert found(recipe("dpo", pairs="sampled"), n_preferences=1, n_train_rows=1) == []


def test_a_mistake_in_a_later_stage_has_its_place() -> None:
    several = load_recipe(
        {"stages": [{"kind": "sft"}, {"kind": "merge"}, {"kind": "dpo", "optim": "adamw_8bit"}]}
    )
    assert found(several, device="cpu") == [("env.missing_dep", "stages.2.optim")]


def test_what_failed_twice_in_this_run_is_refused() -> None:
    rule = LearntRule(
        failure_class="resource.gpu_oom", kind="dpo", adapter="lora", gradient_checkpointing=False,
        quantity="tokens_per_pass", limit=4096, n_seen=2,
    )  # fmt: skip
    assert found(recipe("dpo"), learnt=(rule,)) == [("resource.gpu_oom", "stages.0.micro_batch")]
    assert found(recipe("dpo", micro_batch=2), learnt=(rule,)) == []
    assert found(recipe("sft"), learnt=(rule,)) == []


@pytest.mark.parametrize(
    ("kind", "fields", "facts", "prior"),
    [
        ("dpo", {"learning_rate": 2e-4}, {}, "dpo-lora-lr"),
        ("dpo", {"learning_rate": 1e-5, "adapter": {"kind": "full"}}, {}, "dpo-full-lr"),
        ("kto", {"learning_rate": 1e-3}, {}, "dpo-lora-lr"),
        ("kto", {}, {"n_desirable": 100, "n_undesirable": 900}, "kto-beta"),
        ("reward", {"learning_rate": 1e-2}, {}, "reward-lr"),
        ("grpo", {"learning_rate": 1e-3}, {}, "grpo-lora-lr"),
        ("grpo", {"learning_rate": 1e-4, "adapter": {"kind": "full"}}, {}, "grpo-full-lr"),
        ("grpo", {"num_generations": 2}, {}, "grpo-generations"),
        ("grpo", {"temperature": 0.1}, {}, "grpo-readiness"),
        ("grpo", {"rewards": [{"kind": "regex", "pattern": "a*"}]}, {}, "grpo-readiness"),
        ("grpo", {"adapter": {"kind": "lora", "r": 64}}, {}, "grpo-lora-rank"),
        ("distill", {"learning_rate": 1e-2}, {}, "distill-lr"),
        ("dpo", {"loss_type": ["robust"]}, {}, "dpo-stabiliser"),
    ],
)
def test_what_is_unusual_is_a_warning_with_a_prior_that_exists(
    kind: str, fields: dict[str, Any], facts: dict[str, Any], prior: str
) -> None:
    unusual = recipe(kind, **fields)
    (warning,) = recipe_warnings(unusual, RuleFacts(**facts))
    assert warning.endswith(f"({prior})")
    assert warning.startswith("`stages.0.")
    assert prior in prior_ids()
    assert check_recipe(unusual, RuleFacts()) == []


def test_good_and_bad_answers_in_balance_raise_no_warning() -> None:
    balanced = recipe("kto", desirable_weight=9.0)
    assert recipe_warnings(balanced, RuleFacts(n_desirable=100, n_undesirable=900)) == []


def test_no_rate_is_unusual_for_preferences_of_a_tiny_model() -> None:
    tiny = recipe("dpo", learning_rate=1e-3, adapter={"kind": "full"})
    assert recipe_warnings(tiny, RuleFacts(n_params=2_000_000)) == []


@pytest.mark.parametrize(
    ("batch", "generations", "micro", "n_devices"), [(5, 6, 8, 1), (5, 6, 8, 2), (7, 3, 5, 1)]
)
def test_every_group_size_that_the_rules_pass_can_be_split(
    batch: int, generations: int, micro: int, n_devices: int
) -> None:
    grpo = recipe("grpo", effective_batch=batch, num_generations=generations, micro_batch=micro)
    assert found(grpo, n_gpus=n_devices) == []
    (stage,) = grpo.stages
    assert isinstance(stage, TrainedStage)
    split = device_batch(stage, n_devices)
    assert split.micro * split.accumulation * n_devices == batch * generations
    assert split.micro <= micro


def test_an_incomplete_batch_of_prompts_is_no_step_of_grpo() -> None:
    (stage,) = recipe("grpo", effective_batch=16, epochs=2).stages
    assert isinstance(stage, GrpoStage)
    assert [optimizer_steps(stage, rows) for rows in (15, 16, 31, 32)] == [0, 2, 2, 4]
    (pairs,) = recipe("dpo", effective_batch=16, epochs=2).stages
    assert isinstance(pairs, TrainedStage)
    assert optimizer_steps(pairs, 17) == 4
