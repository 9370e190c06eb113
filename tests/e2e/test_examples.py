"""The shipped pipelines: their smoke scripts as real runs, their real sizes as far as no GPU is needed.

What is measured is whether training changed what it should. A tiny model may or may not be accepted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from rdagent_ft.cli.main import app, main
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import LoraAdapter, SftStage
from rdagent_ft.recipe.validate import read_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINES = REPOSITORY / "examples" / "pipelines"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
AGENTS = ("router-agent", "math-agent", "code-agent")
SCRIPTS = sorted(PIPELINES.glob("*/*.sh"))
RECIPES = sorted(PIPELINES.glob("*/*.yaml"))
PAGES = [*SCRIPTS, *sorted(PIPELINES.glob("**/*.md")), REPOSITORY / "docs" / "pipelines.md"]
GPU_NODE = RuleFacts(
    device="cuda", n_gpus=1, bitsandbytes=True, vllm=True, can_contain=True, has_tests=True,
    has_preferences=True, has_scorer=True,
)  # fmt: skip
train = pytest.mark.train
long = pytest.mark.timeout(2400)  # a minute or two on quiet cores, many on busy ones
SIZES = {"FT_DEV_ITEMS": "20", "FT_VAL_ITEMS": "60", "FT_TEST_ITEMS": "40", "OMP_NUM_THREADS": "1"}


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def recipe_of(path: Path) -> Recipe:
    found = read_recipe(path.read_text(), name=path.name)
    assert isinstance(found, Recipe), found
    return found


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipes_are_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(path)])
    assert ended.value.code == 0, capsys.readouterr().out
    n_gpus = 8 if path.parent.name == "sft-dpo-ifeval" and not path.name.startswith("smoke") else 1
    facts = GPU_NODE.model_copy(update={"n_gpus": n_gpus})
    assert check_recipe(recipe_of(path), facts) == []


@pytest.mark.parametrize("agent", AGENTS)
def test_agents_are_trained_as_the_document_says(agent: str) -> None:
    for path in (PIPELINES / agent).glob("*.yaml"):
        first = recipe_of(path).stages[0]
        assert isinstance(first, SftStage)
        assert isinstance(first.adapter, LoraAdapter)
        assert (first.adapter.r, first.adapter.target_modules) == (16, PROJECTIONS)
        assert first.warmup_ratio == 0.1
        if path.name in ("recipe.yaml", "recipe-qlora.yaml"):
            assert first.epochs == 3


def test_the_chain_is_the_documents() -> None:
    sft, first_merge, dpo, last_merge = recipe_of(PIPELINES / "sft-dpo-ifeval" / "recipe.yaml").stages
    assert [stage.kind for stage in (sft, first_merge, dpo, last_merge)] == ["sft", "merge", "dpo", "merge"]
    assert isinstance(sft, SftStage)
    assert dpo.kind == "dpo"
    assert (dpo.learning_rate, dpo.seed, dpo.adapter.kind, sft.seed) == (2e-6, 42, "lora", 42)


def commands_of(path: Path) -> list[list[str]]:
    """Return the commands of this program in a script or page, as a shell passes them; variables are `7`."""
    text = path.read_text().replace("\\\n", " ")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.S))
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    while re.search(r"\$\([^()]*\)", text):
        text = re.sub(r"\$\([^()]*\)", "7", text)
    text = re.sub(r"\$\w+|\$\{\w+\}", "7", text)
    found: list[list[str]] = []
    for line in text.splitlines():
        match = re.search(r"(?:^|\s)rdagent-ft (.*)", line)
        if match:
            words = shlex.split(match.group(1), comments=True)
            cut = next((i for i, word in enumerate(words) if word in (">", "|", "&&", "\\")), len(words))
            found.append(words[:cut])
    return found


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_shown_commands_are_understood(path: Path) -> None:
    commands = commands_of(path)
    assert commands or path.suffix == ".md"
    for words in commands:
        command: click.Command = typer.main.get_command(app)
        context = click.Context(command, info_name="rdagent-ft")
        rest = words
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, rest)
            assert command is not None, words
            context = click.Context(command, info_name=name, parent=context)
        assert command is not None
        command.make_context(str(context.info_name), list(rest), parent=context.parent)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_scripts_name_files_that_exist(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert os.access(path, os.X_OK)
    for named in re.findall(r"examples/pipelines/[\w/.-]+\.(?:py|yaml|json)", text):
        assert (REPOSITORY / named).is_file(), named
    for named in re.findall(r"\$here/([\w.-]+\.(?:py|yaml|json))", text):
        assert (path.parent / named).is_file(), named


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FT_FILE_PATH of all pipelines: the tiny model is made once."""
    return tmp_path_factory.mktemp("pipelines")


