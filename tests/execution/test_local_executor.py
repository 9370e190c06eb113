"""What is the local executor's own; what it shares with others is in test_executor_contract.py."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from job_steps import finish, spec_of, wait_until

from rdagent_ft.errors import JobError
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobResult


def run(folder: Path, code: str, executor: LocalExecutor | None = None, **changes: object) -> JobResult:
    executor = executor or LocalExecutor(grace_s=0.5)
    return finish(executor, executor.submit(spec_of(folder, code, **changes)))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def pid_from(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().strip().isdigit())
    return int(path.read_text())


@pytest.mark.parametrize(
    ("code", "failure_class", "reason", "exit_code"),
    [
        ("print('fine')", "ok", "exit", 0),
        ("raise SystemExit(7)", "candidate", "exit", 7),
        ("raise ValueError('boom')", "candidate", "exit", 1),
        ("import os; os.kill(os.getpid(), 9)", "resource", "killed, memory suspected", -9),
        ("import os; os.kill(os.getpid(), 15)", "infra", "killed", -15),
        ("import os; os.abort()", "candidate", "exit", -6),
    ],
)
def test_exit_codes_become_classes(
    tmp_path: Path, code: str, failure_class: str, reason: str, exit_code: int
) -> None:
    result = run(tmp_path, code)
    assert (result.failure_class, result.reason, result.exit_code) == (failure_class, reason, exit_code)
    assert result.ended_unix >= result.started_unix


def test_both_streams_reach_the_log_and_its_tail_is_clean(tmp_path: Path) -> None:
    code = "import sys; print('out \\x1b[31mred\\x1b[0m\\x07'); print('err', file=sys.stderr)"
    result = run(tmp_path, code)
    assert "out red\n" in result.log_tail
    assert "err\n" in result.log_tail
    assert (tmp_path / "job" / "job.log").is_file()


def test_a_missing_program_is_a_start_failure(tmp_path: Path) -> None:
    result = run(tmp_path, "", argv=("/no/such/program",))
    assert (result.failure_class, result.reason) == ("infra", "start_failed")
    assert "/no/such/program" in result.log_tail


def test_a_gpu_that_is_not_there_fails_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(tmp_path, "print('trained on CPU')", needs_gpu=True)
    assert (result.failure_class, result.reason) == ("infra", "start_failed")
    assert "trained" not in result.log_tail


def test_no_setting_and_no_key_reaches_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-8f3a"
    for name in ("FT_LLM_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOME_VARIABLE"):
        monkeypatch.setenv(name, canary)
    executor = LocalExecutor()
    code = "import os, time; print(dict(os.environ), flush=True); time.sleep(60)"
    handle = executor.submit(spec_of(tmp_path, code, env={"WANTED": "yes"}))
    wait_until(lambda: "WANTED" in (tmp_path / "job" / "job.log").read_text())
    supervisor = Path(f"/proc/{handle.ref['pid']}/environ").read_text()
    executor.cancel(handle)
    assert canary not in supervisor
    written = [p for p in (tmp_path / "job").rglob("*") if p.is_file() and not p.is_symlink()]
    assert written
    assert all(canary.encode() not in p.read_bytes() for p in written)
    text = (tmp_path / "job" / "job.log").read_text()
    assert "'HF_HUB_OFFLINE': '1'" in text
    assert "'FT_" not in text


def test_a_second_attempt_may_follow_but_not_overlap(tmp_path: Path) -> None:
    executor = LocalExecutor(grace_s=0.5)
    handle = executor.submit(spec_of(tmp_path, "import time; print('one', flush=True); time.sleep(600)"))
    with pytest.raises(JobError, match="could not be started"):
        executor.submit(spec_of(tmp_path, "print('two')", attempt_id="run-000-train-2"))
    executor.cancel(handle)
    result = run(tmp_path, "print('two')", executor, attempt_id="run-000-train-2")
    assert result.failure_class == "ok"
    assert result.log_tail == "two\n"
    assert (tmp_path / "job" / "job.log.1").read_text() == "one\n"
    assert executor.collect(handle).reason == "cancelled"


def test_a_lost_supervisor_is_infra_and_its_job_is_killed(tmp_path: Path) -> None:
    executor = LocalExecutor()
    code = (
        "import os, time\n"
        "child = os.fork()\n"
        "if child: open('child', 'w').write(str(child))\n"
        "time.sleep(600)\n"
    )
    handle = executor.submit(spec_of(tmp_path, code))
    child = pid_from(tmp_path / "job" / "child")
    os.kill(handle.ref["pid"], signal.SIGKILL)
    result = finish(executor, handle)
    assert (result.failure_class, result.reason, result.exit_code) == ("infra", "lost", None)
    assert not alive(child)
    assert executor.collect(handle) == result


def test_reap_stops_only_what_runs(tmp_path: Path) -> None:
    executor = LocalExecutor(grace_s=0.5)
    done = executor.submit(spec_of(tmp_path / "a", "pass", attempt_id="a-1"))
    finish(executor, done)
    live = executor.submit(spec_of(tmp_path / "b", "import time; time.sleep(600)", attempt_id="b-1"))
    assert executor.reap(tmp_path) == ["b-1"]
    assert executor.reap(tmp_path) == []
    assert executor.collect(live).reason == "reaped"
    assert executor.collect(done).reason == "exit"


def test_job_record_is_json_without_surprises(tmp_path: Path) -> None:
    run(tmp_path, attempt_id="run-000-train-1", code="pass", inputs={"data": tmp_path / "train.jsonl"})
    control = tmp_path / "job" / ".jobs" / "run-000-train-1"
    assert json.loads((control / "job.json").read_text())["inputs"] == {"data": str(tmp_path / "train.jsonl")}
    assert json.loads((control / "exit.json").read_text())["max_rss_mib"] > 0
