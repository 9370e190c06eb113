"""Rendering for LLaMA-Factory: only catalogue keys, every key justified, what does not fit is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from lf_families import FAMILIES, write_family

from rdagent_ft.errors import PreflightError, RecipeError
from rdagent_ft.knowledge.store import prior_ids
from rdagent_ft.recipe.llamafactory.chat_format import choose_template
from rdagent_ft.recipe.llamafactory.check import check_llamafactory_config
from rdagent_ft.recipe.llamafactory.fits import fit_problems
from rdagent_ft.recipe.llamafactory.keys import load_keys
from rdagent_ft.recipe.llamafactory.render import render_export, render_llamafactory
from rdagent_ft.recipe.render import RenderFacts, StagePaths
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    DistillStage,
    DpoStage,
    FullAdapter,
    KtoStage,
    LoraAdapter,
    MergeStage,
    RewardStage,
    SftStage,
)

PATHS = StagePaths(model=Path("models/base"), train_file=Path("data/train.jsonl"), output_dir=Path("trainer"))
CPU, CUDA = RenderFacts(device="cpu", n_train_rows=3000), RenderFacts(device="cuda", n_train_rows=3000)
STAGES: dict[str, Any] = {
    "sft": SftStage(),
    "sft-turns": SftStage(train_on="assistant_turns", neftune_noise_alpha=5.0, max_steps=7),
    "dpo": DpoStage(loss_type=("sigmoid", "sft"), loss_weights=(1.0, 0.25), label_smoothing=0.1),
    "kto": KtoStage(desirable_weight=1.5, gradient_checkpointing=True),
    "reward": RewardStage(center_rewards_coefficient=None),
}
RULES = {
    "data-path", "one-output", "device-precision", "true-log", "no-hub", "no-remote-code", "can-resume",
    "mask-prompt", "same-prompt", "same-batch", "reproducible", "recipe", "exact-merge",
}  # fmt: skip


def rendered(stage: Any, facts: RenderFacts = CPU, template: str = "qwen") -> str:
    return render_llamafactory(Recipe(stages=(stage,)), 0, paths=PATHS, facts=facts, template=template).text


@pytest.mark.parametrize(
    ("name", "facts", "adapter"),
    itertools.product(STAGES, (CPU, CUDA), (LoraAdapter(), FullAdapter())),
)
def test_every_cell_has_known_keys_each_with_its_reason(name: str, facts: RenderFacts, adapter: Any) -> None:
    text = rendered(STAGES[name].model_copy(update={"adapter": adapter}), facts)
    assert check_llamafactory_config(yaml.safe_load(text)) == []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        reason = line.partition("  # ")[2].partition(":")[0]
        assert reason, line
        assert set(reason.split(", ")) <= RULES | set(prior_ids()), line


def test_a_recipe_means_the_same_as_with_trl() -> None:
    values = yaml.safe_load(
        rendered(SftStage(effective_batch=32, micro_batch=8, warmup_ratio=0.1, max_length=256))
    )
    assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 32
    assert (values["cutoff_len"], values["warmup_steps"], values["mask_history"]) == (256, 0.1, True)
    assert (values["use_cpu"], values["bf16"], values["logging_nan_inf_filter"]) == (True, False, False)
    assert values["disable_gradient_checkpointing"] is True
    assert yaml.safe_load(rendered(STAGES["sft-turns"]))["mask_history"] is False
    dpo = yaml.safe_load(rendered(STAGES["dpo"]))
    assert (dpo["pref_loss"], dpo["pref_ftx"], dpo["dpo_label_smoothing"]) == ("sigmoid", 0.25, 0.1)
    assert yaml.safe_load(rendered(STAGES["kto"]))["kto_chosen_weight"] == 1.5
    targets = SftStage(adapter=LoraAdapter(target_modules=("q_proj", "v_proj")))
    assert yaml.safe_load(rendered(targets))["lora_target"] == "q_proj,v_proj"


def test_an_export_has_the_keys_of_an_export() -> None:
    text = render_export(model=Path("m"), adapter=Path("a"), out=Path("o"), template="qwen")
    values = yaml.safe_load(text)
    assert check_llamafactory_config(values) == []
    assert set(values) <= set(load_keys().export_keys)
    assert values["infer_dtype"] == "float32"
    for reason in re.findall(r"  # ([a-z-]+)", text):
        assert reason in RULES


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        (DistillStage(teacher="teacher"), "kind"),
        (SftStage(adapter=LoraAdapter(quantization="nf4")), "adapter.quantization"),
        (SftStage(attn_implementation="kernels-community/flash-attn2"), "attn_implementation"),
        (SftStage(optim="adamw_8bit"), "optim"),
        (DpoStage(loss_type=("robust",)), "loss_type"),
        (DpoStage(loss_type=("sft",)), "loss_type"),
        (DpoStage(loss_type=("sigmoid", "sft"), loss_weights=(0.5, 0.5)), "loss_weights"),
        (DpoStage(loss_type=("ipo",), label_smoothing=0.1), "label_smoothing"),
        (DpoStage(precompute_ref_log_probs=True), "precompute_ref_log_probs"),
        (RewardStage(), "center_rewards_coefficient"),
    ],
)
def test_what_the_trainer_cannot_say_is_refused(stage: Any, key: str) -> None:
    recipe = Recipe(stages=(stage,))
    assert [problem.key for problem in fit_problems(recipe)] == [f"stages.0.{key}"]
    with pytest.raises(RecipeError) as caught:
        render_llamafactory(recipe, 0, paths=PATHS, facts=CPU, template="qwen")
    assert caught.value.problems[0].fix


def test_a_chain_with_merges_fits() -> None:
    assert fit_problems(Recipe(stages=(SftStage(), MergeStage(), DpoStage(), MergeStage()))) == []


def test_several_devices_are_refused() -> None:
    with pytest.raises(PreflightError, match="2 devices"):
        rendered(SftStage(), RenderFacts(device="cuda", n_devices=2))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_template_is_chosen_by_family(family: str, tmp_path: Path) -> None:
    write_family(tmp_path, family)
    template = choose_template(tmp_path, "chat")
    assert template == FAMILIES[family].template
    assert template in load_keys().templates
    assert choose_template(tmp_path, "plain") == "empty"


def test_an_unknown_template_is_refused_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    with pytest.raises(PreflightError, match="no template"):
        choose_template(tmp_path, "chat")
