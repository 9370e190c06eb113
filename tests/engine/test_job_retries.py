"""Which ends of a job are followed by another try: only those that nobody's candidate is to blame for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from container_double import ContainerDouble
from script_world import at_code_step

from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.execution.port import FailureClass, JobResult
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage

RECIPE = Recipe(stages=(SftStage(adapter=FullAdapter()),))


def ended(failure_class: FailureClass, reason: str) -> JobResult:
    code = 0 if failure_class == "ok" else 1
    return JobResult(
        failure_class=failure_class, reason=reason, exit_code=code, started_unix=1.0, ended_unix=2.0
    )


def run(root: Path, *ends: JobResult) -> tuple[JobOutcome, list[Path | None]]:
    """Run a step's job that ends in these ways; return its end and what each attempt could go on from."""
    ctx = at_code_step(root, RECIPE, ContainerDouble(ends=ends))
    previous: list[Path | None] = []

    def prepare(out_dir: Path, previous_out_dir: Path | None) -> tuple[str, ...]:
        previous.append(previous_out_dir)
        return ("python", "-c", "pass")

    request = JobRequest(kind="train", out_root=root / "stage", inputs={"data": root}, limit_s=60.0)
    return run_job(ctx, 0, "train", request, prepare), previous


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdagent_ft.engine.jobs.RETRY_PAUSE_S", 0.0)


@pytest.mark.parametrize(
    "reason", ["lost", "reaped", "killed", "engine_restarted", "engine_lost", "gpu_lost"]
)
def test_infra_is_tried_again_twice_from_where_the_last_attempt_was(tmp_path: Path, reason: str) -> None:
    infra = ended("infra", reason)
    outcome, previous = run(tmp_path, infra, infra, infra, ended("ok", "exit"))
    assert (outcome.result.failure_class, outcome.n_attempts) == ("infra", 3)
    stage = tmp_path / "stage"
    assert previous == [None, stage / "attempt-1", stage / "attempt-2"]


def test_a_second_try_that_ends_well_is_the_end(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, ended("infra", "lost"), ended("ok", "exit"), ended("infra", "lost"))
    assert (outcome.result.failure_class, outcome.n_attempts) == ("ok", 2)


@pytest.mark.parametrize(
    ("failure_class", "reason"),
    [
        ("candidate", "exit"),
        ("resource", "deadline"),
        ("resource", "stalled"),
        ("resource", "out_of_memory"),
        ("resource", "output_limit"),
        ("resource", "killed, memory suspected"),
        ("ok", "exit"),
    ],
)
def test_nothing_else_is_tried_again(tmp_path: Path, failure_class: Any, reason: str) -> None:
    outcome, _ = run(tmp_path, ended(failure_class, reason), ended("ok", "exit"))
    assert (outcome.result.reason, outcome.n_attempts) == (reason, 1)
