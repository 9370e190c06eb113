"""The key catalogue, the rename table over it, and the trainer's own parser."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rdagent_ft.cli import validate as cli_validate
from rdagent_ft.errors import PreflightError, Problem
from rdagent_ft.recipe import data_mix, parser_check, rewards, stages
from rdagent_ft.recipe.catalogue import METHODS, known_versions, load_catalogue
from rdagent_ft.recipe.parser_check import run_trl_parser, run_trl_parsers
from rdagent_ft.recipe.renames import load_renames, recipe_aliases
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.trainer_config.ranges import RANGES
from rdagent_ft.recipe.validate import is_recipe, validate_text
from rdagent_ft.values import Frozen


def test_catalogue_knows_methods_types_and_choices() -> None:
    catalogue = load_catalogue("trl", "1.16.0")
    sft = catalogue.keys("sft")
    assert len(sft) > 150
    assert sft["learning_rate"].types == ("float",)
    assert sft["learning_rate"].default == 2e-5
    assert catalogue.keys("dpo")["learning_rate"].default == 1e-6
    assert sft["packing_strategy"].choices == ("bfd", "bfd_split", "wrapped")
    assert "num_generations" not in sft
    assert catalogue.methods_with("num_generations") == ("grpo", "rloo")
    assert "num_processes" in catalogue.launch_keys
    with pytest.raises(PreflightError, match=r"1\.16\.0"):
        load_catalogue("trl", "0.1")


def test_the_newest_catalogue_is_the_default() -> None:
    assert load_catalogue().version == known_versions()[-1]


def test_renames_lead_to_known_keys_and_old_names_are_gone() -> None:
    catalogue, table = load_catalogue(), load_renames()
    still_there = {"use_transformers_paged", "vllm_importance_sampling_cap"}
    for old, entry in table.renamed.items():
        assert catalogue.methods_with(entry.new), entry
        assert old in still_there or not catalogue.methods_with(old), entry
    for old in table.removed:
        assert not catalogue.methods_with(old), old
    for old in table.deprecated:
        assert catalogue.methods_with(old), old
    assert not set(table.renamed) & set(table.removed)


def test_ranges_name_known_keys() -> None:
    catalogue = load_catalogue()
    assert [key for key in RANGES if not catalogue.methods_with(key)] == []


def test_recipe_aliases_lead_to_fields() -> None:
    parts = [
        value
        for module in (stages, rewards, data_mix)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Frozen)
    ]
    fields = {name for part in parts for name in part.model_fields}
    for alias, target in recipe_aliases().items():
        assert set(target.split(".")) <= fields, alias


@pytest.mark.train
def test_committed_catalogue_equals_a_fresh_introspection(repository: Path) -> None:
    script = repository / "scripts" / "make_trl_catalogue.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.train
def test_one_process_judges_many_configs_each_by_itself(tmp_path: Path) -> None:
    paths = StagePaths(model=Path("m"), train_file=Path("t.jsonl"), output_dir=Path("o"))
    ours = render_stage(Recipe(), 0, paths=paths, facts=RenderFacts(device="cuda")).text
    texts: list[tuple[Any, str, list[str]]] = [
        ("sft", ours, []),
        ("sft", f"{ours}lora_rank: 3\nmax_seq_length: 5\n", ["lora_rank", "max_seq_length"]),
        ("sft", "learning_rate: abc\n", ["learning_rate"]),
        ("grpo", "num_generations: 6\nper_device_train_batch_size: 4\n", ["num_generations"]),
        ("dpo", "beta: x\n", ["beta"]),
        # A value of the file before must not stay behind as a default.
        ("sft", "eval_strategy: steps\nsave_strategy: epoch\nload_best_model_at_end: true\n",
         ["load_best_model_at_end"]),
        ("sft", "eval_strategy: steps\n", []),
    ]  # fmt: skip
    configs: list[tuple[Path, Any]] = []
    for number, (method, text, _) in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        configs.append((path, method))
    verdicts = run_trl_parsers(configs)
    classes = {problem.problem_class for problem in verdicts[3]}
    assert classes == {"config.grpo_batch"}
    # The parser names no key of a group that does not divide.
    verdicts[3] = [replace(problem, key="num_generations") for problem in verdicts[3]]
    assert [[problem.key for problem in said] for said in verdicts] == [keys for *_, keys in texts]
    assert run_trl_parsers([]) == []


@pytest.mark.train
def test_clean_corpus_passes_the_trainers_parser() -> None:
    """Our verdict `clean` and the trainer's must agree for every method."""
    folder = Path(__file__).parent / "clean"
    # Keys for `accelerate launch` are no business of the parser.
    files = [
        (path, method)
        for path in sorted(folder.glob("*.yaml"))
        for method in METHODS
        if path.name.split("-")[0].split(".")[0] == method and "packed" not in path.name
    ]
    files = [(path, method) for path, method in files if not is_recipe(yaml.safe_load(path.read_text()))]
    assert len(files) >= 10
    verdicts = run_trl_parsers(files)
    assert {path.name: said for (path, _), said in zip(files, verdicts, strict=True) if said} == {}


RECIPE = """
stages:
  - {kind: sft}
  - {kind: merge}
  - {kind: dpo, adapter: {kind: lora, quantization: nf4}}
  - {kind: merge}
  - {kind: grpo, adapter: {kind: full}, use_vllm: true, rewards: [{kind: exact}]}
"""


@pytest.mark.train
def test_deep_validation_of_a_recipe_asks_about_every_stage_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    report = validate_text(RECIPE, name=file.name)
    assert report.problems == ()
    asked: list[Any] = []

    def recording(configs: list[Any], *, python: str | None = None) -> Any:
        asked.extend((path.read_text(encoding="utf-8").splitlines()[0], method) for path, method in configs)
        verdicts = run_trl_parsers(configs, python=python)
        assert verdicts == [[], [], []]
        return [[], [Problem("beta", None, "is wrong", "config.bad_value", "correct it")], []]

    monkeypatch.setattr(parser_check, "run_trl_parsers", recording)
    (problem,) = cli_validate._deep(file, report)
    assert [method for _, method in asked] == ["sft", "dpo", "grpo"]
    assert (problem.key, problem.rule) == ("stages.2", "renders to `beta`, which is wrong")


def test_a_missing_trainer_is_a_preflight_error(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("a: 1\n", encoding="utf-8")
    with pytest.raises(PreflightError, match="parser"):
        run_trl_parser(config, "sft", python=str(tmp_path / "no-python"))
    with pytest.raises(PreflightError, match="could not run"):
        run_trl_parser(config, "sft", python="/bin/false")
