"""Rendering: golden files, only catalogue keys, same effective batch, YAML that reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import PreflightError
from rdagent_ft.knowledge.store import prior_ids
from rdagent_ft.recipe.catalogue import load_catalogue
from rdagent_ft.recipe.diff import apply_diff
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage, yaml_scalar
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.validate import validate_text
from rdagent_ft.shipped import shipped_folder

GOLDEN = Path(__file__).parent.parent / "golden"
PATHS = StagePaths(model=Path("models/base"), train_file=Path("data/train.jsonl"), output_dir=Path("output"))
CASES: dict[str, tuple[dict[str, Any], RenderFacts]] = {
    "sft-default-cpu.yaml": ({}, RenderFacts(device="cpu", n_train_rows=3000)),
    "sft-full-cpu.yaml": (
        {"stages.0.adapter": {"kind": "full"}, "stages.0.learning_rate": 1e-3, "stages.0.max_steps": 50},
        RenderFacts(device="cpu", n_train_rows=500),
    ),
    "sft-packed-cuda.yaml": (
        {
            "stages.0.packing": True, "stages.0.attn_implementation": "kernels-community/flash-attn2",
            "stages.0.gradient_checkpointing": True, "stages.0.neftune_noise_alpha": 5,
            "stages.0.adapter.target_modules": ["q_proj", "v_proj"], "stages.0.optim": "adamw_8bit",
        },
        RenderFacts(device="cuda", n_devices=2, n_train_rows=100_000),
    ),
}  # fmt: skip
RULE_IDS = {
    "data-path", "one-output", "device-precision", "true-log", "no-hub", "can-resume", "mask-prompt",
    "same-batch", "reproducible", "varlen-packing", "recipe",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_render_equals_the_golden_file(name: str) -> None:
    diff, facts = CASES[name]
    text = render_stage(apply_diff(Recipe(), diff), 0, paths=PATHS, facts=facts).text
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


@given(st.builds(Recipe), st.sampled_from(["cpu", "cuda"]), st.integers(1, 4), st.integers(0, 10**6))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
def test_any_recipe_renders_to_catalogue_keys_only(
    recipe: Recipe, device: Any, n_devices: int, n_rows: int
) -> None:
    stage = recipe.stages[0]
    micro = stage.micro_batch
    recipe = apply_diff(
        recipe,
        {
            "stages.0.effective_batch": min(
                micro * n_devices * 3, 65_536 // (micro * n_devices) * micro * n_devices
            )
        },
    )
    stage = recipe.stages[0]
    assume(stage.effective_batch >= micro * n_devices)
    facts = RenderFacts(device=device, n_devices=n_devices, n_train_rows=n_rows)
    rendered = render_stage(recipe, 0, paths=PATHS, facts=facts)
    values = yaml.safe_load(rendered.text)
    assert set(values) <= set(load_catalogue().keys("sft"))
    assert values["learning_rate"] == stage.learning_rate
    assert isinstance(values["learning_rate"], float)
    assert isinstance(values["warmup_steps"], float)
    assert values["warmup_steps"] == stage.warmup_ratio
    accumulated = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * n_devices
    assert accumulated == stage.effective_batch
    assert ("max_steps" in values) != ("num_train_epochs" in values)
    assert values["push_to_hub"] is False
    assert values["logging_nan_inf_filter"] is False
    assert 1 <= values["logging_steps"] <= 10
    assert rendered.notes


@pytest.mark.parametrize("name", CASES)
def test_a_rendered_config_passes_our_own_validator(name: str) -> None:
    diff, facts = CASES[name]
    text = render_stage(apply_diff(Recipe(), diff), 0, paths=PATHS, facts=facts).text
    assert validate_text(text, name="1-sft.yaml", stage="sft").problems == ()


def test_every_template_key_names_a_prior_or_a_rule() -> None:
    template = (shipped_folder("templates") / "trl" / "sft.yaml.j2").read_text(encoding="utf-8")
    known = set(load_catalogue().keys("sft"))
    n_keys = 0
    for line in template.splitlines():
        if ":" in line and line.split(":")[0] in known:
            n_keys += 1
            reasons = line.split("  # ", 1)[1].split(":")[0].split(", ")
            assert set(reasons) <= prior_ids() | RULE_IDS, line
    assert n_keys > 35


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(PreflightError, match="effective_batch 16"):
        render_stage(Recipe(), 0, paths=PATHS, facts=RenderFacts(device="cuda", n_devices=3))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans() | st.integers())
def test_yaml_scalars_read_back_as_themselves(value: Any) -> None:
    again = yaml.safe_load(f"key: {yaml_scalar(value)}")["key"]
    assert again == value
    assert type(again) is type(value)
