"""The generated pages are what the code would generate now."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from rdagent_ft.evaluation.benchmark_registry import ALIASES, BENCHMARKS
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.fields import models
from rdagent_ft.recipe.rewards import Reward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import STAGE_CLASSES, LoraAdapter
from rdagent_ft.recipe.validate import read_recipe
from rdagent_ft.settings import Settings
from rdagent_ft.settings_sources import load_settings


def _generator(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", repository / "scripts" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pages_are_current(repository: Path) -> None:
    for path, text in _generator(repository).pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make docs`"


FILE_ENDINGS = {"csv", "db", "json", "jsonl", "lock", "log", "md", "py", "sh", "sock", "txt", "yaml"}


def test_every_class_in_the_code_is_on_the_page_of_failures(repository: Path) -> None:
    """Found here by their text, there by the call that they are an argument of."""
    page = (repository / "docs" / "failures.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z]+\.[a-z_*]+)`", page, flags=re.M))
    families = {name.partition(".")[0] for name in listed}
    settings_of_recipes = {f"data.{name}" for name in DataMix.model_fields}
    for path in sorted((repository / "rdagent_ft").rglob("*.py")):
        for family, rest in re.findall(r"""["']([a-z]+)\.([a-z_]+)["']""", path.read_text("utf-8")):
            name = f"{family}.{rest}"
            if family in families and rest not in FILE_ENDINGS and name not in settings_of_recipes:
                assert name in listed, f"{name} of {path.name}"
    for name in ("benchmark.own_file", "compare.items", "serve.oom", "eval.adapter_nan", "config.packing"):
        assert name in listed, name


@pytest.mark.parametrize(
    ("code", "name", "rule"),
    [
        ("Problem('k', 1, 'is bad', 'demo.place', 'fix')", "demo.place", "is bad"),
        ("Problem(key='k', value=1, rule=r, problem_class='demo.key', fix='f')", "demo.key", ""),
        ("def f(problem_class='demo.default'): ...", "demo.default", ""),
        ("def f(a, name): Problem(a, a, 'r', f'demo.{name}', a)\nf(1, 'helped')", "demo.helped", ""),
        ("def g():\n c = 'demo.a' if 1 else 'demo.b'\n Failure(failure_class=c, message='m')", "demo.b", "m"),
        ("class C:\n def f(self, rule, problem_class): ...\nC().f(f'{1} x', 'demo.own')", "demo.own", "… x"),
        ("def f(e): Failure(failure_class=f'demo.{e.kind}')", "demo.*", ""),
        ("print('demo.no_class')", None, ""),
    ],
)  # fmt: skip
def test_classes_are_found_where_they_are_named(
    repository: Path, tmp_path: Path, code: str, name: str | None, rule: str
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "one.py").write_text(code)
    found = {named.name: named.rule for named in _generator(repository).classes_in(package)}
    assert found.get(name or "demo.no_class") == (rule if name else None)


def test_the_page_of_benchmarks_names_every_benchmark(repository: Path) -> None:
    page = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for each in BENCHMARKS.values():
        assert f"| `{each.name}` | {each.title} | {each.n_items:,} |" in page
        assert all(f"`{name}`" in page for name in (*each.guide_names, *each.files))
        assert all(f"`{name}/`" in page for name in each.folders)
    assert all(f"`{alias}`" in page for alias in ALIASES)


def test_prose_around_the_generated_parts_is_kept(repository: Path, tmp_path: Path) -> None:
    generator = _generator(repository)
    page = tmp_path / "page.md"
    text = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    page.write_text(re.sub(r"(<!-- generated: \w+ -->\n).*?(<!-- end -->)", r"\1old\2", text, flags=re.S))
    assert generator.benchmarks_page(page) == text
    page.write_text(text.replace("<!-- generated: suites -->", ""))
    with pytest.raises(LookupError, match="0 parts suites"):
        generator.benchmarks_page(page)


def _recipes_page(repository: Path) -> str:
    return (repository / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_every_recipe_on_the_page_validates_and_every_kind_is_there_in_full(repository: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", _recipes_page(repository), flags=re.M | re.S)
    recipes = [read_recipe(block, "recipe.yaml") for block in blocks]
    assert all(isinstance(recipe, Recipe) for recipe in recipes), recipes
    for kind, model in STAGE_CLASSES.items():
        full = [block for block in blocks if f"kind: {kind}\n" in block or f"kind: {kind}}}" in block]
        assert any(all(f"{name}: " in block for name in model.model_fields) for block in full), kind


def test_the_page_of_recipes_explains_every_field(repository: Path) -> None:
    page = _recipes_page(repository)
    for model in (*STAGE_CLASSES.values(), LoraAdapter, DataMix, *models(Reward).values()):
        for name in set(model.model_fields) - {"kind"}:
            assert re.search(rf"\| `{name}` \|", page), f"{model.__name__}.{name}"
    for kind in models(Reward):
        assert f"\n| `{kind}` |" in page


def test_the_rows_on_the_page_of_recipes_are_what_the_trainers_read(repository: Path) -> None:
    page = _recipes_page(repository)
    columns = {"sft": "completion", "dpo": "rejected", "kto": "label", "reward": "chosen", "grpo": "gold"}
    for kind, column in columns.items():
        part = page.partition(f"<!-- generated: {kind} -->")[2].partition("<!-- end -->")[0]
        rows = [json.loads(line) for line in part.splitlines() if line.startswith('{"')]
        assert any(column in row for row in rows), kind


def test_a_method_of_a_class_in_another_file_hands_classes_on(repository: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "one.py").write_text("class C:\n def made(self, rule, kind): Problem('k', 1, rule, kind, 'f')")
    (package / "two.py").write_text("def f(check): check.made('is bad', 'demo.far')")
    found = {named.name: (named.rule, named.file) for named in _generator(repository).classes_in(package)}
    assert found["demo.far"] == ("is bad", "package/two.py")


@pytest.mark.parametrize(
    ("first", "then", "adapter", "answer"),
    [
        ("sft", "dpo", "lora", "merge between"),
        ("sft", "dpo", "full", "yes"),
        ("dpo", "sft", "full", "no"),
        ("reward", "grpo", "lora", "yes"),
        ("merge", "merge", "lora", "no"),
        ("sft", "merge", "full", "no"),
    ],
)
def test_the_table_of_orders_is_that_of_the_rules(
    repository: Path, first: str, then: str, adapter: str, answer: str
) -> None:
    _generator(repository)
    from recipe_tables import pair_answer  # beside the generator, which puts its folder on the path

    found, reason = pair_answer(first, then, adapter)
    assert found == answer
    assert bool(reason) == (answer != "yes")


def test_a_field_without_a_meaning_is_no_page(repository: Path) -> None:
    _generator(repository)
    from recipe_tables import meaning_of

    class Unexplained(LoraAdapter):
        nowhere: int = 1

    with pytest.raises(LookupError, match=r"Unexplained\.nowhere has no meaning"):
        meaning_of(Unexplained, "nowhere")
    assert meaning_of(Unexplained, "r")


def test_env_example_with_every_line_active_gives_the_defaults(repository: Path, tmp_path: Path) -> None:
    text = (repository / ".env.example").read_text()
    active = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# FT_"))
    env_file = tmp_path / "all.env"
    env_file.write_text(active)
    loaded = load_settings(env_file=env_file, environ={})
    for name in Settings.model_fields:
        assert getattr(loaded.settings, name) == Settings.model_fields[name].default, name
