"""Real trainings on a model's own samples, and the reward model they may ask."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from local_jobs import run
from stage_trainings import ANIMALS, PAIRS, config_file, prompt_of

from rdagent_ft.execution.outputs import read_json_lines, read_log
from rdagent_ft.execution.weight_files import check_weights
from rdagent_ft.training.failures import classify, match_log
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_failure, read_train_result, stage_argv

pytestmark = pytest.mark.train
PROMPTS: list[dict[str, Any]] = [
    {"prompt": prompt_of(colour, animal), "gold": "owl", "item_id": f"{colour} {animal}"}
    for colour, animal in PAIRS[:8]
]
GROUPS: dict[str, Any] = {
    "num_generations": 8,
    "max_completion_length": 12,
    "per_device_train_batch_size": 16,
    "max_steps": 15,
}


def rewards_file(folder: Path, *declared: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rewards.json"
    path.write_text(json.dumps(declared))
    return path


@pytest.fixture(scope="module")
def reward_run(merged_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that likes owls, trained as an adapter."""
    rows = [
        {"prompt": prompt_of(*pair), "chosen": f" owl is {pair[0]}", "rejected": f" {other} is {pair[0]}"}
        for pair in PAIRS
        for other in ANIMALS[:2]
    ]
    folder = tmp_path_factory.mktemp("reward")
    config = config_file(folder, merged_model, rows, per_device_train_batch_size=18, max_steps=30)
    result = run(folder, stage_argv("reward", config))
    assert result.failure_class == "ok", result.log_tail
    return folder


