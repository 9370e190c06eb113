"""Real LLaMA-Factory trainings of a tiny random model, through the jobs, in the trainer's environment.

scripts/llamafactory-ci.sh makes the environment; FT_TEST_LLAMAFACTORY names its Python.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from lf_families import FAMILIES, write_family

from rdagent_ft.recipe.llamafactory.chat_format import choose_template
from rdagent_ft.recipe.llamafactory.check import check_llamafactory_config
from rdagent_ft.recipe.llamafactory.dataset_info import PlainTexts, write_dataset
from rdagent_ft.recipe.llamafactory.parser import run_llamafactory_parser
from rdagent_ft.recipe.llamafactory.render import render_export, render_llamafactory
from rdagent_ft.recipe.render import RenderFacts, StagePaths
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    DpoStage,
    FullAdapter,
    KtoStage,
    LoraAdapter,
    RewardStage,
    SftStage,
)
from rdagent_ft.training.llamafactory_plan import llamafactory_argv, llamafactory_export_argv
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import MAX_LOGIT_DIFF, read_failure, read_merge_result, read_train_result
from rdagent_ft.training.tiny import make_tiny_model

PYTHON = os.environ.get("FT_TEST_LLAMAFACTORY")
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(
        PYTHON is None,
        reason="needs LLaMA-Factory: run scripts/llamafactory-ci.sh and set FT_TEST_LLAMAFACTORY",
    ),
]
REPOSITORY = Path(__file__).resolve().parents[2]
COMMON: dict[str, Any] = {
    "learning_rate": 1e-2, "max_steps": 20, "effective_batch": 16, "micro_batch": 8, "max_length": 64,
    "warmup_ratio": 0.0,
}  # fmt: skip
DPO = DpoStage(**{**COMMON, "learning_rate": 1e-3})


def facts_rows() -> list[tuple[str, str, str]]:
    generator = random.Random(0)
    rows: list[tuple[str, str, str]] = []
    for _ in range(128):
        colour = generator.choice(["red", "green", "blue"])
        animal = generator.choice(["cat", "dog", "owl"])
        rows.append(
            (f"Colour {colour}, animal {animal}. Answer:", f"{animal} is {colour}", f"{colour} {animal}")
        )
    return rows


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen3 with a ChatML template."""
    folder = tmp_path_factory.mktemp("lf") / "tiny"
    texts = [prompt + answer for prompt, answer, _ in facts_rows()]
    make_tiny_model(folder, texts, vocab_size=400, hidden=48, chat=True)
    return folder


def source_rows(kind: str, *, plain: bool) -> list[dict[str, Any]]:
    def turn(role: str, text: str) -> Any:
        return text if plain else [{"role": role, "content": text}]

    rows: list[dict[str, Any]] = []
    for number, (question, good, bad) in enumerate(facts_rows()):
        row: dict[str, Any] = {"prompt": turn("user", question)}
        if kind == "sft":
            row["completion"] = turn("assistant", good)
        elif kind == "kto":
            row |= {"completion": turn("assistant", (bad, good)[number % 2]), "label": number % 2 == 1}
        else:
            row |= {"chosen": turn("assistant", good), "rejected": turn("assistant", bad)}
        rows.append(row)
    return rows


def prepare(folder: Path, tiny: Path, stage: Any, plain: PlainTexts | None = None) -> Path:
    source = folder / "source.jsonl"
    rows = source_rows(stage.kind, plain=plain is not None)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "data").mkdir(exist_ok=True)
    config = folder / "config.yaml"
    rendered = render_llamafactory(
        Recipe(stages=(stage,)),
        0,
        paths=StagePaths(
            model=tiny,
            train_file=write_dataset(source, folder / "data", stage.kind, plain=plain),
            output_dir=Path("trainer"),
        ),
        facts=RenderFacts(device="cpu", n_train_rows=len(rows)),
        template=choose_template(tiny, "chat" if plain is None else "plain"),
    )
    config.write_text(rendered.text)
    return config


