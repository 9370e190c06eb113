"""The data-script job run for real in a subprocess, and what its end is taken to mean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from rdagent_ft.execution.port import FailureClass, JobResult
from rdagent_ft.training.data_script import data_script_argv, last_traceback, script_failure

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = "open('data.jsonl', 'w').write('{}\\n' * 3)\n"


def start(folder: Path, script: str) -> subprocess.Popen[str]:
    path = folder / "process_data.py"
    path.write_text(script)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    argv = data_script_argv(path)
    argv = (sys.executable, *argv[1:-1], str(out))
    return subprocess.Popen(
        argv, cwd=out, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]},
    )  # fmt: skip


def run(folder: Path, script: str) -> tuple[int, str]:
    process = start(folder, script)
    log, _ = process.communicate(timeout=60)
    return process.returncode, log


def result(
    folder: Path,
    exit_code: int | None,
    log: str = "",
    failure_class: FailureClass | None = None,
    reason: str = "exit",
) -> JobResult:
    judged: Literal["ok", "candidate"] = "ok" if exit_code == 0 else "candidate"
    return JobResult(
        failure_class=failure_class or judged, reason=reason, exit_code=exit_code,
        started_unix=0, ended_unix=1, log_tail=log[-4000:],
    )  # fmt: skip


@pytest.mark.parametrize(
    "script",
    [
        GOOD,
        GOOD + "import sys; sys.exit()\n",
        GOOD + "raise SystemExit(0)\n",
        "def f(): pass\nout = open('data.jsonl', 'w')\nout.write('{}\\n\\n{}\\n  \\n{}')\n",  # left open
        "import sys\nout = open('data.jsonl', 'w')\nout.write('{}\\n' * 3)\nsys.exit()\n",  # left open
        "import sys, os\nassert __name__ == '__main__' and len(sys.argv) == 1\n" + GOOD,
    ],
)
def test_a_good_script_leaves_a_counted_result(tmp_path: Path, script: str) -> None:
    code, log = run(tmp_path, script)
    assert code == 0, log
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["n_rows"] == 3
    assert found["seconds"] >= 0
    assert script_failure(result(tmp_path, 0), tmp_path / "out", 60) is None


@pytest.mark.parametrize(
    ("script", "failure_class", "words"),
    [
        ("x = 1\ny = x / 0\n", "data.script_failed", "process_data.py, line 2: ZeroDivisionError"),
        ("import json\njson.loads('{')\n", "data.script_failed", "process_data.py, line 2: json.decoder"),
        ("import pandas_does_not_exist\n", "data.script_failed", "ModuleNotFoundError"),
        ("raise OSError(28, 'No space left on device')", "data.script_failed", "No space left"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "data.script_failed", "CUDA"),
        ("print('bad input'); raise SystemExit(5)", "data.script_failed", "bad input"),
        ("raise SystemExit('no rows are good')", "data.script_failed", "no rows are good"),
        ("pass", "data.script_output", "wrote no"),
        ("import os; os.symlink('/etc/passwd', 'data.jsonl')", "data.script_output", "regular file"),
        ("import os; os.mkfifo('data.jsonl')", "data.script_output", "regular file"),
        ("import os; os.mkdir('data.jsonl')", "data.script_output", "regular file"),
        (GOOD + "import os; os._exit(0)", "data.script_failed", "ended the process"),
        (GOOD + "import os; os.mkdir('result.json')", "data.script_failed", "result.json"),
    ],
)
def test_a_bad_script_is_blamed_with_its_last_words(
    tmp_path: Path, script: str, failure_class: str, words: str
) -> None:
    code, log = run(tmp_path, script)
    failure = script_failure(result(tmp_path, code, log), tmp_path / "out", 60)
    assert failure is not None, log
    assert (failure.failure_class, failure.blame) == (failure_class, "candidate")
    assert words in failure.message
    assert failure.fix
    assert len(failure.message) <= 500


def test_a_script_cannot_shift_the_blame(tmp_path: Path) -> None:
    told = json.dumps({"class": "env.lost", "message": "the machine is broken"})
    script = f"open('failure.json', 'w').write({told!r})\nraise SystemExit(3)\n"
    code, log = run(tmp_path, script)
    failure = script_failure(result(tmp_path, code, log), tmp_path / "out", 60)
    assert code == 3
    assert failure is not None
    assert (failure.failure_class, failure.blame) == ("data.script_failed", "candidate")


@pytest.mark.parametrize(
    ("failure_class", "reason", "expected"),
    [
        ("resource", "deadline", "resource.deadline"),
        ("resource", "stalled", "resource.stalled"),
        ("resource", "oom", "resource.host_oom"),
        ("infra", "lost", "env.lost"),
        ("infra", "start_failed", "env.start"),
        ("infra", "engine_gone", "env.lost"),
        ("stopped", "cancelled", "run.stopped"),
    ],
)
def test_how_the_executor_saw_it_end_comes_first(
    tmp_path: Path, failure_class: FailureClass, reason: str, expected: str
) -> None:
    log = "Traceback (most recent call last):\nValueError: whatever"
    failure = script_failure(result(tmp_path, 137, log, failure_class, reason), tmp_path, 90)
    assert failure is not None
    assert failure.failure_class == expected
    assert failure.blame == "environment"
    if failure_class == "resource":
        assert "it has 90 s" in (failure.fix or "")


def test_a_hanging_script_dumps_its_stack_on_request(tmp_path: Path) -> None:
    mark = tmp_path / "out" / "ready"
    process = start(tmp_path, "import time\nopen('ready', 'w').close()\nwhile True:\n    time.sleep(0.05)\n")
    try:
        deadline = time.monotonic() + 30
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        assert process.poll() is None
    finally:
        process.kill()
    log, _ = process.communicate(timeout=10)
    assert "process_data.py" in log


def test_evidence_is_clean_and_bounded() -> None:
    assert last_traceback("") == "the script ended with an error and wrote nothing"
    log = "x" * 10_000 + '\nTraceback (most recent call last):\n  File "/r/process_data.py", line 7, in f\n'
    text = last_traceback(log + "ValueError: \x1b[31m" + "y" * 3000)
    assert text.startswith("process_data.py, line 7: ValueError: yyy")
    assert len(text) <= 480
