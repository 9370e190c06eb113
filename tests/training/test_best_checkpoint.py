"""Held-out rows and the best checkpoint: real TRL trainings of tiny models, as the recipes render them."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_jobs import submit, wait, write_rows
from stage_trainings import ANIMALS, COLOURS, prompt_of

from rdagent_ft.execution.outputs import read_json_lines, read_log
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.training.failures import classify
from rdagent_ft.training.held_out import hold_out
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_failure, read_train_result, stage_argv

RUN_ALL = """
import json, os, sys
from rdagent_ft.training import stage_job
for kind, config in json.load(sys.stdin):
    os.chdir(os.path.dirname(config))
    sys.argv = ["stage_job", "--kind", kind, "--config", config]
    try:
        stage_job.main()
        print("DONE", kind)
    except SystemExit as error:
        print("ENDED", kind, error.code)
"""
METRIC = {"sft": "eval_loss", "dpo": "eval_rewards/accuracies", "kto": "eval_loss", "reward": "eval_loss"}
OVERFITS: dict[str, Any] = {
    "kind": "sft", "adapter": {"kind": "lora", "r": 16}, "learning_rate": 2e-2, "lr_scheduler": "constant",
    "warmup_ratio": 0.0, "effective_batch": 8, "micro_batch": 8, "max_length": 64, "eval_share": 0.25,
}  # fmt: skip
"""Random answers are learnt by heart: what is held out gets better first, by its form, and then worse."""
PAIRED: dict[str, Any] = OVERFITS | {"learning_rate": 5e-3, "max_steps": 10}


def noise() -> list[dict[str, Any]]:
    generator = random.Random(0)
    return [
        {
            "prompt": f"{prompt_of(generator.choice(COLOURS), generator.choice(ANIMALS))} {number}",
            "completion": f" {generator.choice(ANIMALS)} is {generator.choice(COLOURS)}",
        }
        for number in range(48)
    ]


def rows_of(kind: str) -> list[dict[str, Any]]:
    if kind == "sft":
        return noise()
    prompts = [
        f"{prompt_of(colour, animal)} {n}" for n in range(4) for colour in COLOURS for animal in ANIMALS
    ]
    if kind == "kto":
        return [
            {"prompt": prompt, "completion": answer, "label": answer == " red owl"}
            for prompt in prompts
            for answer in (" red owl", " blue cat")
        ]
    return [{"prompt": prompt, "chosen": " red owl", "rejected": " blue cat"} for prompt in prompts]


def config(folder: Path, model: Path, rows: list[dict[str, Any]], stage: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    paths = StagePaths(
        model=model, train_file=write_rows(folder / "rows.jsonl", rows), output_dir=Path("output")
    )
    recipe = Recipe.model_validate({"stages": [stage]})
    facts = RenderFacts(device="cpu", n_train_rows=len(rows))
    text = render_stage(recipe, 0, paths=paths, facts=facts).text
    (folder / "config.yaml").write_text(text)
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def trained(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each case; all in one process, because starting costs the most."""
    root = tmp_path_factory.mktemp("held-out")
    cases = {
        "sft": OVERFITS | {"max_steps": 50, "keep": "best"},
        "sft-last": OVERFITS | {"max_steps": 50},
        "dpo": PAIRED | {"kind": "dpo", "keep": "best"},
        "kto": PAIRED | {"kind": "kto", "keep": "best"},
        "reward": PAIRED | {"kind": "reward", "keep": "best"},
    }
    asked: list[tuple[str, str]] = []
    for name, stage in cases.items():
        kind = str(stage["kind"])
        asked.append((kind, str(config(root / name, random_model, rows_of(kind), stage))))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_ALL],
        input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith(("DONE", "ENDED"))]
    assert said == [f"DONE {kind}" for kind, _ in asked], done.stdout[-2000:] + done.stderr[-3000:]
    return {name: root / name for name in cases}


def measured(folder: Path, metric: str = "eval_loss") -> dict[int, float]:
    """Step -> what the metrics file says of the held-out rows."""
    lines = read_json_lines(folder, "metrics.jsonl")
    return {line["step"]: line[metric] for line in lines if metric in line}


def weights(folder: Path, name: str = "adapter_model.safetensors") -> bytes:
    return (folder / name).read_bytes()


@pytest.mark.train
def test_the_best_checkpoint_is_kept_and_not_the_last(trained: dict[str, Path]) -> None:
    folder = trained["sft"]
    result, losses = read_train_result(folder), measured(folder)
    best = min(losses, key=losses.__getitem__)
    assert sorted(losses) == [10, 20, 30, 40, 50]
    assert best < 50
    assert losses[50] > losses[best] + 0.1
    assert result.kept is not None
    assert (result.kept.step, result.kept.best_step, result.kept.metric) == (best, best, "eval_loss")
    assert result.kept.best_value == pytest.approx(losses[best])
    assert weights(folder / "adapter") == weights(folder / "output" / f"checkpoint-{best}")
    assert weights(folder / "adapter") != weights(folder / "output" / "checkpoint-50")
    assert sorted(path.name for path in (folder / "output").glob("checkpoint-*")) == sorted(
        [f"checkpoint-{best}", "checkpoint-50"]
    )


@pytest.mark.train
def test_without_keep_best_the_last_weights_are_left_and_the_best_is_named(trained: dict[str, Path]) -> None:
    folder = trained["sft-last"]
    result, losses = read_train_result(folder), measured(folder)
    assert result.kept is not None
    assert (result.kept.step, result.kept.best_step) == (50, min(losses, key=losses.__getitem__))
    assert weights(folder / "adapter") == weights(folder / "output" / "checkpoint-50")


