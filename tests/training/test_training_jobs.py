"""Real TRL trainings of a tiny random model through the local executor."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from local_jobs import run, submit, wait, write_config

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_json_lines, read_log
from rdagent_ft.execution.port import JobResult
from rdagent_ft.execution.weight_files import check_weights
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.training.failures import classify
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import (
    merge_argv,
    pretrain_argv,
    read_failure,
    read_merge_result,
    read_train_result,
    stage_argv,
    tiny_argv,
)
from rdagent_ft.values import sha256_file

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows `prompt`/`completion` whose answer follows from the prompt, and their texts."""
    folder = tmp_path_factory.mktemp("data")
    generator = random.Random(0)
    with (folder / "train.jsonl").open("w") as rows, (folder / "texts.jsonl").open("w") as texts:
        for _ in range(256):
            colour, animal = (
                generator.choice(["red", "green", "blue"]),
                generator.choice(["cat", "dog", "owl"]),
            )
            prompt, completion = f"Colour {colour}, animal {animal}. Answer:", f" {animal} is {colour}"
            rows.write(json.dumps({"prompt": prompt, "completion": completion, "item_id": "x"}) + "\n")
            texts.write(json.dumps({"text": prompt + completion}) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny(data: Path) -> Path:
    """One tiny random model for all tests of this file."""
    spec = {"out": "tiny", "texts": str(data / "texts.jsonl"), "vocab_size": 400, "hidden": 48}
    (data / "spec.json").write_text(json.dumps(spec))
    result = run(data, tiny_argv(data / "spec.json"))
    assert result.failure_class == "ok", result.log_tail
    return data / "tiny"


def config_file(folder: Path, tiny: Path, **changes: Any) -> Path:
    sizes: dict[str, Any] = {
        "lora_r": 8,
        "lora_alpha": 16,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 16,
        "max_steps": 30,
        "max_length": 64,
    }
    return write_config(folder, tiny, tiny.parent / "train.jsonl", **sizes | changes)


def failure_of(folder: Path, result: JobResult) -> Failure | None:
    return classify(
        read_log(folder / "job.log"),
        result=result,
        health=read_health(folder / "metrics.jsonl"),
        failure_json=read_failure(folder),
    )


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA training."""
    folder = tmp_path_factory.mktemp("sft")
    result = run(folder, stage_argv("sft", config_file(folder, tiny)))
    assert result.failure_class == "ok", result.log_tail
    return folder


def test_the_loss_falls_and_the_result_is_complete(trained: Path) -> None:
    result = read_train_result(trained)
    assert (result.n_steps, result.weights, result.device) == (30, "adapter", "cpu")
    assert result.n_rows == result.n_rows_trained == 256
    assert 0.1 < result.share_tokens_trained < 0.6  # the prompt is masked
    assert result.share_rows_with_end == 1.0
    assert result.versions["trl"]
    health = read_health(trained / "metrics.jsonl")
    assert health.verdict == "ok"
    assert health.first_loss is not None
    assert health.last_loss is not None
    assert health.last_loss < health.first_loss - 0.3


def test_each_log_is_one_metrics_line(trained: Path) -> None:
    lines = read_json_lines(trained, "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 31))
    names = {"step", "max_steps", "epoch", "loss", "grad_norm", "learning_rate"}
    assert all(names | {"n_tokens", "elapsed_s", "eta_s"} <= set(line) for line in lines)
    assert lines[-1]["eta_s"] == 0.0
    assert lines[-1]["n_tokens"] == read_train_result(trained).n_tokens


def test_weights_hold_no_pickle_and_no_foreign_card(trained: Path) -> None:
    names = {path.name for path in (trained / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert not names & {"training_args.bin", "README.md"}


def test_what_our_jobs_leave_passes_the_judge_of_weights(trained: Path, tiny: Path, tmp_path: Path) -> None:
    (adapter,) = check_weights(trained, "adapter", base_model=tiny, kind="adapter")
    assert adapter.sha256 == sha256_file(trained / "adapter" / "adapter_model.safetensors")
    assert check_weights(tiny.parent, tiny.name, base_model=tiny, kind="model")
    assert run(tmp_path, merge_argv(tiny, Path("merged"), adapter=trained / "adapter")).failure_class == "ok"
    assert check_weights(tmp_path, "merged", base_model=tiny, kind="model")


def test_the_merged_model_equals_the_adapter(trained: Path, tiny: Path, tmp_path: Path) -> None:
    result = run(tmp_path, merge_argv(tiny, Path("merged"), adapter=trained / "adapter"))
    assert result.failure_class == "ok", result.log_tail
    merged = read_merge_result(tmp_path)
    assert merged.max_abs_diff <= 1e-5
    assert (merged.kind, merged.n_prompts) == ("merged", 8)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


def test_lr_1e6_is_a_failure_with_its_class(tiny: Path, tmp_path: Path) -> None:
    result = run(tmp_path, stage_argv("sft", config_file(tmp_path, tiny, learning_rate=1e6)))
    assert result.exit_code == 3
    assert not (tmp_path / "adapter").exists()
    failure = failure_of(tmp_path, result)
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("train.diverged", "candidate")
    # The metrics alone say the same, for a trainer that ends with 0.
    assert read_health(tmp_path / "metrics.jsonl").verdict == "diverged"
    with pytest.raises(JobError, match=r"result\.json"):
        read_train_result(tmp_path)


def test_full_training_saves_a_model_that_old_readers_understand(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    result = run(folder, stage_argv("sft", config_file(folder, tiny, use_peft=False, max_steps=5)))
    assert result.failure_class == "ok", result.log_tail
    assert read_train_result(folder).weights == "model"
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["rope_theta"] == 10000.0
    copied = run(tmp_path / "copy", merge_argv(tiny, Path("merged"), model=folder / "model"))
    assert copied.failure_class == "ok", copied.log_tail
    assert read_merge_result(tmp_path / "copy").max_abs_diff == 0.0


def test_a_killed_training_goes_on_from_its_checkpoint(tiny: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, tiny, max_steps=4000, save_strategy="steps", save_steps=50)
    executor, handle = submit(tmp_path, stage_argv("sft", config))
    while not (tmp_path / "trainer" / "checkpoint-50" / "trainer_state.json").exists():
        assert executor.poll(handle).state == "running", executor.collect(handle).log_tail
        time.sleep(0.02)
    child, _, _ = json.loads((tmp_path / ".jobs" / "test-1" / "child.json").read_text())
    os.kill(child, signal.SIGKILL)
    assert wait(executor, handle).failure_class == "resource"
    (tmp_path / "trainer" / "checkpoint-999999").mkdir()  # cut off while it was saved
    second, handle = submit(tmp_path, stage_argv("sft", config), "test-2")
    lines_before = len((tmp_path / "metrics.jsonl").read_text().splitlines())
    while len((tmp_path / "metrics.jsonl").read_text().splitlines()) <= lines_before + 1:
        assert second.poll(handle).state == "running", second.collect(handle).log_tail
        time.sleep(0.02)
    second.cancel(handle)
    lines = read_json_lines(tmp_path, "metrics.jsonl", allow_cut_end=True)
    assert lines[lines_before]["step"] > 50
    assert not (tmp_path / "trainer" / "checkpoint-999999").exists()
    assert read_health(tmp_path / "metrics.jsonl").verdict == "ok"


def test_rows_without_room_for_the_answer_are_named(tiny: Path, tmp_path: Path) -> None:
    result = run(tmp_path, stage_argv("sft", config_file(tmp_path, tiny, max_length=8)))
    failure = failure_of(tmp_path, result)
    assert failure is not None
    assert failure.failure_class == "data.empty_after_filter"


def test_a_small_chat_model_is_trained_from_nothing(data: Path, tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
    }
    spec = {
        "texts": str(data / "texts.jsonl"),
        "tokenizer": None,
        "vocab_size": 320,
        "chat": True,
        "sizes": sizes,
        "trainer": {"max_steps": 25, "logging_steps": 5, "learning_rate": 1e-2, "use_cpu": True},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    result = run(tmp_path, pretrain_argv(tmp_path / "spec.json"))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert (trained.weights, trained.share_tokens_trained) == ("model", 1.0)
    health = read_health(tmp_path / "metrics.jsonl")
    assert health.first_loss is not None
    assert health.last_loss is not None
    assert health.last_loss < health.first_loss - 1.0
    assert math.isfinite(health.last_loss)
    check_chat_training(tmp_path / "model", tmp_path / "chat")


def check_chat_training(model: Path, folder: Path) -> None:
    """Train a few steps on chat rows; the program's rendered prompts are compared with the template."""
    folder.mkdir()
    turns = [{"role": "user", "content": "Colour red?"}]
    row = {"prompt": turns, "completion": [{"role": "assistant", "content": "owl"}]}
    (folder / "train.jsonl").write_text((json.dumps(row) + "\n") * 16)
    rendered = "<|im_start|>user\nColour red?<|im_end|>\n<|im_start|>assistant\n"
    (folder / "prompts.jsonl").write_text(json.dumps({"messages": turns, "text": rendered}) + "\n")
    datasets = [{"path": "json", "data_files": str(folder / "train.jsonl")}]
    config = config_file(folder, model, datasets=datasets, max_steps=2)
    result = run(folder, stage_argv("sft", config, prompts_check=folder / "prompts.jsonl"))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(folder)
    assert trained.share_rows_with_end == 1.0
    assert trained.share_tokens_trained < 0.5
    assert json.loads((folder / "result.json").read_text())["n_prompts_checked"] == 1
