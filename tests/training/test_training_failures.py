"""Log texts become classes; the executor's word, the job's own and the metrics come before them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rdagent_ft.execution.port import FailureClass, JobResult
from rdagent_ft.reporting.stage_records import TrainingHealth
from rdagent_ft.training.failures import classify, error_messages, load_signatures, match_log

LOGS = sorted((Path(__file__).parent / "logs").glob("*.txt"))


def result_of(
    failure_class: FailureClass = "candidate", reason: str = "exit", exit_code: int | None = 1
) -> JobResult:
    return JobResult(
        failure_class=failure_class, reason=reason, exit_code=exit_code, started_unix=0.0, ended_unix=1.0
    )


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_each_log_has_its_class(path: Path) -> None:
    failure = classify(path.read_text(), result=result_of())
    assert failure is not None
    assert failure.failure_class == re.sub(r"-\d+$", "", path.stem)
    assert failure.message
    assert failure.fix
    if failure.failure_class.startswith("env."):
        assert failure.blame != "candidate"


def test_every_signature_decides_a_log() -> None:
    """Not only its class: the fix tells signatures of one class apart."""
    decided = {(found.failure_class, found.fix) for path in LOGS if (found := match_log(path.read_text()))}
    missing = [each.id for each in load_signatures() if (each.failure_class, each.fix) not in decided]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "lines_per_log"),
    [("train.no_signal", 1), ("train.no_signal-2", 1), ("train.truncated", 1), ("reward.no_score", 4)],
)
def test_a_signal_that_is_missing_for_fewer_than_20_logs_explains_no_failure(
    name: str, lines_per_log: int
) -> None:
    lines = (Path(__file__).parent / "logs" / f"{name}.txt").read_text().splitlines(keepends=True)
    few = "".join(lines[: 19 * lines_per_log])
    assert match_log(few + "Traceback (most recent call last):\nValueError: something else\n") is None
    assert match_log("".join(lines[: 20 * lines_per_log])) is not None


def test_one_log_with_scores_among_those_without_any_explains_no_failure() -> None:
    text = (Path(__file__).parent / "logs" / "reward.no_score.txt").read_text()
    assert match_log(text.replace("'reward_std': None", "'reward_std': '0.25'", 1)) is None


def test_exactly_four_fifths_cut_is_no_failure_yet() -> None:
    text = (Path(__file__).parent / "logs" / "train.truncated.txt").read_text()
    assert match_log(re.sub(r"(clipped_ratio': ')[\d.]+", r"\g<1>0.8", text)) is None


def test_a_packed_training_whose_first_loss_is_not_0_is_no_lost_packing() -> None:
    text = (Path(__file__).parent / "logs" / "train.pack_sdpa.txt").read_text()
    assert match_log(text.replace("'loss': '0'", "'loss': '0.01'")) is None


def test_a_metric_that_stands_in_a_line_many_times_is_read_once() -> None:
    """Without atomic groups this would take 20 to the power of 19 steps."""
    line = "{'loss': '1', " + "'frac_reward_zero_std': '1', " * 20 + "'x': '" + "y" * 400 + "'}"
    assert match_log((line + "\n") * 19 + "z" * 300_000) is None


def test_signatures_are_sound() -> None:
    signatures = load_signatures()
    assert len({signature.id for signature in signatures}) == len(signatures)
    for signature in signatures:
        for pattern in signature.patterns:
            re.compile(pattern)


def test_the_first_traceback_is_the_cause() -> None:
    text = (Path(__file__).parent / "logs" / "job.unknown.txt").read_text()
    failure = classify(text, result=result_of())
    assert failure is not None
    assert failure.message == "ZeroDivisionError: division by zero"
    assert error_messages(text)[1].startswith("subprocess.CalledProcessError")


@pytest.mark.parametrize(
    ("result", "failure_class", "blame"),
    [
        (result_of("resource", "deadline", -15), "resource.deadline", "environment"),
        (result_of("resource", "stalled", -15), "resource.stalled", "environment"),
        (result_of("resource", "killed, memory suspected", -9), "resource.host_oom", "environment"),
        (result_of("infra", "lost", None), "env.lost", "environment"),
        (result_of("infra", "killed", -15), "env.killed", "environment"),
        (result_of("infra", "start_failed", None), "env.start", "environment"),
        (result_of("stopped", "cancelled", -15), "run.stopped", "environment"),
        (result_of("candidate", "exit", 1), "job.unknown", "candidate"),
    ],
)
def test_the_way_it_ended_decides_without_a_log(result: JobResult, failure_class: str, blame: str) -> None:
    failure = classify("", result=result)
    assert failure is not None
    assert (failure.failure_class, failure.blame) == (failure_class, blame)


@pytest.mark.parametrize(
    ("verdict", "failure_class"),
    [("diverged", "train.diverged"), ("flat", "train.no_signal"), ("no_metrics", "train.no_metrics")],
)
def test_exit_code_0_is_not_success(verdict: str, failure_class: str) -> None:
    health = TrainingHealth.model_validate({"verdict": verdict, "n_steps": 3, "message": "seen"})
    failure = classify("", result=result_of("ok", "exit", 0), health=health)
    assert failure is not None
    assert failure.failure_class == failure_class


def test_a_healthy_job_has_no_failure() -> None:
    health = TrainingHealth(verdict="ok", n_steps=3)
    text = "Traceback (most recent call last):\nValueError: a warning's traceback, caught\n"
    assert classify(text, result=result_of("ok", "exit", 0), health=health) is None


def test_what_a_job_says_of_itself_is_checked() -> None:
    said = {"class": "train.diverged", "message": "loss became nan \x1b[31m" + "x" * 9000}
    failure = classify("", result=result_of(exit_code=3), failure_json=said)
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("train.diverged", "candidate")
    assert len(failure.message) <= 500
    assert "\x1b" not in failure.message
    invented = classify("", result=result_of(exit_code=3), failure_json={"class": "env.not_my_fault"})
    assert invented is not None
    assert invented.failure_class == "job.unknown"
    assert classify("", result=result_of(exit_code=3), failure_json={"class": ["?"]}) == invented


def test_a_library_warning_does_not_hide_the_exception() -> None:
    text = (
        "Warning: NCCL WARN something\n"
        "Traceback (most recent call last):\n"
        '  File "sft.py", line 3, in <module>\n'
        "ValueError: Target modules {'q'} not found in the base model.\n"
    )
    failure = classify(text, result=result_of())
    assert failure is not None
    assert failure.failure_class == "config.lora_targets"
