"""Every method x adapter x model family: our rules, TRL's real parser, and PEFT on the real architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rdagent_ft.recipe.catalogue import load_catalogue, trl_method
from rdagent_ft.recipe.parser_check import run_trl_parsers
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.validate import validate_text

LLAMA_LIKE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PHI_LIKE = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"folder": "Llama-3.2-1B-Instruct", "layers": LLAMA_LIKE, "config": "LlamaConfig"},
    "qwen2": {"folder": "Qwen2.5-1.5B-Instruct", "layers": LLAMA_LIKE, "config": "Qwen2Config"},
    "qwen3": {"folder": "Qwen3-0.6B", "layers": LLAMA_LIKE, "config": "Qwen3Config"},
    "mistral": {"folder": "Mistral-7B-Instruct-v0.3", "layers": LLAMA_LIKE, "config": "MistralConfig"},
    "gemma": {"folder": "gemma-3-1b-it", "layers": LLAMA_LIKE, "config": "Gemma3TextConfig"},
    "phi": {"folder": "Phi-3.5-mini-instruct", "layers": PHI_LIKE, "config": "Phi3Config"},
    "smollm": {"folder": "SmolLM3-3B", "layers": LLAMA_LIKE, "config": "SmolLM3Config"},
}
KINDS: dict[str, dict[str, Any]] = {
    "sft": {"train_on": "assistant_turns"},
    "dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "precompute_ref_log_probs": True},
    "kto": {"desirable_weight": 1.2},
    "reward": {},
    "grpo": {"rewards": [{"kind": "exact"}], "epsilon_high": 0.28, "use_vllm": True, "micro_batch": 7},
    "distill": {"teacher": "teacher"},
}
ADAPTERS = ("lora", "qlora", "full")
PEFT_ASKS_BY_THE_OLD_NAME = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CELLS = [(kind, adapter, family) for kind in KINDS for adapter in ADAPTERS for family in FAMILIES]


def stage_of(kind: str, adapter: str, family: str) -> dict[str, Any]:
    """Return a stage that uses what can differ: named layers for QLoRA, a packing kernel for SFT."""
    values: dict[str, Any] = {"kind": kind, **KINDS[kind], "gradient_checkpointing": True}
    if adapter == "full":
        return values | {"adapter": {"kind": "full"}, "learning_rate": 1e-6}
    lora: dict[str, Any] = {"kind": "lora", "use_dora": adapter == "lora"}
    if adapter == "qlora":
        lora |= {"quantization": "nf4", "target_modules": FAMILIES[family]["layers"]}
        if kind == "sft":
            values |= {"packing": True, "attn_implementation": "kernels-community/flash-attn2"}
    return values | {"adapter": lora}


def rendered(kind: str, adapter: str, family: str, **facts: Any) -> str:
    """Return the config text of a cell."""
    folder = Path("models") / FAMILIES[family]["folder"]
    paths = StagePaths(
        model=folder, train_file=Path("rows.jsonl"), output_dir=Path("output"),
        teacher=Path("teachers") / FAMILIES[family]["folder"],
    )  # fmt: skip
    recipe = Recipe.model_validate({"stages": [stage_of(kind, adapter, family)]})
    return render_stage(recipe, 0, paths=paths, facts=RenderFacts(**{"device": "cuda", **facts})).text


@pytest.mark.parametrize(("kind", "adapter", "family"), CELLS)
def test_a_cell_has_known_keys_only_and_passes_our_own_rules(kind: Any, adapter: str, family: str) -> None:
    text = rendered(kind, adapter, family)
    values = yaml.safe_load(text)
    method = trl_method(kind)
    assert set(values) <= set(load_catalogue().keys(method))
    assert values["use_peft"] == (adapter != "full")
    assert values.get("load_in_4bit", False) == (adapter == "qlora")
    assert values["dtype"] == ("float32" if adapter == "full" else "bfloat16")
    assert values["bf16"] is True
    problems = validate_text(text, name=f"{kind}.yaml", stage=method).problems
    # The rewards are given to the job beside the config, which a person's own config cannot do.
    expected = ["reward_funcs"] if kind == "grpo" else []
    assert [problem.key for problem in problems] == expected


@pytest.mark.train
def test_every_cell_passes_the_trainers_own_parser(tmp_path: Path) -> None:
    shared: dict[str, dict[str, Any]] = {
        "lora": {"profile": "ddp"}, "qlora": {"profile": "fsdp2"}, "full": {"profile": "zero3"},
    }  # fmt: skip
    configs: list[tuple[Path, Any]] = []
    for kind, adapter, family in CELLS:
        several = [shared[adapter] | {"n_devices": 2}] if family == "llama" else []
        for facts in ({}, *several):
            path = tmp_path / f"{len(configs)}-{kind}-{adapter}-{family}.yaml"
            path.write_text(rendered(kind, adapter, family, **facts), encoding="utf-8")
            configs.append((path, trl_method(kind)))  # pyright: ignore[reportArgumentType]
    verdicts = run_trl_parsers(configs)
    wrong = {path.name: said for (path, _), said in zip(configs, verdicts, strict=True) if said}
    assert wrong == {}
    assert len(verdicts) == 6 * 3 * 7 + 6 * 3


@pytest.mark.train
@PEFT_ASKS_BY_THE_OLD_NAME
@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_adapts_every_layer_but_the_head(family: str) -> None:
    """The family's real architecture, two layers and random: PEFT finds what the names say."""
    import torch
    from peft import LoraConfig, get_peft_model

    layers = FAMILIES[family]["layers"]
    for task in ("CAUSAL_LM", "SEQ_CLS"):
        every = get_peft_model(
            tiny(FAMILIES[family]["config"], task), LoraConfig(target_modules="all-linear", task_type=task)
        )
        named = get_peft_model(
            tiny(FAMILIES[family]["config"], task), LoraConfig(target_modules=layers, task_type=task)
        )
        adapted = sorted(every.base_model.targeted_module_names)
        assert adapted == sorted(named.base_model.targeted_module_names)
        assert len(adapted) == 2 * len(layers)
        assert {name.rsplit(".", 1)[-1] for name in adapted} == set(layers)
        trained = [name for name, weight in every.named_parameters() if weight.requires_grad]
        assert any("score" in name for name in trained) == (task == "SEQ_CLS")
        assert not any("lm_head" in name for name in trained)
        output = every(input_ids=torch.ones((1, 4), dtype=torch.long))
        assert torch.isfinite(output.logits).all()


@pytest.mark.train
@PEFT_ASKS_BY_THE_OLD_NAME
@pytest.mark.parametrize("config", ["GemmaConfig", "Gemma2Config", "PhiConfig"])
def test_all_linear_finds_layers_in_the_families_other_architectures(config: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        tiny(config, "CAUSAL_LM"), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    adapted = model.base_model.targeted_module_names
    assert len(adapted) >= 8
    assert not [name for name in adapted if name.endswith(("lm_head", "embed_tokens"))]


def tiny(config: str, task: str) -> Any:
    """Return a random model of two layers of one architecture."""
    import transformers

    sizes = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "max_position_embeddings": 64,
    }  # fmt: skip
    auto = (
        transformers.AutoModelForCausalLM
        if task == "CAUSAL_LM"
        else transformers.AutoModelForSequenceClassification
    )
    return auto.from_config(getattr(transformers, config)(**sizes))
