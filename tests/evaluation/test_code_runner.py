"""The controller's side of code cases: refused without containers, and what a job left is not believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.code.run_code import MAX_TRIES, code_runner, refuse_uncontained
from rdagent_ft.evaluation.outside import CodeCase, CodeResult, CodeRunner
from rdagent_ft.execution.contained import Limits
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec, JobState

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = [
    CodeCase(case_id="a", program="assert True"),
    CodeCase(case_id="b", program="assert False, 'no'"),
    CodeCase(case_id="a/../b", program="import sys; sys.exit(0)"),
]


class ContainerStandIn:
    """Runs the job as a process. For programs of our own only: it is no sandbox.

    Args:
        ends: results to give in order instead of running.
        afterwards: called with the out folder when a job has run.
    """

    name = "docker"

    def __init__(
        self, ends: tuple[JobResult, ...] = (), afterwards: Callable[[Path], object] | None = None
    ) -> None:
        self.specs: list[JobSpec] = []
        self._ends, self._afterwards = list(ends), afterwards
        self._results: dict[str, JobResult] = {}
        self.cancelled: list[str] = []

    def submit(self, spec: JobSpec) -> JobHandle:
        if spec.attempt_id not in self._results:
            self.specs.append(spec)
            self._results[spec.attempt_id] = self._ends.pop(0) if self._ends else self._run(spec)
        return JobHandle(executor=self.name, attempt_id=spec.attempt_id, out_dir=spec.out_dir)

    def _run(self, spec: JobSpec) -> JobResult:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        argv = [sys.executable, *spec.argv[1:]]
        done = subprocess.run(argv, cwd=spec.out_dir, env=environment, timeout=120, check=False)
        if self._afterwards is not None:
            self._afterwards(spec.out_dir)
        return end("ok" if done.returncode == 0 else "candidate", "exit")

    def poll(self, handle: JobHandle) -> JobState:
        return JobState(state="ended")

    def cancel(self, handle: JobHandle) -> None:
        self.cancelled.append(handle.attempt_id)

    def collect(self, handle: JobHandle) -> JobResult:
        return self._results[handle.attempt_id]


class Unending(ContainerStandIn):
    """A job that never ends by itself."""

    def _run(self, spec: JobSpec) -> JobResult:
        return end("stopped", "cancelled")

    def poll(self, handle: JobHandle) -> JobState:
        return JobState(state="running")


def end(failure_class: str, reason: str) -> JobResult:
    return JobResult.model_validate(
        {"failure_class": failure_class, "reason": reason, "exit_code": 0, "started_unix": 0, "ended_unix": 1}
    )


def runner(executor: object, root: Path, **options: object) -> CodeRunner:
    deadline = {"deadline_unix": time.time() + 300, "limits": Limits(wall_s=20.0)}
    return code_runner(executor, root, name="r-code", **{**deadline, **options})  # type: ignore[arg-type]


def outcomes(results: list[CodeResult]) -> list[tuple[str, str]]:
    return [(result.case_id, result.outcome) for result in results]


def test_the_local_executor_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(
        PreflightError, match="must run in a container, and the local executor has none"
    ) as caught:
        runner(LocalExecutor(), tmp_path / "code")
    assert "--executor docker" in (caught.value.hint or "")
    assert not (tmp_path / "code").exists()
    refuse_uncontained("docker")


def test_the_local_executor_would_refuse_the_job_itself(tmp_path: Path) -> None:
    """A second lock: the job asks for what only containers give."""
    inner = LocalExecutor()

    class Renamed(ContainerStandIn):
        def submit(self, spec: JobSpec) -> JobHandle:
            return inner.submit(spec)

    with pytest.raises(JobError, match="must run in a container"):
        runner(Renamed(), tmp_path)(CASES)


def test_each_case_has_its_own_result_in_order(tmp_path: Path) -> None:
    executor = ContainerStandIn()
    results = runner(executor, tmp_path)(CASES)
    assert outcomes(results) == [("a", "passed"), ("b", "failed"), ("a/../b", "failed")]
    assert results[1].detail == "AssertionError: no"
    (spec,) = executor.specs
    assert spec.kind == "evaluate"
    assert spec.aliases
    assert not (spec.out_dir / "request.json").exists()


def test_the_same_cases_adopt_their_job_and_others_have_their_own(tmp_path: Path) -> None:
    executor = ContainerStandIn()
    run = runner(executor, tmp_path)
    assert run(CASES) == run(CASES) == runner(executor, tmp_path)(CASES)
    assert len(executor.specs) == 1
    run(CASES[:1])
    assert len(executor.specs) == 2
    assert run([]) == []


def test_a_job_that_the_machine_ended_is_tried_again(tmp_path: Path) -> None:
    executor = ContainerStandIn(ends=(end("infra", "lost"), end("stopped", "cancelled")))
    assert outcomes(runner(executor, tmp_path)(CASES))[0] == ("a", "passed")
    assert len({spec.attempt_id for spec in executor.specs}) == MAX_TRIES == 3


def test_a_run_that_was_stopped_often_is_still_scored_later(tmp_path: Path) -> None:
    executor = ContainerStandIn(ends=(end("stopped", "cancelled"),) * 5)
    assert outcomes(runner(executor, tmp_path)(CASES))[0] == ("a", "passed")


def test_a_job_that_met_an_earlier_deadline_is_run_again_when_there_is_time_now(tmp_path: Path) -> None:
    executor = ContainerStandIn(ends=(end("resource", "deadline"),))
    assert outcomes(runner(executor, tmp_path)(CASES))[0] == ("a", "passed")
    late = ContainerStandIn(ends=(end("resource", "deadline"),))
    results = runner(late, tmp_path / "late", deadline_unix=time.time() - 1)(CASES)
    assert {result.outcome for result in results} == {"not_run"}
    assert len(late.specs) == 1


def test_equal_cases_in_two_places_are_two_attempts(tmp_path: Path) -> None:
    executor = ContainerStandIn()
    runner(executor, tmp_path / "one")(CASES)
    runner(executor, tmp_path / "two")(CASES)
    assert len({spec.attempt_id for spec in executor.specs}) == 2


@pytest.mark.parametrize(("failure", "n_tries"), [("infra", 3), ("resource", 1), ("candidate", 1)])
def test_what_did_not_run_is_not_wrong(tmp_path: Path, failure: str, n_tries: int) -> None:
    executor = ContainerStandIn(ends=(end(failure, "some reason"),) * n_tries)
    results = runner(executor, tmp_path)(CASES)
    assert {result.outcome for result in results} == {"not_run"}
    assert "some reason" in results[0].detail
    assert len(executor.specs) == n_tries


def cut(out_dir: Path) -> None:
    path = out_dir / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def test_a_missing_result_is_not_run_and_the_others_count(tmp_path: Path) -> None:
    results = runner(ContainerStandIn(afterwards=cut), tmp_path)(CASES)
    assert outcomes(results) == [("a", "passed"), ("b", "failed"), ("a/../b", "not_run")]


def line(**changes: object) -> str:
    return json.dumps({"index": 0, "outcome": "passed", "detail": "", "seconds": 1.0, **changes}) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        line() + line(),
        line(index=3),
        line(index=-1),
        line(outcome="great"),
        line(outcome=1),
        line(more=1),
        line(detail="x" * 9000),
        line() * 4,
        "not json\n",
        "[" * 50_000,
        line(seconds=1e400),
    ],
)
def test_results_that_cannot_be_believed_count_for_nothing(tmp_path: Path, text: str) -> None:
    def spoil(out_dir: Path) -> None:
        (out_dir / "results.jsonl").write_text(text)

    results = runner(ContainerStandIn(afterwards=spoil), tmp_path)(CASES)
    assert {result.outcome for result in results} == {"not_run"}


def test_a_link_in_place_of_the_results_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text(line())

    def spoil(out_dir: Path) -> None:
        (out_dir / "results.jsonl").unlink()
        (out_dir / "results.jsonl").symlink_to(outside)

    results = runner(ContainerStandIn(afterwards=spoil), tmp_path / "code")(CASES)
    assert {result.outcome for result in results} == {"not_run"}


def test_a_detail_is_cleaned(tmp_path: Path) -> None:
    def spoil(out_dir: Path) -> None:
        (out_dir / "results.jsonl").write_text(line(outcome="failed", detail="\x1b[31mred\u202e"))

    assert runner(ContainerStandIn(afterwards=spoil), tmp_path)(CASES)[0].detail == "red"


def test_a_caller_that_stops_ends_the_job(tmp_path: Path) -> None:
    executor = Unending()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner(executor, tmp_path, between_polls=stop)(CASES)
    assert executor.cancelled == [executor.specs[0].attempt_id]
