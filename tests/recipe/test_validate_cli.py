"""`rdagent-ft validate`: exit codes, one JSON document, what --fix writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.cli.validate import validate
from rdagent_ft.errors import UserError

BROKEN = "learning_rate: 2e-4\nmax_seq_length: 512  # rows are short\nlora_rank: 4\nuse_peft: true\n"


def run(file: Path, **options: Any) -> int:
    settings: dict[str, Any] = {
        "trainer": "trl",
        "stage": None,
        "fix": False,
        "deep": False,
        "as_json": False,
    }
    with pytest.raises(SystemExit) as ended:
        validate(file, **{**settings, **options})
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_json_is_one_document_with_the_fixed_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(BROKEN, encoding="utf-8")
    assert run(file, as_json=True) == 3
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"schema_version", "file", "kind", "ok", "problems", "fixed"}
    assert (document["kind"], document["ok"], document["fixed"]) == ("trainer", False, None)
    assert {problem["class"] for problem in document["problems"]} == {
        "config.renamed_key",
        "config.lora_targets",
    }
    for problem in document["problems"]:
        assert set(problem) == {"key", "value", "rule", "class", "fix"}
    assert file.read_text(encoding="utf-8") == BROKEN


def test_fix_writes_neutral_fixes_keeps_the_original_and_reports_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(BROKEN, encoding="utf-8")
    assert run(file, fix=True, as_json=True) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["fixed"] == str(file)
    assert [problem["class"] for problem in document["problems"]] == ["config.lora_targets"]
    assert file.read_text(encoding="utf-8") == (
        "learning_rate: 2e-4\nmax_length: 512  # rows are short\nlora_r: 4\nuse_peft: true\n"
    )
    assert (tmp_path / "sft.yaml.orig").read_text(encoding="utf-8") == BROKEN


def test_clean_recipe_exits_zero_and_shows_its_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.json"
    file.write_text('{"stages": [{"kind": "sft"}]}', encoding="utf-8")
    assert run(file) == 0
    assert "recipe is clean" in capsys.readouterr().out


def test_what_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    options: dict[str, Any] = {"trainer": "trl", "stage": None, "fix": False, "deep": False, "as_json": False}
    with pytest.raises(UserError, match="not a file"):
        validate(tmp_path / "none.yaml", **options)
    with pytest.raises(UserError, match="not a file"):
        validate(tmp_path, **options)
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="UTF-8"):
        validate(binary, **options)
    file = tmp_path / "a.yaml"
    file.write_text("learning_rate: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="--stage"):
        validate(file, **{**options, "stage": "ppo"})
    with pytest.raises(UserError, match="--trainer"):
        validate(file, **{**options, "trainer": "axolotl"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_fix_in_a_read_only_folder_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(BROKEN, encoding="utf-8")
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        validate(file, trainer="trl", stage=None, fix=True, deep=False, as_json=False)
    tmp_path.chmod(0o700)


def test_local_data_and_model_are_looked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = tmp_path / "sft-out"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
    file = tmp_path / "dpo.yaml"
    file.write_text(
        "model_name_or_path: sft-out\nbeta: 0.1\nloss_type: [sigmoid]\n"
        "datasets: [{path: json, data_files: rows.jsonl, split: train}]\n",
        encoding="utf-8",
    )
    assert run(file, as_json=True) == 3
    found = {(p["class"], p["key"]) for p in json.loads(capsys.readouterr().out)["problems"]}
    assert found == {
        ("chain.unmerged_adapter", "model_name_or_path"),
        ("data.columns", "datasets.0.data_files"),
    }


def test_a_local_model_without_template_and_token_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "base"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    (model / "tokenizer.json").write_text('{"model": {"vocab": {"</s>": 0}}}', encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}]}\n', encoding="utf-8"
    )
    file = tmp_path / "sft.yaml"
    file.write_text(
        "model_name_or_path: base\neos_token: <|im_end|>\n"
        "datasets: [{path: json, data_files: rows.jsonl, split: train}]\n",
        encoding="utf-8",
    )
    assert run(file, as_json=True) == 3
    assert {p["class"] for p in json.loads(capsys.readouterr().out)["problems"]} == {
        "data.template",
        "data.eos",
    }
    file.write_text(file.read_text(encoding="utf-8").replace("<|im_end|>", "</s>"), encoding="utf-8")
    (model / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert run(file) == 0


@pytest.mark.train
def test_deep_asks_the_trainers_parser(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text('{"stages": [{"kind": "sft"}]}', encoding="utf-8")
    assert run(file, deep=True) == 0
