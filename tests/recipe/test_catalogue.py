"""The key catalogue, the rename table over it, and the trainer's own parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.catalogue import METHODS, known_versions, load_catalogue
from rdagent_ft.recipe.parser_check import run_trl_parser, trl_parser_argv
from rdagent_ft.recipe.renames import load_renames, recipe_aliases
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import LoraAdapter, Recipe, SftStage
from rdagent_ft.recipe.trainer_config.ranges import RANGES


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
    fields = set(SftStage.model_fields)
    for alias, target in recipe_aliases().items():
        head, _, tail = target.partition(".")
        assert head in fields, alias
        assert not tail or tail in LoraAdapter.model_fields, alias


@pytest.mark.train
def test_committed_catalogue_equals_a_fresh_introspection(repository: Path) -> None:
    script = repository / "scripts" / "make_trl_catalogue.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.train
def test_trainers_parser_accepts_a_rendered_recipe_and_names_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    paths = StagePaths(model=Path("m"), train_file=Path("t.jsonl"), output_dir=Path("o"))
    rendered = render_stage(Recipe(), 0, paths=paths, facts=RenderFacts(device="cuda")).text
    config.write_text(rendered, encoding="utf-8")
    assert run_trl_parser(config, "sft") == []
    config.write_text(
        config.read_text(encoding="utf-8") + "lora_rank: 3\nmax_seq_length: 5\n", encoding="utf-8"
    )
    problems = run_trl_parser(config, "sft")
    assert [problem.key for problem in problems] == ["lora_rank", "max_seq_length"]


@pytest.mark.train
def test_trainers_parser_names_bad_values_and_batches(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("num_generations: 6\nper_device_train_batch_size: 4\n", encoding="utf-8")
    (problem,) = run_trl_parser(config, "grpo")
    assert problem.problem_class == "config.grpo_batch"
    config.write_text("learning_rate: abc\n", encoding="utf-8")
    (problem,) = run_trl_parser(config, "sft")
    assert problem.key == "learning_rate"


@pytest.mark.train
def test_clean_corpus_passes_the_trainers_parser() -> None:
    """Our verdict `clean` and the trainer's must agree for every method."""
    folder = Path(__file__).parent / "clean"
    script = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('job', {str(trl_parser_argv(Path(), 'sft')[1])!r})\n"
        "job = u.module_from_spec(spec); spec.loader.exec_module(job)\n"
        "for line in sys.stdin:\n"
        "    method, path = line.split()\n"
        "    print(path, job.parse(method, path))\n"
    )
    names = {path.name: path.name.split("-")[0].split(".")[0] for path in folder.glob("*.yaml")}
    lines = [f"{method} {folder / name}" for name, method in names.items() if method in METHODS]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(verdicts) == len(lines), done.stderr
    # Keys for `accelerate launch` are no business of the parser.
    wrong = {
        Path(path).name: said for path, said in verdicts.items() if said != "[]" and "packed" not in path
    }
    assert wrong == {}


def test_a_missing_trainer_is_a_preflight_error(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("a: 1\n", encoding="utf-8")
    with pytest.raises(PreflightError, match="parser"):
        run_trl_parser(config, "sft", python=str(tmp_path / "no-python"))
    with pytest.raises(PreflightError, match="could not run"):
        run_trl_parser(config, "sft", python="/bin/false")