def shell(files: Path, *argv: str, **extra: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FT_") and "API_KEY" not in k}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**kept, **SIZES, "FT_FILE_PATH": str(files), "PATH": path, "HF_HUB_OFFLINE": "1", **extra}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=files, timeout=2300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def smoke(files: Path, pipeline: str, **extra: str) -> str:
    return shell(files, "bash", str(PIPELINES / pipeline / "smoke.sh"), **extra)


def stages_of(document: Path) -> list[dict[str, Any]]:
    """Return what the stages of a run's loop 0 recorded."""
    run_dir = json.loads(document.read_text())["run_dir"]
    with sqlite3.connect(f"file:{run_dir}/run.db?mode=ro", uri=True) as connection:
        (text,) = connection.execute("SELECT output FROM steps WHERE loop = 0 AND step = 'train'").fetchone()
    output = json.loads(text)
    assert output["failure"] is None, output["failure"]
    return output["stages"]


def has_learnt(stage: dict[str, Any]) -> bool:
    return stage["health"]["last_loss"] < 0.8 * stage["health"]["first_loss"]


def rows_in(folder: Path) -> dict[str, int]:
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    return {name: part["n_rows"] for name, part in parts.items()}


@train
@long
def test_the_router_agent(files: Path) -> None:
    said = smoke(files, "router-agent")
    work = files / "pipelines" / "router-agent"
    assert rows_in(files / "datasets/examples/router-agent") == {"train": 850, "validation": 100, "test": 50}
    assert sum(rows_in(work / "thinking").values()) == 200
    row = json.loads((work / "thinking" / "train.jsonl").read_text().splitlines()[0])
    assert row["completion"][-1]["content"].startswith("<think>\nThis belongs to")
    (stage,) = stages_of(work / "run.json")
    assert has_learnt(stage)
    document = json.loads((work / "run.json").read_text())
    samples = Path(document["run_dir"]) / "baseline" / "eval" / "router-test-test" / "samples.jsonl"
    assert len(samples.read_text().splitlines()) == 50
    # Accepted or not, the script says what became of the model.
    assert ("nothing is sent" in said) == document["loops"][0]["status"].startswith("accepted")
    assert "nothing is sent" in said or "no candidate was accepted" in said


@train
@long
def test_the_math_agent(files: Path) -> None:
    smoke(files, "math-agent")
    assert rows_in(files / "datasets/examples/math-agent") == {"train": 450, "validation": 50}
    (stage,) = stages_of(files / "pipelines" / "math-agent" / "run.json")
    assert has_learnt(stage)


@train
@long
def test_the_code_agent(files: Path) -> None:
    smoke(files, "code-agent")
    work = files / "pipelines" / "code-agent"
    assert json.loads((work / "check" / "result.json").read_text()) == {"n_rows": 400, "rewards": ["code"]}
    (stage,) = stages_of(work / "run.json")
    assert has_learnt(stage)
    document = json.loads((work / "run.json").read_text())
    assert document["loops"][0]["val"]["score"] > document["baseline"]["score"]


@pytest.fixture(scope="module")
def chain(files: Path) -> str:
    """The finished chain, served by vLLM where FT_TEST_SERVE names a Python with it."""
    serve = os.environ.get("FT_TEST_SERVE")
    return smoke(files, "sft-dpo-ifeval", **({} if serve is None else {"FT_SERVE_PYTHON": serve}))


@train
@long
def test_sft_merge_dpo_merge(files: Path, chain: str) -> None:
    assert "IFEval is skipped" in chain
    work = files / "pipelines" / "sft-dpo-ifeval"
    sft, first_merge, dpo, last_merge = stages_of(work / "run.json")
    assert has_learnt(sft)
    assert (dpo["parent"], dpo["reference"]) == (2, "stage 2")
    assert 180 <= dpo["n_rows"] <= 190, "the training part of the pairs, without copies of held-out rows"
    first, last = dpo["metrics"]["rewards/margins"]
    assert last > first
    run_dir = Path(json.loads((work / "run.json").read_text())["run_dir"])
    for merged in (first_merge, last_merge):
        assert (run_dir / merged["weights"] / "config.json").is_file()
    samples = run_dir / "baseline" / "eval" / "items-test" / "samples.jsonl"
    assert len(samples.read_text().splitlines()) == 24


@train
@long
@pytest.mark.real_data
def test_ifeval_of_the_chain(files: Path, chain: str, shared_data: Path) -> None:
    benchmarks = files / "benchmarks"
    for name, file in (("ifeval", "input_data.jsonl"), ("gsm8k", "test.jsonl")):
        (benchmarks / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_data / name / file, benchmarks / name / file)
    punkt = benchmarks / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    shutil.copytree(next((shared_data / "nltk_punkt_tab").rglob("english")), punkt, dirs_exist_ok=True)
    where = (
        sys.executable,
        str(PIPELINES / "where.py"),
        str(files / "pipelines" / "sft-dpo-ifeval" / "run.json"),
    )
    model = shell(files, *where, "--stage", "4").strip()
    shell(
        files, "rdagent-ft", "benchmark", model, "--base", str(files / "models/examples/tiny"),
        "--suite", "test", "--out", str(files / "results"), FT_EXECUTOR="local", FT_ALLOW_CPU="1",
    )  # fmt: skip
    (tuned,) = (files / "results" / "fine-tuned").iterdir()
    document = json.loads((tuned / "benchmark.json").read_text())
    assert (document["status"], document["benchmarks"]["ifeval"]["n"]) == ("ok", 5)


@train
@long
def test_baseline_sft_distillation_rlvr(files: Path) -> None:
    said = smoke(files, "baseline-sft-distill-rlvr")
    work = files / "pipelines" / "workflow"
    assert "decision:" in said, "the comparison of RLVR with SFT"
    (sft,) = stages_of(work / "sft.json")
    assert has_learnt(sft)
    (distilled,) = stages_of(work / "distill.json")
    assert distilled["health"]["last_loss"] < distilled["health"]["first_loss"]
    kinds = [stage["kind"] for stage in stages_of(work / "rlvr.json")]
    assert kinds[0] == "sft"
    assert "grpo" in kinds
    assert (
        "reward"
        in next(stage for stage in stages_of(work / "rlvr.json") if stage["kind"] == "grpo")["metrics"]
    )
    for method in ("sft", "distill", "rlvr"):
        pairs = json.loads((work / f"comparison-{method}.json").read_text())["pairs"]
        assert pairs["heldout/val"]["n_pairs"] == 60
