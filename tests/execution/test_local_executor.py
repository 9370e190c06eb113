"""The local executor against jobs that misbehave. Real processes, no doubles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec

WAIT_S = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at, "condition was not met in time"
        time.sleep(0.02)


def spec_of(folder: Path, code: str, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "attempt_id": "run-000-train-1",
        "kind": "train",
        "argv": ("python", "-c", code),
        "out_dir": folder / "job",
        "deadline_unix": time.time() + 120,
    }
    return JobSpec.model_validate(values | changes)


def finish(executor: LocalExecutor, handle: JobHandle) -> JobResult:
    wait_until(lambda: executor.poll(handle).state == "ended")
    return executor.collect(handle)


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


@pytest.mark.parametrize("name", ["FT_ANYTHING", "OPENAI_API_KEY", "HF_TOKEN", "db_password"])
def test_a_secret_looking_variable_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=name):
        LocalExecutor().submit(spec_of(tmp_path, "", env={name: "x"}))


def test_deadline_ends_an_endless_job_that_ignores_sigterm(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "open('child' if child else 'own', 'w').write(str(child or os.getpid()))\n"
        "while True: time.sleep(0.1)\n"
    )
    result = run(tmp_path, code, deadline_unix=time.time() + 1.5)
    assert (result.failure_class, result.reason) == ("resource", "deadline")
    assert not alive(pid_from(tmp_path / "job" / "child"))


def test_deadline_dumps_the_stack_of_a_job_that_can(tmp_path: Path) -> None:
    code = (
        "import faulthandler, signal, time\n"
        "faulthandler.register(signal.SIGUSR1)\n"
        "def deep_inside():\n    time.sleep(600)\n"
        "deep_inside()\n"
    )
    result = run(tmp_path, code, deadline_unix=time.time() + 1.5)
    assert result.reason == "deadline"
    assert "in deep_inside" in result.log_tail


def test_a_silent_job_counts_as_stalled_and_a_writing_one_does_not(tmp_path: Path) -> None:
    executor = LocalExecutor(stall_timeout_s=1.0, grace_s=0.5)
    silent = run(tmp_path / "a", "import time; time.sleep(600)", executor)
    assert (silent.failure_class, silent.reason) == ("resource", "stalled")
    code = "import time\nfor n in range(10):\n    open('metrics.jsonl', 'a').write('x')\n    time.sleep(0.3)"
    assert run(tmp_path / "b", code, executor).failure_class == "ok"


def test_a_double_forked_stray_is_ended_with_the_job(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        open('stray', 'w').write(str(os.getpid()))\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "while not os.path.exists('stray'): time.sleep(0.01)\n"
    )
    result = run(tmp_path, code)
    assert result.failure_class == "ok"
    assert not alive(pid_from(tmp_path / "job" / "stray"))


def test_a_log_flood_is_bounded_and_keeps_its_end(tmp_path: Path) -> None:
    executor = LocalExecutor(log_max_bytes=5 << 20)
    code = (
        "import os\n"
        "block = b'x' * 65535 + b'\\n'\n"
        "for _ in range(4800): os.write(1, block)\n"  # 300 MB
        "raise RuntimeError('the cause')\n"
    )
    result = run(tmp_path, code, executor)
    assert result.exit_code == 1
    assert (tmp_path / "job" / "job.log").stat().st_size < (5 << 20) + 70_000
    assert "RuntimeError: the cause" in result.log_tail


def test_cancel_ends_everything_and_may_be_repeated(tmp_path: Path) -> None:
    executor = LocalExecutor(grace_s=0.5)
    code = (
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    handle = executor.submit(spec_of(tmp_path, code))
    child = pid_from(tmp_path / "job" / "child")
    with pytest.raises(JobError, match="still runs"):
        executor.collect(handle)
    executor.cancel(handle)
    executor.cancel(handle)
    result = executor.collect(handle)
    assert (result.failure_class, result.reason) == ("stopped", "cancelled")
    assert not alive(child)


def test_the_same_attempt_starts_once(tmp_path: Path) -> None:
    code = "import time; open('starts', 'a').write('x'); time.sleep(1)"
    first, second = LocalExecutor(), LocalExecutor()
    one = first.submit(spec_of(tmp_path, code))
    two = second.submit(spec_of(tmp_path, code))
    assert one == two
    assert finish(second, two).failure_class == "ok"
    assert first.submit(spec_of(tmp_path, code)) == one
    assert first.collect(one).failure_class == "ok"
    assert (tmp_path / "job" / "starts").read_text() == "x"


def test_simultaneous_submits_start_one(tmp_path: Path) -> None:
    code = "import time; open('starts', 'a').write('x'); time.sleep(1)"
    spec = tmp_path / "spec.json"
    spec.write_text(spec_of(tmp_path, code).model_dump_json())
    script = (
        "import sys, pathlib; from rdagent_ft.execution.local import LocalExecutor; "
        "from rdagent_ft.execution.port import JobSpec; "
        "LocalExecutor().submit(JobSpec.model_validate_json(pathlib.Path(sys.argv[1]).read_text()))"
    )
    submitters = [subprocess.Popen([sys.executable, "-c", script, str(spec)]) for _ in range(4)]
    assert [process.wait() for process in submitters] == [0, 0, 0, 0]
    executor = LocalExecutor()
    result = finish(executor, executor.submit(spec_of(tmp_path, code)))
    assert result.failure_class == "ok"
    assert (tmp_path / "job" / "starts").read_text() == "x"


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


def test_a_job_is_adopted_after_its_controller_was_killed(tmp_path: Path) -> None:
    code = "import time; open('starts', 'a').write('x'); time.sleep(2); print('done')"
    spec = spec_of(tmp_path, code)
    script = (
        "import os, sys, time; from rdagent_ft.execution.local import LocalExecutor; "
        "from rdagent_ft.execution.port import JobSpec; "
        "handle = LocalExecutor().submit(JobSpec.model_validate_json(sys.argv[1])); "
        "print(handle.model_dump_json(), flush=True); "
        "time.sleep(600)"
    )
    controller = subprocess.Popen(
        [sys.executable, "-c", script, spec.model_dump_json()], stdout=subprocess.PIPE, text=True
    )
    assert controller.stdout is not None
    handle = JobHandle.model_validate_json(controller.stdout.readline())
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    controller.stdout.close()
    executor = LocalExecutor()
    assert executor.submit(spec) == handle
    result = finish(executor, handle)
    assert (result.failure_class, result.log_tail) == ("ok", "done\n")
    assert (tmp_path / "job" / "starts").read_text() == "x"


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


@pytest.mark.parametrize("attempt_id", ["../up", ".hidden", "a/b", "", "a" * 200])
def test_an_attempt_id_that_is_no_folder_name_is_refused(tmp_path: Path, attempt_id: str) -> None:
    with pytest.raises(JobError, match="attempt id"):
        LocalExecutor().submit(spec_of(tmp_path, "pass", attempt_id=attempt_id))


def test_a_file_named_like_a_library_in_the_job_folder_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "psutil.py").write_text("raise SystemExit('shadowed')")
    code = "import psutil, rdagent_ft; print(rdagent_ft.__version__)"
    assert run(tmp_path, code).failure_class == "ok"


def test_job_record_is_json_without_surprises(tmp_path: Path) -> None:
    run(tmp_path, "pass", inputs={"data": tmp_path / "train.jsonl"})
    control = tmp_path / "job" / ".jobs" / "run-000-train-1"
    assert json.loads((control / "job.json").read_text())["inputs"] == {"data": str(tmp_path / "train.jsonl")}
    assert json.loads((control / "exit.json").read_text())["max_rss_mib"] > 0