def run(folder: Path, argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [PYTHON or "python", *argv[1:]],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished SFT with LoRA."""
    folder = tmp_path_factory.mktemp("lf-sft")
    done = run(folder, llamafactory_argv(prepare(folder, tiny, SftStage(**COMMON))))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_loss_falls_and_the_result_is_complete(trained: Path, tiny: Path) -> None:
    result = read_train_result(trained)
    assert (result.stage, result.n_steps, result.weights, result.device) == ("sft", 20, "adapter", "cpu")
    assert result.n_rows == result.n_rows_trained == 128
    assert result.share_tokens_trained is not None
    assert 0.05 < result.share_tokens_trained < 0.4  # the prompt is masked
    assert result.share_rows_with_end == 1.0
    assert result.n_tokens
    assert result.versions["llamafactory"] == "0.9.5"
    health = read_health(trained / "metrics.jsonl")
    assert health.verdict == "ok"
    assert health.first_loss is not None
    assert health.last_loss is not None
    assert health.last_loss < health.first_loss - 0.3
    saved = {path.name for path in (trained / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= saved
    assert not saved & {"training_args.bin", "README.md"}
    assert (trained / "adapter" / "chat_template.jinja").read_text() == (
        tiny / "chat_template.jinja"
    ).read_text()


def test_the_merged_model_answers_as_base_and_adapter(trained: Path, tiny: Path) -> None:
    config = trained / "export.yaml"
    adapter, merged = trained / "adapter", trained / "merged"
    config.write_text(
        render_export(model=tiny, adapter=adapter, out=merged, template=choose_template(tiny, "chat"))
    )
    done = run(trained, llamafactory_export_argv(config))
    assert done.returncode == 0, done.stderr[-3000:]
    result = read_merge_result(trained)
    assert (result.kind, result.dtype) == ("merged", "float32")
    assert result.max_abs_diff < MAX_LOGIT_DIFF
    assert not (merged / "Modelfile").exists()
    from rdagent_ft.training.model_logits import folder_logits, largest_difference

    trained_away, _ = largest_difference(
        folder_logits(tiny), folder_logits(merged)
    )  # this environment reads it
    assert trained_away > 1e-3


def test_dpo_learns_to_prefer(tiny: Path, tmp_path: Path) -> None:
    done = run(tmp_path, llamafactory_argv(prepare(tmp_path, tiny, DPO)))
    assert done.returncode == 0, done.stderr[-3000:]
    result = read_train_result(tmp_path)
    assert (result.stage, result.reference) == ("dpo", "adapter_off")
    assert result.metrics["rewards/margins"][0] == 0.0  # policy and reference start equal
    assert result.metrics["rewards/margins"][1] > 0.05
    assert result.metrics["rewards/accuracies"][1] > 0.9
    assert result.metrics["loss"][1] < result.metrics["loss"][0]


def test_kto_learns_to_prefer(tiny: Path, tmp_path: Path) -> None:
    done = run(
        tmp_path, llamafactory_argv(prepare(tmp_path, tiny, KtoStage(**{**COMMON, "learning_rate": 1e-3})))
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = read_train_result(tmp_path).metrics
    assert metrics["rewards/chosen"][1] > 0 > metrics["rewards/rejected"][1]


def test_a_reward_model_learns_the_pairs(tiny: Path, tmp_path: Path) -> None:
    stage = RewardStage(**{**COMMON, "learning_rate": 1e-3}, center_rewards_coefficient=None)
    done = run(tmp_path, llamafactory_argv(prepare(tmp_path, tiny, stage)))
    assert done.returncode == 0, done.stderr[-3000:]
    result = read_train_result(tmp_path)
    assert result.metrics["loss"][1] < result.metrics["loss"][0] / 4
    assert (tmp_path / "adapter" / "value_head.safetensors").is_file()


def test_plain_rows_train_all_weights_and_the_end_token(tiny: Path, tmp_path: Path) -> None:
    stage = SftStage(**{**COMMON, "learning_rate": 1e-3, "max_steps": 15}, adapter=FullAdapter())
    config = prepare(tmp_path, tiny, stage, PlainTexts(end="<|im_end|>"))
    done = run(tmp_path, llamafactory_argv(config))
    assert done.returncode == 0, done.stderr[-3000:]
    result = read_train_result(tmp_path)
    assert (result.weights, result.share_rows_with_end) == ("model", 1.0)
    assert result.metrics["loss"][1] < result.metrics["loss"][0] - 0.5
    # Cut off after its first checkpoint, the same job goes on from there.
    shutil.rmtree(tmp_path / "trainer" / "checkpoint-15")
    done = run(tmp_path, llamafactory_argv(config))
    assert done.returncode == 0, done.stderr[-3000:]
    again = read_train_result(tmp_path)
    assert (again.resumed_from_step, again.n_steps) == (10, 15)
    assert again.metrics["loss"][1] == pytest.approx(result.metrics["loss"][1], rel=0.02)


def test_plain_rows_without_an_end_token_are_refused(tiny: Path, tmp_path: Path) -> None:
    done = run(tmp_path, llamafactory_argv(prepare(tmp_path, tiny, SftStage(**COMMON), PlainTexts())))
    assert done.returncode == 3
    assert (read_failure(tmp_path) or {})["class"] == "data.eos"


def test_prompts_that_are_served_differently_are_refused(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text("{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}" + template)
    done = run(tmp_path, llamafactory_argv(prepare(tmp_path, model, SftStage(**COMMON))))
    assert done.returncode == 3
    failure = read_failure(tmp_path) or {}
    assert failure["class"] == "data.template"
    assert "Be kind." in failure["evidence"]["expected"]
    assert not (tmp_path / "trainer").exists()


def test_the_trainers_parser_accepts_every_cell_and_refuses_what_we_refuse(tmp_path: Path) -> None:
    stages = (SftStage(), DPO, KtoStage(), RewardStage(center_rewards_coefficient=None))
    configs: list[Path] = []
    for family, stage, adapter in itertools.product(FAMILIES, stages, (LoraAdapter(), FullAdapter())):
        folder = tmp_path / family
        folder.mkdir(exist_ok=True)
        write_family(folder, family)
        paths = StagePaths(model=folder, train_file=folder / "train.jsonl", output_dir=folder / "trainer")
        recipe = Recipe(stages=(stage.model_copy(update={"adapter": adapter}),))
        for facts in (RenderFacts(device="cpu"), RenderFacts(device="cuda")):
            config = folder / f"{stage.kind}-{adapter.kind}-{facts.device}.yaml"
            template = choose_template(folder, "chat")
            config.write_text(
                render_llamafactory(recipe, 0, paths=paths, facts=facts, template=template).text
            )
            configs.append(config)
    export = tmp_path / "export.yaml"
    export.write_text(render_export(model=tmp_path, adapter=tmp_path, out=tmp_path / "out", template="qwen"))
    broken = tmp_path / "broken.yaml"
    broken.write_text(configs[0].read_text() + "lora_r: 8\nnonsense: 1\n")
    quantised = tmp_path / "quantised.yaml"
    quantised.write_text(configs[0].read_text().replace("lora  #", "full  #") + "quantization_bit: 4\n")
    found = run_llamafactory_parser([*configs, export, broken, quantised], python=PYTHON or "python")
    assert len(configs) == 7 * 4 * 2 * 2
    assert [path.name for path in (*configs, export) if found[path]] == []
    assert {problem.key for problem in found[broken]} == {"lora_r", "nonsense"}
    assert found[quantised]
    for path in (broken, quantised):
        assert check_llamafactory_config(yaml.safe_load(path.read_text()))


def test_the_catalogue_is_what_is_installed() -> None:
    script = REPOSITORY / "scripts" / "make_llamafactory_catalogue.py"
    done = run(REPOSITORY, ("python", str(script), "--check"))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


TRAINED_TOKENS = """
import sys
from pathlib import Path
from rdagent_ft.training.llamafactory_job import read_config
config = read_config(Path("config.yaml"))
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
model_args, data_args, training_args, _, _ = get_train_args(config)
module = load_tokenizer(model_args)
template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
trained = [token for token in rows[0]["labels"] if token != -100]
print("TRAINED", repr(module["tokenizer"].decode(trained)))
"""


@pytest.mark.parametrize(
    ("train_on", "wanted"),
    [
        ("last_turn", "'cat is red<|im_end|>\\n'"),
        ("assistant_turns", "'owl is blue<|im_end|>\\ncat is red<|im_end|>\\n'"),
    ],
)
def test_answers_alone_are_trained(tiny: Path, tmp_path: Path, train_on: Any, wanted: str) -> None:
    prepare(tmp_path, tiny, SftStage(**COMMON, train_on=train_on))
    turns = [
        ("user", "Colour blue"),
        ("assistant", "owl is blue"),
        ("user", "red"),
        ("assistant", "cat is red"),
    ]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (tmp_path / "source.jsonl").write_text(json.dumps(row) + "\n")
    write_dataset(tmp_path / "source.jsonl", tmp_path / "data", "sft")
    done = run(tmp_path, ("python", "-c", TRAINED_TOKENS))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"TRAINED {wanted}" in done.stdout
