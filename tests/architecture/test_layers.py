"""The structure that DESIGN promises: imports point down, no cycles, small files, light start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "rdagent_ft"
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "values", "__init__", "shipped", "tensor_files"}),
    frozenset({"settings", "settings_sources"}),
    frozenset({"answers", "recipe", "data", "execution", "llm", "knowledge"}),
    frozenset({"planning", "training", "evaluation", "reporting"}),
    frozenset({"demo"}),
    frozenset({"engine"}),
    frozenset({"cli"}),
    frozenset({"loop"}),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
IN_JOBS = {
    *(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*_job.py")),
    "training/tiny.py",
    "training/model_logits.py",
    "training/llamafactory_checks.py",
    "training/llamafactory_watch.py",
    *(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "training").glob("*_run.py")),
    "training/metrics_callback.py",
    "evaluation/lm_eval_answer.py",
    "evaluation/lm_eval_model.py",
    "evaluation/lm_eval_vllm.py",
    "evaluation/endpoint/lm_eval_api.py",
    "demo/base_model.py",
}
"""What only ever runs inside a job."""
HANDED_ON = {"within.py"}
"""A worker thread hands whatever it met to the thread that waits for it."""
ONE_ADAPTER = {
    "openai": "llm/openai_client.py",
    "litellm": "llm/litellm_client.py",
    "optuna": "planning/tpe.py",
}
JOB_ONLY = {
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "lm_eval", "math_verify", "langdetect",
    "nltk",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """All dotted names a file imports, at any depth, `from a import b` giving `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    own = RANK[unit(module_name(path))]
    for name in imported(path):
        if name.startswith("rdagent_ft."):
            assert RANK.get(unit(name), -1) <= own, f"{path.name} imports {name} from a layer above"


def test_no_import_cycles() -> None:
    known = {module_name(path) for path in modules()}
    graph = {
        module_name(p): {n for n in imported(p) if n in known and n != module_name(p)} for p in modules()
    }
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, f"import cycle: {' -> '.join((*trail, name))}"
        state[name] = 1
        for other in sorted(graph[name]):
            visit(other, (*trail, name))
        state[name] = 2

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, "one file, one job: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, f"{node.name} is too long"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_heavy_packages_have_one_door(path: Path) -> None:
    relative = path.relative_to(PACKAGE).as_posix()
    roots = {name.split(".")[0] for name in imported(path)}
    for package, door in ONE_ADAPTER.items():
        assert package not in roots or relative == door, f"{package} belongs into {door} alone"
    if relative not in IN_JOBS:
        assert not roots & JOB_ONLY, f"{roots & JOB_ONLY} belong into job scripts"


def test_no_name_at_the_top_shadows_a_dependency() -> None:
    """`python rdagent_ft/loop.py` puts this folder on the path before it is replaced."""
    from importlib.metadata import packages_distributions

    ours = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not ours & set(packages_distributions()), ours & set(packages_distributions())


def test_catch_alls_stand_nowhere() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and path.name not in HANDED_ON:
                names = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"bare"}
                )
                ends_in_raise = isinstance(node.body[-1], ast.Raise)
                assert ends_in_raise or not names & {"bare", "Exception", "BaseException"}, (
                    f"{path}:{node.lineno}"
                )


@pytest.mark.parametrize("module", ["rdagent_ft.cli.main", "rdagent_ft.engine.start"])
def test_the_controller_starts_without_torch(module: str) -> None:
    script = f"import sys, {module}; print(sorted(set(sys.modules) & {JOB_ONLY!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, rdagent_ft.cli.main;"
        "heavy = {'numpy', 'scipy', 'pydantic', 'optuna', 'openai', 'litellm', 'jinja2'};"
        "print(sorted(set(sys.modules) & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
