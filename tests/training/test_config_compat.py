"""Checkpoints of transformers 5 stay readable for version 4."""

from __future__ import annotations

import json
from pathlib import Path

from rdagent_ft.training.config_compat import make_readable, readable_config, readable_tokenizer_config


def test_both_rope_forms_are_written() -> None:
    config = {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    changed = readable_config(config)
    assert changed["rope_theta"] == 1e6
    assert "rope_scaling" not in changed
    assert changed["torch_dtype"] == "bfloat16"
    assert changed["rope_parameters"] == config["rope_parameters"]
    assert readable_config(changed) == changed


def test_scaled_rope_is_kept() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
    changed = readable_config({"rope_parameters": rope})
    assert changed["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    assert changed["rope_theta"] == 5e5


def test_rope_by_layer_type_and_nested_configs() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    text = readable_config({"text_config": {"rope_parameters": rope}})["text_config"]
    assert (text["rope_theta"], text["rope_local_base_freq"]) == (1e6, 1e4)
    assert text["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_a_config_without_rope_is_unchanged() -> None:
    assert readable_config({"model_type": "gpt2"}) == {"model_type": "gpt2"}


def test_the_tokenizer_gets_names_that_version_4_knows() -> None:
    changed = readable_tokenizer_config(
        {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"], "eos_token": "<e>"}
    )
    assert changed == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<a>"],
        "eos_token": "<e>",
    }
    assert readable_tokenizer_config({"extra_special_tokens": {"image": "<i>"}})["extra_special_tokens"]


def test_files_are_rewritten_in_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"rope_parameters": {"rope_theta": 10000.0}}')
    make_readable(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 10000.0