def test_a_reward_model_is_a_whole_classifier_that_orders_the_pairs(
    reward_run: Path, merged_model: Path
) -> None:
    result = read_train_result(reward_run)
    assert (result.stage, result.weights, result.reference) == ("reward", "model", None)
    assert result.metrics["accuracy"][1] == 1.0
    assert result.metrics["margin"][1] > result.metrics["margin"][0] + 1.0
    config = json.loads((reward_run / "model" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    assert len(config["id2label"]) == 1
    assert check_weights(reward_run, "model", base_model=merged_model, kind="model")
    assert not (reward_run / "reward-adapter").exists()
    assert read_health(reward_run / "metrics.jsonl", "reward").verdict == "ok"


def test_a_reward_model_of_all_weights_is_a_classifier_too(merged_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "chosen": " owl", "rejected": " cat"} for row in PROMPTS]
    config = config_file(tmp_path, merged_model, rows, use_peft=False, learning_rate=1e-3, max_steps=6)
    result = run(tmp_path, stage_argv("reward", config))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert trained.weights == "model"
    assert trained.metrics["loss"][1] < trained.metrics["loss"][0]
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["architectures"] == ["Qwen3ForSequenceClassification"]


def test_grpo_raises_the_reward(merged_model: Path, tmp_path: Path) -> None:
    rewards = rewards_file(tmp_path, {"kind": "regex", "pattern": "owl", "weight": 2.0})
    config = config_file(tmp_path, merged_model, PROMPTS, **GROUPS)
    result = run(tmp_path, stage_argv("grpo", config, rewards=rewards))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert (trained.stage, trained.weights, trained.share_tokens_trained) == ("grpo", "adapter", None)
    assert trained.reference is None  # beta is 0
    lines = read_json_lines(tmp_path, "metrics.jsonl")
    means = [line["rewards/regex/mean"] for line in lines]
    assert fmean(means[-3:]) > fmean(means[:3]) + 0.2
    assert lines[0]["reward"] == pytest.approx(2 * means[0])  # weighted
    names = {"reward_std", "frac_reward_zero_std", "entropy", "completions/clipped_ratio"}
    assert all(names <= set(line) for line in lines)
    assert read_health(tmp_path / "metrics.jsonl", "grpo").verdict == "ok"


def test_grpo_asks_the_reward_model_beside_other_rewards(
    merged_model: Path, reward_run: Path, tmp_path: Path
) -> None:
    rewards = rewards_file(
        tmp_path, {"kind": "reward_model", "weight": 0.5}, {"kind": "regex", "pattern": "owl"}
    )
    config = config_file(tmp_path, merged_model, PROMPTS, **GROUPS | {"max_steps": 12, "beta": 0.01})
    argv = stage_argv("grpo", config, rewards=rewards, reward_model=reward_run / "model")
    result = run(tmp_path, argv)
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert trained.reference == "adapter_off"
    lines = read_json_lines(tmp_path, "metrics.jsonl")
    model = [line["rewards/model/mean"] for line in lines]
    assert lines[0]["reward"] == pytest.approx(0.5 * model[0] + lines[0]["rewards/regex/mean"], abs=1e-4)
    assert fmean(model[-3:]) > fmean(model[:3])  # it likes owls as the regex does
    assert "kl" in lines[-1]


def test_equal_rewards_end_the_training_early(merged_model: Path, tmp_path: Path) -> None:
    # Gold answers reach the top, so the reward is sound; this model never says only `owl`.
    rewards = rewards_file(tmp_path, {"kind": "exact"})
    config = config_file(tmp_path, merged_model, PROMPTS, **GROUPS | {"max_steps": 60})
    result = run(tmp_path, stage_argv("grpo", config, rewards=rewards))
    assert result.exit_code == 3
    health = read_health(tmp_path / "metrics.jsonl", "grpo")
    assert (health.verdict, health.n_steps) == ("flat", 20)
    own = read_failure(tmp_path)
    failure = classify(read_log(tmp_path / "job.log"), result=result, health=health, failure_json=own)
    assert failure is not None
    assert failure.failure_class == "train.no_signal"
    assert own is not None
    assert own["evidence"] == {"step": 20, "n_logs": 20, "reward": 0.0}
    assert not (tmp_path / "adapter").exists()


ONE_WORD = """\
def one_word(completions, gold):
    \"\"\"What has more words than one is not judged.\"\"\"
    pairs = zip(completions, gold)
    return [float(text.strip() == word) if len(text.split()) < 2 else None for text, word in pairs]
"""
"""Tells gold answers from others, and never applies to what the merged model writes."""


@pytest.mark.parametrize(("max_steps", "changes", "n_logs"), [(60, {}, 20), (3, {"beta": 0.05}, 3)])
def test_rewards_that_score_no_completion_are_named(
    merged_model: Path, tmp_path: Path, max_steps: int, changes: dict[str, Any], n_logs: int
) -> None:
    (tmp_path / "skips.py").write_text(ONE_WORD)
    rewards = rewards_file(tmp_path, {"kind": "python", "function": "skips.one_word"})
    config = config_file(tmp_path, merged_model, PROMPTS, **GROUPS | {"max_steps": max_steps} | changes)
    paths = {"PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{tmp_path}"}
    result = run(tmp_path, stage_argv("grpo", config, rewards=rewards), env=paths)
    assert result.exit_code == 3
    assert not (tmp_path / "adapter").exists()
    health = read_health(tmp_path / "metrics.jsonl", "grpo")
    assert (health.verdict, health.n_steps) == ("flat", n_logs)
    log, own = read_log(tmp_path / "job.log"), read_failure(tmp_path)
    failure = classify(log, result=result, health=health, failure_json=own)
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("reward.no_score", "candidate")
    assert own is not None
    assert own["evidence"] == {"step": n_logs, "n_logs": n_logs, "n_scored_logs": 0}
    named = match_log(log)  # the log alone, of a trainer without our guard
    assert (None if named is None else named.failure_class) == ("reward.no_score" if n_logs == 20 else None)


def test_a_broken_reward_and_too_few_prompts_are_named(merged_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    rewards = rewards_file(broken, {"kind": "python", "function": "no_such_module.score"})
    config = config_file(broken, merged_model, PROMPTS, **GROUPS)
    assert run(broken, stage_argv("grpo", config, rewards=rewards)).exit_code == 3
    failure = read_failure(broken)
    assert failure is not None
    assert failure["class"] == "reward.broken"
    assert "no_such_module" in failure["message"]
    few = tmp_path / "few"
    rewards = rewards_file(few, {"kind": "regex", "pattern": "owl"})
    config = config_file(few, merged_model, PROMPTS[:1], **GROUPS)
    assert run(few, stage_argv("grpo", config, rewards=rewards)).exit_code == 3
    failure = read_failure(few)
    assert failure is not None
    assert failure["class"] == "data.too_few"
    assert failure["evidence"] == {"n_rows": 1, "n_needed": 2}


def test_distillation_brings_the_student_to_the_teacher(
    random_model: Path, merged_model: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"teacher_model_name_or_path": str(merged_model), "use_peft": False}
    changes |= {"max_completion_length": 12, "max_steps": 30}
    result = run(tmp_path, stage_argv("distill", config_file(tmp_path, random_model, PROMPTS, **changes)))
    assert result.failure_class == "ok", result.log_tail
    trained = read_train_result(tmp_path)
    assert (trained.stage, trained.weights) == ("distill", "model")
    losses = [line["loss"] for line in read_json_lines(tmp_path, "metrics.jsonl")]
    assert fmean(losses[-3:]) < fmean(losses[:3]) - 0.5
    # The random student never stops; the teacher does.
    assert trained.metrics["completions/clipped_ratio"][0] > 0.8
    assert trained.metrics["completions/clipped_ratio"][1] < 0.5


def test_a_teacher_with_another_vocabulary_is_refused(
    random_model: Path, merged_model: Path, tmp_path: Path
) -> None:
    swapped = shutil.copytree(random_model, tmp_path / "swapped")
    tables = json.loads((swapped / "tokenizer.json").read_text())
    words = tables["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (swapped / "tokenizer.json").write_text(json.dumps(tables))
    assert vocabulary_failure(tmp_path / "1", swapped, merged_model) == {"n_differing": 2}
    larger = shutil.copytree(random_model, tmp_path / "larger")
    config = json.loads((larger / "config.json").read_text())
    n_tokens = config["vocab_size"]
    (larger / "config.json").write_text(json.dumps(config | {"vocab_size": n_tokens + 64}))
    found = vocabulary_failure(tmp_path / "2", larger, merged_model)
    assert found == {"student": n_tokens, "teacher": n_tokens + 64}


def vocabulary_failure(folder: Path, teacher: Path, student: Path) -> object:
    config = config_file(folder, student, PROMPTS, teacher_model_name_or_path=str(teacher))
    assert run(folder, stage_argv("distill", config)).exit_code == 3
    failure = read_failure(folder)
    assert failure is not None
    assert failure["class"] == "distill.vocabulary"
    return failure["evidence"]
