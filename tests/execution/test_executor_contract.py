"""What every executor promises: one suite for `local` and `docker`, with real processes and containers.

`docker-tcp` is the same engine reached through TCP: it counts as remote, so all files travel.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_steps import finish, run, spec_of, wait_until

from rdagent_ft.errors import JobError
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import Executor, JobHandle
from rdagent_ft.execution.result_cache import CachingExecutor

Make = Callable[..., Executor]


@pytest.fixture(params=["local", "cached-local", "docker", "docker-tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest) -> Make:
    """Make an executor of the kind under test; options are those of its constructor."""
    if kind.startswith("docker"):
        return request.getfixturevalue("make_docker" if kind == "docker" else "make_far")
    if kind == "cached-local":
        store = request.getfixturevalue("tmp_path_factory").mktemp("store")

        def cached(**options: Any) -> Executor:
            inner = LocalExecutor(**{"grace_s": 0.5} | options)
            return CachingExecutor(inner, store, lambda _kind: "none", "tests")

        return cached
    return lambda **options: LocalExecutor(**{"grace_s": 0.5} | options)


@pytest.fixture
def controller_script(kind: str, request: pytest.FixtureRequest) -> str:
    """Python that makes `executor` in another process."""
    if kind.endswith("local"):
        return "from rdagent_ft.execution.local import LocalExecutor; executor = LocalExecutor(); "
    image = request.getfixturevalue("train_image")
    if kind == "docker-tcp":
        return (
            "import os; from rdagent_ft.execution.docker_engine import connect; "
            "from rdagent_ft.execution.docker_executor import DockerExecutor; "
            "from rdagent_ft.execution.docker_profile import job_limits; "
            "from rdagent_ft.execution.docker_transfer import FarFiles; engine = connect(); "
            "limits = job_limits(engine.info, memory_gib=1); "
            "files = FarFiles(engine, (os.getuid(), os.getgid()), limits); "
            f"executor = DockerExecutor(engine, lambda kind: {image!r}, limits=limits, files=files); "
        )
    return (
        "from rdagent_ft.execution.docker_engine import connect; "
        "from rdagent_ft.execution.docker_executor import DockerExecutor; "
        "from rdagent_ft.execution.docker_profile import job_limits; engine = connect(); "
        f"executor = DockerExecutor(engine, lambda kind: {image!r}, "
        "limits=job_limits(engine.info, memory_gib=1)); "
    )


@pytest.mark.parametrize(
    ("code", "failure_class", "reason"),
    [
        ("print('fine')", "ok", "exit"),
        ("raise SystemExit(7)", "candidate", "exit"),
        ("raise ValueError('boom')", "candidate", "exit"),
        ("import os; os.kill(os.getpid(), 9)", "resource", "killed, memory suspected"),
        ("import os; os.kill(os.getpid(), 15)", "infra", "killed"),
        ("import os; os.abort()", "candidate", "exit"),
    ],
)
def test_ends_become_classes(tmp_path: Path, make: Make, code: str, failure_class: str, reason: str) -> None:
    result = run(make(), tmp_path, code)
    assert (result.failure_class, result.reason) == (failure_class, reason)
    assert (result.exit_code == 0) == (failure_class == "ok")
    assert time.time() - 120 < result.started_unix <= result.ended_unix <= time.time() + 1


def test_both_streams_reach_the_log_and_its_tail_is_clean(tmp_path: Path, make: Make) -> None:
    executor = make()
    code = "import sys; print('\\x1b[31mred\\x1b[0m'); print('to stderr', file=sys.stderr)"
    handle = executor.submit(spec_of(tmp_path, code))
    result = finish(executor, handle)
    assert sorted(result.log_tail.split("\n")) == ["", "red", "to stderr"]
    assert b"\x1b[31m" in executor.log_path(handle).read_bytes()


def test_the_job_works_in_its_folder_and_reads_its_inputs(tmp_path: Path, make: Make) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.txt").write_text("seven")
    code = f"open('out.txt', 'w').write(open({str(tmp_path / 'data' / 'in.txt')!r}).read() + ' read')"
    result = run(make(), tmp_path, code, inputs={"data": tmp_path / "data"})
    assert result.failure_class == "ok"
    assert (tmp_path / "job" / "out.txt").read_text() == "seven read"
    assert (tmp_path / "job" / "out.txt").stat().st_uid == os.getuid()


def test_a_missing_program_never_counts_as_ok(tmp_path: Path, make: Make) -> None:
    result = run(make(), tmp_path, "", argv=("no-such-program-here",))
    assert result.failure_class in {"infra", "candidate"}
    assert "no-such-program-here" in result.log_tail


def test_a_gpu_that_is_not_there_fails_the_attempt(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    executor = make()
    if executor.gpus():
        pytest.skip("this machine has a GPU")
    result = run(executor, tmp_path, "open('trained', 'w')", needs_gpu=True)
    assert (result.failure_class, result.reason) == ("infra", "start_failed")
    assert not (tmp_path / "job" / "trained").exists()


def test_no_setting_and_no_key_reaches_a_job(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-8f3a"
    for name in ("FT_LLM_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOME_VARIABLE"):
        monkeypatch.setenv(name, canary)
    executor = make()
    handle = executor.submit(spec_of(tmp_path, "import os; print(dict(os.environ))", env={"WANTED": "yes"}))
    assert finish(executor, handle).failure_class == "ok"
    text = executor.log_path(handle).read_text()
    assert "'WANTED': 'yes'" in text
    assert "'HF_HUB_OFFLINE': '1'" in text
    assert "'FT_" not in text
    assert all(canary.encode() not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["FT_ANYTHING", "OPENAI_API_KEY", "HF_TOKEN", "db_password"])
def test_a_secret_looking_variable_is_refused(tmp_path: Path, make: Make, name: str) -> None:
    with pytest.raises(JobError, match=name):
        make().submit(spec_of(tmp_path, "", env={name: "x"}))


def test_deadline_ends_a_job_that_ignores_sigterm(tmp_path: Path, make: Make) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "while True:\n    open('beat', 'w').write(str(time.time()))\n    time.sleep(0.05)\n"
    )
    result = run(make(), tmp_path, code, deadline_unix=time.time() + 2)
    assert (result.failure_class, result.reason) == ("resource", "deadline")
    beat = (tmp_path / "job" / "beat").read_text()
    time.sleep(0.5)
    assert (tmp_path / "job" / "beat").read_text() == beat


def test_deadline_gives_a_job_time_to_end_well(tmp_path: Path, make: Make) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n    open('saved', 'w').write('yes')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open('ready', 'w')\n"
        "time.sleep(600)\n"
    )
    result = run(make(grace_s=5.0), tmp_path, code, deadline_unix=time.time() + 3)
    assert (result.failure_class, result.reason) == ("resource", "deadline")
    assert (tmp_path / "job" / "saved").read_text() == "yes"


def test_deadline_dumps_the_stack_of_a_job_that_can(tmp_path: Path, make: Make) -> None:
    code = (
        "import faulthandler, signal, time\n"
        "faulthandler.register(signal.SIGUSR1)\n"
        "def deep_inside():\n    time.sleep(600)\n"
        "deep_inside()\n"
    )
    result = run(make(), tmp_path, code, deadline_unix=time.time() + 2)
    assert result.reason == "deadline"
    assert "in deep_inside" in result.log_tail


def test_a_silent_job_counts_as_stalled_and_a_writing_one_does_not(tmp_path: Path, make: Make) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    executor = make(stall_timeout_s=2.0)
    silent = run(executor, tmp_path / "a", "import time; time.sleep(600)")
    assert (silent.failure_class, silent.reason) == ("resource", "stalled")
    code = "import time\nfor n in range(10):\n    open('metrics.jsonl', 'a').write('x')\n    time.sleep(0.5)"
    assert run(executor, tmp_path / "b", code).failure_class == "ok"


def test_a_stray_child_is_ended_with_the_job(tmp_path: Path, make: Make) -> None:
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        while True:\n"
        "            open('beat', 'w').write(str(time.time()))\n            time.sleep(0.05)\n"
        "    os._exit(0)\n"
        "while not os.path.exists('beat'): time.sleep(0.01)\n"
    )
    assert run(make(), tmp_path, code).failure_class == "ok"
    beat = (tmp_path / "job" / "beat").read_text()
    time.sleep(0.5)
    assert (tmp_path / "job" / "beat").read_text() == beat


def test_a_log_flood_is_bounded_and_keeps_its_end(tmp_path: Path, make: Make) -> None:
    executor = make(log_max_bytes=5 << 20)
    code = (
        "import os\n"
        "block = b'x' * 16000 + b'\\n'\n"
        "for _ in range(6000): os.write(1, block)\n"  # 96 MB
        "raise RuntimeError('the cause')\n"
    )
    handle = executor.submit(spec_of(tmp_path, code))
    result = finish(executor, handle)
    assert result.exit_code == 1
    assert executor.log_path(handle).stat().st_size < (5 << 20) + 70_000
    assert "RuntimeError: the cause" in result.log_tail


def test_cancel_ends_everything_and_may_be_repeated(tmp_path: Path, make: Make) -> None:
    executor = make()
    code = (
        "import subprocess, sys, time\n"
        'beat = \'while 1: open("metrics.jsonl", "w").write(str(time.time())); time.sleep(0.05)\'\n'
        "child = subprocess.Popen([sys.executable, '-c', 'import time\\n' + beat])\n"
        "time.sleep(600)\n"
    )
    handle = executor.submit(spec_of(tmp_path, code))
    seen = tmp_path / "job" / "metrics.jsonl"  # what a remote engine shows while the job runs
    wait_until(lambda: executor.poll(handle).state == "running" and seen.exists())
    with pytest.raises(JobError, match="still runs"):
        executor.collect(handle)
    executor.cancel(handle)
    executor.cancel(handle)
    result = executor.collect(handle)
    assert (result.failure_class, result.reason) == ("stopped", "cancelled")
    assert executor.collect(handle) == result
    beat = seen.read_text()
    time.sleep(0.5)
    assert seen.read_text() == beat


def test_the_same_attempt_starts_once(tmp_path: Path, make: Make) -> None:
    spec = spec_of(tmp_path, "import time; open('starts', 'a').write('x'); time.sleep(1)")
    first, second = make(), make()
    one, two = first.submit(spec), second.submit(spec)
    assert one == two
    assert finish(second, two).failure_class == "ok"
    assert first.submit(spec) == one
    assert first.collect(one).failure_class == "ok"
    assert (tmp_path / "job" / "starts").read_text() == "x"


def test_simultaneous_controllers_start_one(tmp_path: Path, make: Make, controller_script: str) -> None:
    spec = spec_of(tmp_path, "import time; open('starts', 'a').write('x'); time.sleep(3)")
    script = controller_script + (
        "import sys; from rdagent_ft.execution.port import JobSpec; "
        "executor.submit(JobSpec.model_validate_json(sys.argv[1]))"
    )
    argv = [sys.executable, "-c", script, spec.model_dump_json()]
    submitters = [subprocess.Popen(argv) for _ in range(4)]
    assert [process.wait() for process in submitters] == [0, 0, 0, 0]
    executor = make()
    assert finish(executor, executor.submit(spec)).failure_class == "ok"
    assert (tmp_path / "job" / "starts").read_text() == "x"


def test_a_second_attempt_may_follow_in_a_folder_but_not_overlap(tmp_path: Path, make: Make) -> None:
    executor = make()
    first = spec_of(tmp_path, "import time; print('one', flush=True); time.sleep(600)")
    second = spec_of(tmp_path, "print('two')", attempt_id=first.attempt_id[:-1] + "2")
    handle = executor.submit(first)
    with pytest.raises(JobError, match="could not be started"):
        executor.submit(second)
    executor.cancel(handle)
    result = finish(executor, executor.submit(second))
    assert (result.failure_class, result.log_tail) == ("ok", "two\n")
    assert executor.collect(handle).reason == "cancelled"


def test_a_job_is_adopted_after_its_controller_was_killed(
    tmp_path: Path, make: Make, controller_script: str
) -> None:
    code = "import time; open('starts', 'a').write('x'); time.sleep(4); print('done'); raise SystemExit(3)"
    spec = spec_of(tmp_path, code)
    script = controller_script + (
        "import sys, time; from rdagent_ft.execution.port import JobSpec; "
        "handle = executor.submit(JobSpec.model_validate_json(sys.argv[1])); executor.poll(handle); "
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
    executor = make()
    assert executor.submit(spec) == handle
    result = finish(executor, handle)
    assert (result.failure_class, result.exit_code, result.log_tail) == ("candidate", 3, "done\n")
    assert (tmp_path / "job" / "starts").read_text() == "x"


def test_reaped_jobs_are_infra_so_that_a_resume_tries_again(
    tmp_path: Path, make: Make, controller_script: str
) -> None:
    spec = spec_of(tmp_path, "import time; time.sleep(600)", labels={"run_dir": str(tmp_path)})
    script = controller_script + (
        "import sys; from rdagent_ft.execution.port import JobSpec; "
        "print(executor.submit(JobSpec.model_validate_json(sys.argv[1])).model_dump_json())"
    )
    argv = [sys.executable, "-c", script, spec.model_dump_json()]
    handle = JobHandle.model_validate_json(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
    executor = make()
    assert executor.reap(tmp_path) == [spec.attempt_id]
    assert executor.reap(tmp_path) == []
    result = executor.collect(handle)
    assert (result.failure_class, result.reason) == ("infra", "reaped")


@pytest.mark.parametrize("attempt_id", ["../up", ".hidden", "a/b", "", "a" * 200])
def test_an_attempt_id_that_is_no_name_is_refused(tmp_path: Path, make: Make, attempt_id: str) -> None:
    with pytest.raises(JobError, match="attempt id"):
        make().submit(spec_of(tmp_path, "pass", attempt_id=attempt_id))


def test_a_file_named_like_a_library_in_the_job_folder_shadows_nothing(tmp_path: Path, make: Make) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "psutil.py").write_text("raise SystemExit('shadowed')")
    code = "import psutil, rdagent_ft; print(rdagent_ft.__version__)"
    result = run(make(), tmp_path, code)
    assert result.failure_class == "ok", result.log_tail


def test_handles_are_json(tmp_path: Path, make: Make) -> None:
    executor = make()
    handle = executor.submit(spec_of(tmp_path, "pass"))
    again: dict[str, Any] = json.loads(handle.model_dump_json())
    assert finish(executor, JobHandle.model_validate(again)).failure_class == "ok"
