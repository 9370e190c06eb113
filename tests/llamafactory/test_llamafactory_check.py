"""The judgement of a LLaMA-Factory config that a person wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.recipe.edits import apply_to_values
from rdagent_ft.recipe.llamafactory.check import check_llamafactory_config, find_problems, guess_stage
from rdagent_ft.recipe.llamafactory.keys import load_keys

GOOD: dict[str, Any] = {
    "model_name_or_path": "models/base", "stage": "sft", "do_train": True, "finetuning_type": "lora",
    "dataset": "train", "template": "qwen", "output_dir": "out", "learning_rate": "1e-4", "lora_rank": 8,
}  # fmt: skip


def test_a_usual_config_is_clean() -> None:
    assert check_llamafactory_config(GOOD) == []


@pytest.mark.parametrize(
    ("change", "key", "problem_class"),
    [
        ({"lora_rnak": 8}, "lora_rnak", "config.unknown_key"),
        ({"lora_r": 8}, "lora_r", "config.renamed_key"),
        ({"max_seq_length": 512}, "max_seq_length", "config.renamed_key"),
        ({"max_length": 512}, "max_length", "config.renamed_key"),
        ({"learning_rate": "fast"}, "learning_rate", "config.bad_value"),
        ({"learning_rate": 5}, "learning_rate", "config.bad_value"),
        ({"do_train": "yes"}, "do_train", "config.bad_value"),
        ({"do_train": False}, "do_train", "config.conflict"),
        ({"lora_rank": "8"}, "lora_rank", "config.bad_value"),
        ({"template": "qwn3"}, "template", "config.bad_value"),
        ({"finetuning_type": "qlora"}, "finetuning_type", "config.bad_value"),
        ({"eval_strategy": False}, "eval_strategy", "config.bad_value"),
        ({"lora_target": "all-linear"}, "lora_target", "config.lora_targets"),
        ({"lora_target": "q_prj"}, "lora_target", "config.lora_targets"),
        ({"finetuning_type": "full"}, "lora_rank", "config.conflict"),
        ({"packing": True}, "packing", "config.packing"),
        ({"train_on_prompt": True, "mask_history": True}, "train_on_prompt", "config.conflict"),
        ({"stage": "dpo", "neat_packing": True}, "neat_packing", "config.conflict"),
        (
            {"stage": "dpo", "pref_loss": "ipo", "dpo_label_smoothing": 0.1},
            "dpo_label_smoothing",
            "config.conflict",
        ),
        ({"pref_beta": 0.2}, "pref_beta", "config.conflict"),
        ({"eval_strategy": "steps"}, "eval_strategy", "config.conflict"),
        ({"streaming": True}, "streaming", "config.conflict"),
        ({"dataset": None}, "dataset", "config.missing_key"),
        ({"push_to_hub": True}, "push_to_hub", "config.protected_key"),
        ({"hf_hub_token": "secret"}, "hf_hub_token", "config.protected_key"),
    ],
)
def test_each_mistake_is_named(change: dict[str, Any], key: str, problem_class: str) -> None:
    problems = check_llamafactory_config({**GOOD, **change})
    assert (key, problem_class) in {(problem.key, problem.problem_class) for problem in problems}
    assert all(problem.fix and "secret" not in problem.render() for problem in problems)


def test_a_quantised_base_cannot_be_merged_into() -> None:
    export = {
        "model_name_or_path": "m", "adapter_name_or_path": "a", "export_dir": "out", "quantization_bit": 4,
        "template": "qwen",
    }  # fmt: skip
    assert guess_stage(export) == "export"
    assert [p.problem_class for p in check_llamafactory_config(export)] == ["chain.merge_quantised"]
    assert check_llamafactory_config({**export, "quantization_bit": None}) == []


def test_a_training_key_in_an_export_is_unknown() -> None:
    export = {"model_name_or_path": "m", "export_dir": "out", "learning_rate": 1e-4}
    assert [p.problem_class for p in check_llamafactory_config(export)] == ["config.unknown_key"]


def test_an_adapter_as_base_is_found_on_disk(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    problems = check_llamafactory_config({**GOOD, "model_name_or_path": "adapter"}, folder=tmp_path)
    assert [p.problem_class for p in problems] == ["chain.unmerged_adapter"]


def test_neutral_edits_mend_names_and_keep_values() -> None:
    values = {**GOOD, "max_seq_length": 512, "lora_target": "all-linear", "packing": True}
    edits = tuple(edit for item in find_problems(values) for edit in item.edits)
    mended = apply_to_values(values, edits)
    assert check_llamafactory_config(mended) == []
    assert (mended["cutoff_len"], mended["lora_target"], mended["neat_packing"]) == (512, "all", True)


def test_the_catalogue_is_of_the_pinned_version() -> None:
    keys = load_keys()
    assert (keys.version, keys.transformers) == ("0.9.5", "5.6.0")
    assert len(keys.keys) > 300
    assert set(keys.export_keys) < set(keys.keys)


json_values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=3)
)


@given(
    st.dictionaries(st.sampled_from(sorted(load_keys().keys)) | st.text(min_size=1), json_values, max_size=12)
)
def test_no_file_makes_the_check_raise(values: dict[str, Any]) -> None:
    for problem in check_llamafactory_config(values):
        assert problem.key
        assert problem.fix
