"""The generated pages are what the code would generate now."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from rdagent_ft.evaluation.benchmark_registry import ALIASES, BENCHMARKS
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
    settings_of_recipes = {"data.dedupe", "data.exclude_sources", "data.max_row_tokens", "data.script"}
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


def test_env_example_with_every_line_active_gives_the_defaults(repository: Path, tmp_path: Path) -> None:
    text = (repository / ".env.example").read_text()
    active = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# FT_"))
    env_file = tmp_path / "all.env"
    env_file.write_text(active)
    loaded = load_settings(env_file=env_file, environ={})
    for name in Settings.model_fields:
        assert getattr(loaded.settings, name) == Settings.model_fields[name].default, name
