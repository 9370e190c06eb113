"""Rendering: golden files, only catalogue keys, same effective batch, YAML that reads back, refusals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import PreflightError
from rdagent_ft.knowledge.store import prior_ids
from rdagent_ft.recipe.batches import device_batch
from rdagent_ft.recipe.catalogue import load_catalogue, trl_method
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage, yaml_scalar
from rdagent_ft.recipe.rewards import ExactReward
from rdagent_ft.recipe.rules import optimizer_steps
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    DistillStage,
    DpoStage,
    GrpoStage,
    KtoStage,
    RewardStage,
    SftStage,
)
from rdagent_ft.recipe.validate import validate_text
from rdagent_ft.shipped import shipped_folder

GOLDEN = Path(__file__).parent.parent / "golden"
PATHS = StagePaths(
    model=Path("models/base"),
    train_file=Path("data/train.jsonl"),
    output_dir=Path("output"),
    teacher=Path("models/teacher"),
)
CPU = RenderFacts(device="cpu", n_train_rows=3000)
CUDA = RenderFacts(device="cuda", n_train_rows=100_000)
FULL = {"kind": "full"}
QLORA = {"kind": "lora", "quantization": "nf4"}
EXACT = [{"kind": "exact"}]
CASES: dict[str, tuple[dict[str, Any], RenderFacts]] = {
    "sft-default-cpu.yaml": ({"kind": "sft"}, CPU),
    "sft-full-cpu.yaml": (
        {"kind": "sft", "adapter": FULL, "learning_rate": 1e-3, "max_steps": 50},
        RenderFacts(device="cpu", n_train_rows=500),
    ),
    "sft-best-cpu.yaml": ({"kind": "sft", "eval_share": 0.05, "keep": "best"}, CPU),
    "dpo-best-cuda.yaml": ({"kind": "dpo", "eval_share": 0.1, "keep": "best"}, CUDA),
    "kto-measured-cpu.yaml": ({"kind": "kto", "eval_share": 0.1}, CPU),
    "sft-packed-cuda.yaml": (
        {
            "kind": "sft", "packing": True, "attn_implementation": "kernels-community/flash-attn2",
            "gradient_checkpointing": True, "neftune_noise_alpha": 5, "optim": "adamw_8bit",
            "adapter": {"kind": "lora", "target_modules": ["q_proj", "v_proj"]},
        },
        RenderFacts(device="cuda", n_devices=2, n_train_rows=100_000),
    ),
    "sft-turns-qlora-cuda.yaml": (
        {
            "kind": "sft", "train_on": "assistant_turns", "gradient_checkpointing": True,
            "adapter": {"kind": "lora", "quantization": "nf4", "use_dora": True},
        },
        CUDA.model_copy(update={"n_devices": 2, "profile": "fsdp2", "hub_kernels": True}),
    ),
    "dpo-lora-cpu.yaml": ({"kind": "dpo"}, CPU),
    "dpo-full-cuda.yaml": (
        {
            "kind": "dpo", "adapter": FULL, "learning_rate": 5e-7, "loss_type": ["sigmoid", "sft"],
            "loss_weights": [1.0, 0.05], "precompute_ref_log_probs": True, "effective_batch": 64,
        },
        CUDA,
    ),
    "kto-lora-cpu.yaml": ({"kind": "kto"}, CPU),
    "kto-full-cuda.yaml": ({"kind": "kto", "adapter": FULL, "undesirable_weight": 1.3}, CUDA),
    "reward-lora-cpu.yaml": ({"kind": "reward"}, CPU),
    "reward-full-cuda.yaml": (
        {"kind": "reward", "adapter": FULL, "learning_rate": 1e-5, "center_rewards_coefficient": None}, CUDA,
    ),
    "grpo-lora-cpu.yaml": (
        {"kind": "grpo", "rewards": EXACT, "num_generations": 4, "effective_batch": 6, "micro_batch": 5}, CPU,
    ),
    "grpo-vllm-cuda.yaml": (
        {
            "kind": "grpo", "rewards": EXACT, "use_vllm": True, "epsilon_high": 0.28, "adapter": FULL,
            "learning_rate": 1e-6, "mask_truncated_completions": True, "gradient_checkpointing": True,
        },
        CUDA.model_copy(update={"n_devices": 4, "profile": "zero3"}),
    ),
    "distill-lora-cpu.yaml": ({"kind": "distill", "teacher": "teacher"}, CPU),
    "distill-full-cuda.yaml": (
        {"kind": "distill", "teacher": "teacher", "adapter": FULL, "learning_rate": 5e-5, "beta": 0.5}, CUDA,
    ),
}  # fmt: skip
STAGES = st.one_of(
    st.builds(SftStage, packing=st.just(False)),
    st.builds(DpoStage),
    st.builds(KtoStage),
    st.builds(RewardStage),
    st.builds(GrpoStage, use_vllm=st.just(False), rewards=st.just((ExactReward(),))),
    st.builds(DistillStage),
)


def recipe_of(stage: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"stages": [stage]})


def rendered(name: str) -> str:
    stage, facts = CASES[name]
    return render_stage(recipe_of(stage), 0, paths=PATHS, facts=facts).text


def notes_of(name: str) -> str:
    stage, facts = CASES[name]
    return "\n".join(render_stage(recipe_of(stage), 0, paths=PATHS, facts=facts).notes)


def rule_words() -> set[str]:
    """Return the rules that the header of every config names."""
    header = (shipped_folder("templates") / "trl" / "_header.j2").read_text(encoding="utf-8")
    listed = header.replace("\n# ", " ").split("or a rule: ")[1].split(" (")[0]
    return {word.strip() for word in listed.split(",")}


@pytest.mark.parametrize("name", CASES)
def test_render_equals_the_golden_file(name: str) -> None:
    assert rendered(name) == (GOLDEN / name).read_text(encoding="utf-8")


def test_every_golden_file_has_a_case() -> None:
    assert {path.name for path in GOLDEN.glob("*.yaml")} == set(CASES)
    for kind in ("sft", "dpo", "kto", "reward", "grpo", "distill"):
        devices = {facts.device for stage, facts in CASES.values() if stage["kind"] == kind}
        assert devices == {"cpu", "cuda"}


@pytest.mark.parametrize("name", CASES)
def test_every_key_names_a_prior_or_a_rule(name: str) -> None:
    """The comment behind each key of a config resolves, and no two stages share the wrong reason."""
    kind = CASES[name][0]["kind"]
    known, reasons = set(load_catalogue().keys(trl_method(kind))), prior_ids() | rule_words()
    found: set[str] = set()
    lines = rendered(name).splitlines()
    keys = [line.split(":")[0] for line in lines if re.match(r"[a-z_0-9]+:", line)]
    assert set(keys) == set(yaml.safe_load(rendered(name)))
    assert len(keys) == len(set(keys)) > 30
    for line in lines:
        if re.match(r"[a-z_0-9]+:", line):
            assert line.split(":")[0] in known, line
            words = set(line.rsplit("  # ", 1)[1].split(":")[0].split(", "))
            assert words <= reasons, line
            found |= words
    methods = {
        "sft": "dpo-",
        "dpo": "sft-",
        "kto": "sft-",
        "reward": "dpo-",
        "grpo": "sft-",
        "distill": "sft-",
    }
    assert not [word for word in found if word.startswith(methods[kind])]


@pytest.mark.parametrize("name", CASES)
def test_a_rendered_config_passes_our_own_validator(name: str) -> None:
    method = trl_method(CASES[name][0]["kind"])
    problems = validate_text(rendered(name), name=f"1-{method}.yaml", stage=method).problems
    # The rewards are given to the job beside the config, which a person's own config cannot do.
    assert [problem.key for problem in problems] == (["reward_funcs"] if method == "grpo" else [])


@given(STAGES, st.sampled_from(["cpu", "cuda"]), st.integers(1, 4), st.integers(0, 10**6))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
def test_any_stage_renders_to_catalogue_keys_and_the_same_batch(
    stage: Any, device: Any, n_devices: int, n_rows: int
) -> None:
    group = stage.num_generations if isinstance(stage, GrpoStage) else 1
    batch = min(stage.micro_batch * n_devices * 3, 65_536 // (stage.micro_batch * n_devices))
    stage = stage.model_copy(
        update={"effective_batch": max(batch, 1) * n_devices if group > 1 else stage.micro_batch * n_devices}
    )
    assume(device == "cuda" or not _needs_gpu(stage))
    facts = RenderFacts(device=device, n_devices=n_devices, n_train_rows=n_rows)
    result = render_stage(Recipe(stages=(stage,)), 0, paths=PATHS, facts=facts)
    values = yaml.safe_load(result.text)
    assert set(values) <= set(load_catalogue().keys(trl_method(stage.kind)))
    for key, wanted in (("learning_rate", stage.learning_rate), ("warmup_steps", stage.warmup_ratio)):
        assert values[key] == wanted
        assert isinstance(values[key], float)
    accumulated = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * n_devices
    assert accumulated == stage.effective_batch * group
    assert accumulated == values.get("generation_batch_size", accumulated)
    assert accumulated % group == 0
    assert values["per_device_train_batch_size"] <= stage.micro_batch
    assert ("max_steps" in values) != ("num_train_epochs" in values)
    assert values["push_to_hub"] is False
    assert values["logging_nan_inf_filter"] is False
    assert values.get("log_completions", False) is False
    assert 1 <= values["logging_steps"] <= 10
    assert result.notes


def _needs_gpu(stage: Any) -> bool:
    quantised = getattr(stage.adapter, "quantization", "none") != "none"
    return quantised or stage.optim == "adamw_8bit" or "flash" in stage.attn_implementation


def test_the_micro_batch_of_groups_is_the_largest_that_divides() -> None:
    stage = GrpoStage.model_validate(
        {"rewards": EXACT, "num_generations": 6, "effective_batch": 5, "micro_batch": 8}
    )
    assert device_batch(stage, 1).model_dump() == {"micro": 6, "accumulation": 5}
    assert device_batch(stage, 2).model_dump() == {"micro": 5, "accumulation": 3}
    with pytest.raises(PreflightError, match="num_generations 6"):
        device_batch(stage, 4)


def test_checkpoints_are_measured_when_they_are_saved_and_never_on_val() -> None:
    for name, metric, rises, best in (
        ("sft-best-cpu.yaml", "eval_loss", False, True),
        ("dpo-best-cuda.yaml", "eval_rewards/accuracies", True, True),
        ("kto-measured-cpu.yaml", "eval_loss", False, False),
    ):
        values = yaml.safe_load(rendered(name))
        assert (values["eval_strategy"], values["save_strategy"]) == ("steps", "steps")
        assert values["eval_steps"] == values["save_steps"]
        assert (values["metric_for_best_model"], values["greater_is_better"]) == (metric, rises)
        assert values["load_best_model_at_end"] is best
        assert values["per_device_eval_batch_size"] == values["per_device_train_batch_size"]
        assert values["test_split_size"] == CASES[name][0]["eval_share"]
        assert len(values["datasets"]) == 1
        assert "eval_dataset" not in values
    assert yaml.safe_load(rendered("sft-default-cpu.yaml"))["eval_strategy"] == "no"
    assert "best and the last are kept" in notes_of("sft-best-cpu.yaml")
    assert "5% of the stage's rows are held out" in notes_of("sft-best-cpu.yaml")


def test_held_out_rows_make_no_steps_and_short_runs_are_measured_five_times() -> None:
    stage = SftStage(eval_share=0.25, effective_batch=8, epochs=1.0)
    assert optimizer_steps(stage, 128) == 12
    assert optimizer_steps(stage.model_copy(update={"eval_share": 0.0}), 128) == 16
    text = render_stage(
        Recipe(stages=(stage,)), 0, paths=PATHS, facts=RenderFacts(device="cpu", n_train_rows=128)
    ).text
    assert yaml.safe_load(text)["save_steps"] == 2


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(PreflightError, match="effective_batch 16"):
        render_stage(Recipe(), 0, paths=PATHS, facts=RenderFacts(device="cuda", n_devices=3))


@pytest.mark.parametrize(
    ("stage", "facts", "said"),
    [
        ({"kind": "sft", "adapter": QLORA}, {"device": "cpu"}, "needs a GPU"),
        ({"kind": "dpo", "adapter": QLORA}, {"device": "cuda", "bitsandbytes": False}, "needs bitsandbytes"),
        ({"kind": "sft", "optim": "adamw_8bit"}, {"device": "cuda", "bitsandbytes": False}, "bitsandbytes"),
        ({"kind": "grpo", "rewards": EXACT, "use_vllm": True}, {"device": "cuda", "vllm": False}, "vllm"),
        (
            {"kind": "dpo", "attn_implementation": "kernels-community/flash-attn2"},
            {"device": "cuda", "kernels": ()},
            "which the environment lacks",
        ),
        ({"kind": "sft", "packing": True}, {"device": "cuda"}, "variable-length kernel"),
    ],
)  # fmt: skip
def test_what_the_environment_lacks_is_refused_and_never_left_out(
    stage: dict[str, Any], facts: dict[str, Any], said: str
) -> None:
    with pytest.raises(PreflightError, match=said):
        render_stage(recipe_of(stage), 0, paths=PATHS, facts=RenderFacts(**facts))


def test_a_merge_has_no_config_and_a_distillation_needs_its_teacher() -> None:
    with pytest.raises(ValueError, match="is a merge"):
        render_stage(
            Recipe.model_validate({"stages": [{"kind": "sft"}, {"kind": "merge"}]}), 1, paths=PATHS, facts=CPU
        )
    alone = PATHS.model_copy(update={"teacher": None})
    with pytest.raises(PreflightError, match="no teacher"):
        render_stage(recipe_of({"kind": "distill", "teacher": "t"}), 0, paths=alone, facts=CPU)


def test_every_automatic_choice_is_a_note() -> None:
    notes = notes_of("grpo-vllm-cuda.yaml")
    for words in ("num_generations 8", "use_reentrant true", "sleep_mode", "prompt length"):
        assert words in notes
    assert "micro_batch 5 is lowered" in notes_of("grpo-lora-cpu.yaml")
    assert "reference model: a frozen copy" in notes_of("dpo-full-cuda.yaml")
    assert "because all weights are trained" in notes_of("dpo-full-cuda.yaml")
    assert "adapter switched off" in notes_of("kto-lora-cpu.yaml")


def test_trained_weights_are_float32_unless_deepspeed_keeps_the_copy() -> None:
    full = recipe_of({"kind": "dpo", "adapter": FULL})
    for facts, dtype in (
        (CUDA, "float32"),
        (CUDA.model_copy(update={"n_devices": 2, "profile": "fsdp2"}), "float32"),
        (CUDA.model_copy(update={"n_devices": 2, "profile": "zero2"}), "bfloat16"),
        (CUDA.model_copy(update={"profile": "zero2"}), "float32"),
    ):
        values = yaml.safe_load(render_stage(full, 0, paths=PATHS, facts=facts).text)
        assert (values["dtype"], values["bf16"]) == (dtype, True)
    lora = yaml.safe_load(render_stage(recipe_of({"kind": "dpo"}), 0, paths=PATHS, facts=CUDA).text)
    assert lora["dtype"] == "bfloat16"


@given(st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans() | st.integers())
def test_yaml_scalars_read_back_as_themselves(value: Any) -> None:
    again = yaml.safe_load(f"key: {yaml_scalar(value)}")["key"]
    assert again == value
    assert type(again) is type(value)
