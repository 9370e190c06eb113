"""The rules that read a training's metrics log by log, without a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.errors import JobError
from rdagent_ft.training.monitor import read_health
from rdagent_ft.training.plan import read_train_result, stage_argv
from rdagent_ft.training.stage_health import (
    WATCHED,
    Finding,
    PaceWatch,
    SignalWatch,
    TrainedKind,
    flat_margin,
    stage_warnings,
)

KINDS: tuple[TrainedKind, ...] = tuple(WATCHED)


def grpo_log(reward: float, *, silent: bool = False, clipped: float = 0.0) -> dict[str, float | None]:
    share, spread = (1.0, 0.0) if silent else (0.5, 0.25)
    return {
        "reward": reward,
        "reward_std": spread,
        "frac_reward_zero_std": share,
        "completions/clipped_ratio": clipped,
    }


NO_SCORE: dict[str, float | None] = {"reward": None, "reward_std": None, "frac_reward_zero_std": 0.0}
"""What TRL 1.16 logs where every reward returned None for every completion."""
ONE_SCORE = NO_SCORE | {"reward": 1.0}


def first_finding(logs: list[dict[str, float | None]]) -> tuple[int, Finding] | None:
    watch = SignalWatch()
    for number, log in enumerate(logs, start=1):
        found = watch.see(log)
        if found is not None:
            return number, found
    return None


def test_twenty_silent_logs_are_no_signal_and_nineteen_are_not() -> None:
    found = first_finding([grpo_log(0.0, silent=True)] * 25)
    assert found is not None
    assert (found[0], found[1].failure_class) == (20, "train.no_signal")
    assert first_finding([grpo_log(0.0, silent=True)] * 19 + [grpo_log(0.1)] * 19) is None


def test_a_task_that_was_learnt_is_no_failure_and_one_that_was_lost_is() -> None:
    learnt = [grpo_log(0.2)] * 5 + [grpo_log(1.0, silent=True)] * 40
    assert first_finding(learnt) is None
    assert "nothing more was learnt" in stage_warnings("grpo", learnt)[0]
    lost = first_finding([grpo_log(0.2)] * 5 + [grpo_log(0.0, silent=True)] * 40)
    assert lost is not None
    assert (lost[0], lost[1].failure_class) == (25, "train.no_signal")
    assert lost[1].evidence == {"n_logs": 20, "reward": 0.0, "first_reward": 0.2}


def test_cut_completions_end_a_training_that_does_not_improve() -> None:
    found = first_finding([grpo_log(0.1, clipped=0.9)] * 30)
    assert found is not None
    assert (found[0], found[1].failure_class) == (20, "train.truncated")
    assert found[1].evidence == {"clipped_ratio": 0.9, "n_logs": 20}
    rising = [grpo_log(0.02 * number, clipped=0.9) for number in range(40)]
    assert first_finding(rising) is None
    assert "cut at `max_completion_length`" in stage_warnings("grpo", rising)[0]
    relieved = ([grpo_log(0.1, clipped=0.9)] * 19 + [grpo_log(0.1, clipped=0.2)]) * 3
    assert first_finding(relieved) is None


def test_without_the_share_of_groups_the_spread_decides() -> None:
    logs: list[dict[str, float | None]] = [{"reward": 1.0, "reward_std": 0.0}] * 20
    found = first_finding(logs)
    assert found is not None
    assert found[1].failure_class == "train.no_signal"
    assert first_finding([{"reward": 1.0}] * 40) is None  # unknown is unknown


@pytest.mark.parametrize("log", [NO_SCORE, ONE_SCORE, {"frac_reward_zero_std": 0.0}])
def test_rewards_that_score_nothing_end_a_training(log: dict[str, float | None]) -> None:
    found = first_finding([log] * 25)
    assert found is not None
    assert (found[0], found[1].failure_class) == (20, "reward.no_score")
    assert found[1].evidence == {"n_logs": 20, "n_scored_logs": 0}
    assert first_finding(([log] * 19 + [grpo_log(0.1)]) * 3) is None


def test_rewards_that_stop_scoring_are_named_even_after_a_task_was_learnt() -> None:
    found = first_finding([grpo_log(0.2)] * 5 + [grpo_log(1.0, silent=True)] * 25 + [NO_SCORE] * 40)
    assert found is not None
    assert (found[0], found[1].failure_class) == (50, "reward.no_score")
    assert found[1].evidence == {"n_logs": 20, "n_scored_logs": 30}


def test_logs_without_scores_between_equal_rewards_are_no_signal() -> None:
    found = first_finding([grpo_log(0.0, silent=True), NO_SCORE] * 15)
    assert found is not None
    assert (found[0], found[1].failure_class) == (20, "train.no_signal")
    assert found[1].evidence == {"n_logs": 20, "reward": 0.0}


def test_a_short_training_without_a_score_fails_at_its_end() -> None:
    watch = SignalWatch()
    assert watch.end() is None  # nothing was logged
    assert watch.see(NO_SCORE) is None
    found = watch.end()
    assert found is not None
    assert (found.failure_class, found.evidence) == ("reward.no_score", {"n_logs": 1, "n_scored_logs": 0})
    assert watch.see(grpo_log(0.1)) is None
    assert watch.see(NO_SCORE) is None
    assert watch.end() is None  # something was learnt


def feed(watch: PaceWatch, steps: list[tuple[float, float]]) -> list[Finding]:
    work = elapsed = 0.0
    found: list[Finding] = []
    for tokens, seconds in steps:
        work, elapsed = work + tokens, elapsed + seconds
        one = watch.see(work, elapsed)
        found += [one] if one is not None else []
    return found


def test_a_pace_below_a_tenth_for_five_logs_is_a_finding() -> None:
    usual, slow = [(1000.0, 2.0)] * 30, [(1000.0, 40.0)]
    found = feed(PaceWatch(), usual + slow * 5)
    assert [one.failure_class for one in found] == ["resource.throughput"]
    assert found[0].evidence == {"rate": 25.0, "usual_rate": 500.0}
    assert feed(PaceWatch(), usual + slow * 4 + usual + slow * 4) == []
    assert feed(PaceWatch(), usual + [(1000.0, 9.0)] * 20) == []  # slower, and not by ten
    assert feed(PaceWatch(), [(1000.0, 0.002)] * 30 + [(1000.0, 0.04)] * 20) == []  # under a minute
    assert feed(PaceWatch(), [(1000.0, 2.0)] * 5 + slow * 20) == []  # nothing usual is known yet


def test_numbers_that_go_back_are_skipped() -> None:
    watch = PaceWatch()
    assert feed(watch, [(1000.0, 2.0)] * 30) == []
    assert watch.see(10.0, 1.0) is None  # a resumed attempt counts from 0


@pytest.mark.parametrize(
    ("kind", "log", "words"),
    [
        ("dpo", {"rewards/accuracies": 0.3, "rewards/margins": 0.1}, "worse than a coin"),
        ("dpo", {"rewards/accuracies": 0.6, "rewards/margins": -0.2}, "rejected answers are preferred"),
        ("kto", {"rewards/margins": -0.2}, "rejected answers are preferred"),
        ("reward", {"accuracy": 0.4, "margin": 0.1}, "worse than a coin"),
        ("grpo", {"entropy": 0.001}, "hardly differ"),
        ("grpo", {"kl": 3.0}, "left its reference"),
        ("grpo", {"sampling/sampling_logp_difference/mean": 2.0}, "disagree"),
        ("distill", {"completions/clipped_ratio": 0.95}, "were cut"),
    ],
)
def test_an_odd_end_is_a_warning(kind: TrainedKind, log: dict[str, float], words: str) -> None:
    (warning,) = stage_warnings(kind, [log] * 5)
    assert words in warning


def test_a_good_end_has_no_warning() -> None:
    assert stage_warnings("dpo", [{"rewards/accuracies": 0.0}, *[{"rewards/accuracies": 0.8}] * 3]) == ()
    assert stage_warnings("kto", [{"kl": 12.0, "rewards/margins": 0.4}] * 5) == ()
    assert stage_warnings("sft", []) == ()


def test_a_margin_that_never_moves_is_flat() -> None:
    assert flat_margin("dpo", [{"rewards/margins": 0.0}] * 5) is not None
    assert flat_margin("dpo", [{"rewards/margins": 1e-4 * number} for number in range(5)]) is None
    assert flat_margin("dpo", [{"rewards/margins": 0.0}] * 4) is None
    assert flat_margin("dpo", [{"rewards/margins": None}] * 9) is None


def write_metrics(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"step": n, **line}) + "\n" for n, line in enumerate(lines, start=1)))
    return path


@pytest.mark.parametrize(
    ("kind", "losses", "verdict"),
    [
        ("grpo", [0.0, -0.1, 0.05, 0.0, 0.0, 0.0], "ok"),  # flat and dead by the rules of sft
        ("grpo", [0.01, 5.0, 9.0, 9.0], "ok"),  # a scale of its own
        ("dpo", [0.69, 8.0, 9.0, 9.0], "ok"),
        ("sft", [0.69, 8.0, 9.0, 9.0], "diverged"),
        ("reward", [0.69, 8.0, 9.0, 9.0], "diverged"),
        ("grpo", [0.0, "nan"], "diverged"),
        ("dpo", [0.69, "inf"], "diverged"),
    ],
)
def test_loss_rules_apply_where_the_loss_shows_progress(
    tmp_path: Path, kind: TrainedKind, losses: list[Any], verdict: str
) -> None:
    lines = [{"loss": loss, "grad_norm": 0.1} for loss in losses]
    assert read_health(write_metrics(tmp_path / "metrics.jsonl", lines), kind).verdict == verdict


def test_grpo_logs_without_gradients_between_others_are_no_divergence(tmp_path: Path) -> None:
    lines = [{"loss": 0.01, "grad_norm": 0.5, "reward": 0.3}, {"loss": 0.02, "grad_norm": 0.0, "reward": 1.0}]
    path = write_metrics(tmp_path / "metrics.jsonl", lines)
    assert read_health(path, "grpo").verdict == "ok"
    assert read_health(path, "dpo").verdict == "diverged"


def test_equal_rewards_are_flat_after_the_fact_too(tmp_path: Path) -> None:
    line = {"loss": 0.0, "grad_norm": 1e-9, **grpo_log(0.0, silent=True)}
    health = read_health(write_metrics(tmp_path / "metrics.jsonl", [line] * 20), "grpo")
    assert (health.verdict, health.warnings) == ("flat", ())
    assert "never differed" in health.message


@pytest.mark.parametrize("n_logs", [3, 20])
def test_missing_scores_are_flat_after_the_fact_too(tmp_path: Path, n_logs: int) -> None:
    line = {"loss": 0.01, "grad_norm": 0.2, "frac_reward_zero_std": 0.0}  # moved by the KL term alone
    path = write_metrics(tmp_path / "metrics.jsonl", [line] * n_logs)
    health = read_health(path, "grpo")
    assert (health.verdict, health.warnings) == ("flat", ())
    assert f"in {n_logs} logs" in health.message


@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_any_content_gives_a_verdict_of_every_kind(
    tmp_path_factory: pytest.TempPathFactory, kind: TrainedKind, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-kind.jsonl"
    path.write_bytes(content)
    assert read_health(path, kind).verdict in {"ok", "diverged", "flat", "no_metrics"}


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-3, 3).map(float))


@given(st.sampled_from(KINDS), st.lists(st.dictionaries(st.sampled_from([*WATCHED["grpo"], "x"]), NUMBERS)))
def test_rules_take_any_numbers(kind: TrainedKind, logs: list[dict[str, float | None]]) -> None:
    assert isinstance(stage_warnings(kind, logs), tuple)
    first_finding(logs)


def test_the_command_names_kind_and_files() -> None:
    argv = stage_argv("grpo", Path("c.yaml"), rewards=Path("r.json"), reward_model=Path("rm"))
    assert argv[:3] == ("python", "-m", "rdagent_ft.training.stage_job")
    assert " ".join(argv[3:]) == "--kind grpo --config c.yaml --rewards r.json --reward-model rm"
    with pytest.raises(ValueError, match="rewards"):
        stage_argv("grpo", Path("c.yaml"))
    with pytest.raises(ValueError, match="rewards"):
        stage_argv("dpo", Path("c.yaml"), rewards=Path("r.json"))


RESULT: dict[str, Any] = {
    "n_steps": 3, "max_steps": 3, "train_loss": 1.0, "n_tokens": 10, "n_rows": 2, "n_rows_trained": 2,
    "share_tokens_trained": 0.5, "share_rows_with_end": 1.0, "train_s": 1.5, "weights": "adapter",
    "resumed_from_step": None, "device": "cpu", "versions": {"torch": "2.9"},
}  # fmt: skip


def write_result(folder: Path, **changes: Any) -> Path:
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_model.safetensors").touch()
    (folder / "result.json").write_text(json.dumps(RESULT | changes))
    return folder


def test_results_of_before_and_of_all_kinds_are_read(tmp_path: Path) -> None:
    old = read_train_result(write_result(tmp_path))
    assert (old.stage, old.metrics, old.reference) == (None, {}, None)
    changes = {"stage": "grpo", "metrics": {"reward": [0.1, 0.9]}, "share_tokens_trained": None}
    new = read_train_result(write_result(tmp_path, **changes))
    assert (new.stage, new.metrics) == ("grpo", {"reward": (0.1, 0.9)})


@pytest.mark.parametrize(
    "metrics",
    [
        {"reward": [0.1]},
        {"reward": [0.1, 1e300]},
        {"reward": ["x", 1.0]},
        {"x" * 101: [0.0, 1.0]},
        {str(number): [0.0, 1.0] for number in range(100)},
        "reward",
    ],
)
def test_metrics_out_of_bounds_make_the_result_unusable(tmp_path: Path, metrics: Any) -> None:
    with pytest.raises(JobError, match="not usable: metrics"):
        read_train_result(write_result(tmp_path, metrics=metrics))