@pytest.mark.train
@pytest.mark.parametrize("kind", METRIC)
def test_every_kind_is_measured_on_rows_that_it_does_not_train(kind: str, trained: dict[str, Path]) -> None:
    folder = trained[kind]
    result, values = read_train_result(folder), measured(folder, METRIC[kind])
    n_rows = len(rows_of(kind))
    assert result.kept is not None
    assert result.kept.metric == METRIC[kind]
    assert result.n_rows + result.kept.n_held_out == n_rows
    assert result.kept.n_held_out == round(n_rows * 0.25)
    assert len(values) == 5
    assert result.kept.best_value == pytest.approx(values[result.kept.step])
    assert result.kept.step in values
    wanted = max(values.values()) if kind == "dpo" else min(values.values())
    assert values[result.kept.step] == wanted
    assert result.metrics[METRIC[kind]][1] == pytest.approx(values[max(values)])
    assert not any("runtime" in name for line in read_json_lines(folder, "metrics.jsonl") for name in line)


@pytest.mark.train
def test_a_measurement_is_no_training_log(trained: dict[str, Path]) -> None:
    lines = read_json_lines(trained["sft"], "metrics.jsonl")
    assert len(lines) == 50 + 5  # every step is logged, as the templates say for a run of 50
    assert not any("loss" in line for line in lines if "eval_loss" in line)
    assert read_health(trained["sft"] / "metrics.jsonl").n_steps == 50


@pytest.mark.train
def test_a_killed_training_goes_on_and_still_keeps_the_best(random_model: Path, tmp_path: Path) -> None:
    """The best checkpoint is from before the kill: the second attempt must find and keep it."""
    stage = OVERFITS | {"adapter": {"kind": "full"}, "learning_rate": 3e-3, "max_steps": 200, "keep": "best"}
    path = config(tmp_path, random_model, noise(), stage)
    executor, handle = submit(tmp_path, stage_argv("sft", path))
    while not (tmp_path / "output" / "checkpoint-80" / "trainer_state.json").exists():
        assert executor.poll(handle).state == "running", executor.collect(handle).log_tail
        time.sleep(0.01)
    child, _, _ = json.loads((tmp_path / ".jobs" / "test-1" / "child.json").read_text())
    os.kill(child, signal.SIGKILL)
    assert wait(executor, handle).failure_class == "resource"
    assert not (tmp_path / "model").exists()
    result = wait(*submit(tmp_path, stage_argv("sft", path), "test-2"))
    assert result.failure_class == "ok", result.log_tail
    trained, losses = read_train_result(tmp_path), measured(tmp_path)
    assert trained.resumed_from_step is not None
    assert 80 <= trained.resumed_from_step < 200
    assert trained.n_steps == 200
    assert sorted(losses) == [40, 80, 120, 160, 200]
    assert trained.kept is not None
    assert trained.kept.step == min(losses, key=losses.__getitem__) == 40
    name = "model.safetensors"
    assert weights(tmp_path / "model", name) == weights(tmp_path / "output" / "checkpoint-40", name)
    assert math.isclose(trained.metrics["eval_loss"][0], losses[40])


@pytest.mark.train
def test_rows_of_one_prompt_alone_cannot_be_held_out(random_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Answer:", "completion": f" {animal} is red"} for animal in ANIMALS * 4]
    path = config(tmp_path, random_model, rows, OVERFITS | {"max_steps": 5, "keep": "best"})
    result = wait(*submit(tmp_path, stage_argv("sft", path)))
    assert result.exit_code == 3
    failure = classify(read_log(tmp_path / "job.log"), result=result, failure_json=read_failure(tmp_path))
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("data.too_few", "candidate")
    assert "same prompt" in failure.message


ROWS = st.lists(st.integers(0, 12), min_size=2, max_size=60).map(
    lambda prompts: [{"prompt": f"p{n}", "completion": str(place)} for place, n in enumerate(prompts)]
)


@given(ROWS, st.floats(0.01, 0.3), st.integers(0, 99))
@settings(deadline=None)
def test_no_prompt_is_on_both_sides_and_the_order_of_rows_means_nothing(
    rows: list[dict[str, Any]], share: float, seed: int
) -> None:
    if len({row["prompt"] for row in rows}) < 2:
        with pytest.raises(ValueError, match="same prompt"):
            hold_out(rows, share, seed)
        return
    split = hold_out(rows, share, seed)
    assert split.train
    assert split.held_out
    assert not {row["prompt"] for row in split.train} & {row["prompt"] for row in split.held_out}
    by_place = sorted(split.train + split.held_out, key=lambda row: int(row["completion"]))
    assert by_place == rows
    turned = hold_out(rows[::-1], share, seed)
    assert {row["prompt"] for row in turned.held_out} == {row["prompt"] for row in split.held_out}


def test_conversations_are_grouped_by_what_stands_before_the_last_answer() -> None:
    def turns(question: str, answer: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    rows = [turns(f"q{n // 2}", str(n)) for n in range(20)]
    split = hold_out(rows, 0.3, 1)
    questions = [{row["messages"][0]["content"] for row in side} for side in split]
    assert not questions[0] & questions[1]
    assert len(split.held_out) == 6
    assert hold_out(rows, 0.3, 2).held_out != split.held_out
