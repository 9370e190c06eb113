"""The code job on hostile programs, as a process of its own: each is bounded, and none harms the others."""

from __future__ import annotations

import json
import os
import platform
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.evaluation.code.code_job import usable_workers
from rdagent_ft.execution.contained import Limits, run_program
from rdagent_ft.execution.syscall_filter import JUDGED, LAST_KNOWN, REFUSED, filter_bytes

REPOSITORY = Path(__file__).resolve().parents[2]
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
QUICK = Limits(wall_s=3.0, memory_bytes=256 << 20, output_bytes=1 << 16)
REFUSED_WORDS = "Operation not permitted"

GOOD = "print('fine')\nassert sorted({3, 1, 2}) == [1, 2, 3]\n"
HOSTILE: dict[str, tuple[str, str, str]] = {
    "leaves_with_0": ("import sys\nsys.exit(0)", "failed", "before its tests"),
    "leaves_hard_with_0": ("import os\nos._exit(0)", "failed", "before its tests"),
    "leaves_at_exit": ("import atexit, os\natexit.register(os._exit, 0)\nassert False", "failed", "before"),
    "leaves_from_a_thread": (
        "import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(9)",
        "failed",
        "before its tests",
    ),
    "prints_the_protocol": ("import os\nos.write(1, b'SE' + bytes(32))\nos._exit(0)", "failed", ""),
    "claims_the_end": (
        "import os\nfor n in range(3, 64):\n    try:\n        os.write(n, b'E' + bytes(32))\n"
        "    except OSError:\n        pass\nos._exit(0)",
        "failed",
        "",
    ),
    "fork": ("import os\nos.fork()", "failed", REFUSED_WORDS),
    "fork_bomb": (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        "timeout",
        "3 s",
    ),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])", "failed", REFUSED_WORDS),
    "threads_without_end": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(99,)).start()",
        "failed|memory|timeout",
        "",
    ),
    "endless": ("while True: pass", "timeout", "3 s"),
    "sleeps_without_streams": ("import os, time\nos.closerange(0, 3)\ntime.sleep(99)", "timeout", "3 s"),
    "closes_every_pipe": (
        "import os, time\nos.closerange(0, 64)\ntime.sleep(99)",
        "failed",
        "before its tests",
    ),
    "ignores_signals": (
        "import signal\nfor n in (1, 2, 15, 24):\n    signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
        "3 s",
    ),
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "memory", "256 MiB"),
    "memory_beside": ("import os\nos.memfd_create('x')", "failed", REFUSED_WORDS),
    "deep": ("def f(): f()\nf()", "failed", "RecursionError"),
    "floods": ("while True: print('x' * 999)", "failed", "printed more"),
    "kills_its_parent": ("import os\nos.kill(os.getppid(), 9)", "failed", REFUSED_WORDS),
    "kills_everybody": ("import os\nos.kill(-1, 9)", "failed", REFUSED_WORDS),
    "signals_by_a_pipe": (
        "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
        "failed",
        REFUSED_WORDS,
    ),
    "starves_its_parent": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
        "failed",
        REFUSED_WORDS,
    ),
    "writes_results": ("open('{out}/results.jsonl', 'w')", "failed", REFUSED_WORDS),
    "appends_results": ("open('{out}/results.jsonl', 'a')", "failed", REFUSED_WORDS),
    "removes_results": ("import os\nos.rename('{out}', '{out}-gone')", "failed", REFUSED_WORDS),
    "fills_the_disk": ("open('big', 'wb').write(bytes(1 << 30))", "failed", REFUSED_WORDS),
    "makes_folders": ("import os\nwhile True: os.mkdir('x'); os.chdir('x')", "failed", REFUSED_WORDS),
    "reads_the_request": ("open('{out}/request.json')", "failed", "No such file"),
    "reads_a_secret": (
        "import os\nassert 'CANARY' not in os.environ\nassert sorted(os.environ) == sorted(set(os.environ) & "
        "{'PATH', 'LANG', 'PYTHONHASHSEED', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'LC_CTYPE'})",
        "passed",
        "",
    ),
    "reads_its_input": (
        "import sys\nassert sys.stdin.read() == ''\nassert sys.argv == ['program.py']",
        "passed",
        "",
    ),
    "sees_an_empty_folder": ("import os\nassert os.listdir('.') == []", "passed", ""),
    "connects": ("import socket\nsocket.socket()", "failed", REFUSED_WORDS),
    "crashes": ("import ctypes\nctypes.string_at(0)", "failed", "-11"),
    "does_not_compile": ("def f(:", "failed", "SyntaxError"),
    "compiles_too_deeply": ("x = " + "(" * 100_000, "failed|memory", ""),
    "odd_text": ("raise ValueError('\\x1b[31m\\udcff' + 'x' * 99999)", "failed", ""),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the job makes its programs' folders in."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, scratch: Path) -> dict[str, dict[str, Any]]:
    """Run all hostile programs in one job, a good one before and after each."""
    out = tmp_path_factory.mktemp("code-job")
    names = [name for hostile in HOSTILE for name in (f"before {hostile}", hostile)] + ["last"]
    programs = [HOSTILE[name][0].replace("{out}", str(out)) if name in HOSTILE else GOOD for name in names]
    request = {"programs": programs, "limits": QUICK._asdict(), "n_workers": 2}
    (out / "request.json").write_text(json.dumps(request))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CANARY": "1", "TMPDIR": str(scratch)}
    argv = [sys.executable, "-m", "rdagent_ft.evaluation.code.code_job", "request.json"]
    done = subprocess.run(argv, cwd=out, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["progress.jsonl", "results.jsonl"]
    progress = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert progress[-1]["done"] == progress[-1]["total"] == len(names)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(len(names)))
    return {names[line["index"]]: line for line in lines}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_bounded(ended: dict[str, dict[str, Any]], name: str) -> None:
    _, outcomes, words = HOSTILE[name]
    assert ended[name]["outcome"] in outcomes.split("|"), ended[name]
    assert words in ended[name]["detail"]
    assert len(ended[name]["detail"]) <= 300


def test_no_program_harms_the_others(ended: dict[str, dict[str, Any]]) -> None:
    others = {name: line["outcome"] for name, line in ended.items() if name not in HOSTILE}
    assert set(others.values()) == {"passed"}, others


def test_nothing_of_a_program_stays(ended: dict[str, dict[str, Any]], scratch: Path) -> None:
    assert ended
    assert list(scratch.iterdir()) == []
    places = [_link(entry / "cwd") for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    assert not [place for place in places if place.startswith(str(scratch))]


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_a_job_that_is_ended_keeps_what_it_found(tmp_path: Path) -> None:
    programs = [GOOD, "while True: pass"]
    request = {"programs": programs, "limits": QUICK._replace(wall_s=60.0)._asdict(), "n_workers": 2}
    (tmp_path / "request.json").write_text(json.dumps(request))
    argv = [sys.executable, "-m", "rdagent_ft.evaluation.code.code_job", "request.json"]
    with subprocess.Popen(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as process:
        results = tmp_path / "results.jsonl"
        give_up_at = time.monotonic() + 60
        while not (results.is_file() and results.read_text()):
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
        (child,) = (place for place in _children_of(process.pid))
        process.kill()
    assert json.loads(results.read_text())["outcome"] == "passed"
    give_up_at = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < give_up_at, "a program outlived its job"
        time.sleep(0.1)


def _children_of(pid: int) -> list[int]:
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [child for child in found if _parent_of(child) == pid]


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return -1


def test_no_more_programs_run_than_the_container_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    found: list[int] = []
    for share in ("3", "", "x", "0", "999"):
        monkeypatch.setenv("OMP_NUM_THREADS", share)
        found.append(usable_workers(8))
    assert found == [3, 8, 8, 1, 8]


def test_without_the_walls_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that refuses the filter: not one line of the program is executed."""
    monkeypatch.setattr("rdagent_ft.execution.contained.filter_bytes", lambda: b"no filter at all")
    shown = tmp_path / "shown"
    ended = run_program(f"open({str(shown)!r}, 'w').close()", QUICK)
    assert ended.outcome == "not_run"
    assert "could not be confined" in ended.detail
    assert not shown.exists()


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    with pytest.raises(OSError, match="sparc"):
        filter_bytes("sparc")


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path = HEADERS[machine]
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    pairs = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    known = {name: int(number) for name, number in pairs}
    column = list(HEADERS).index(machine)
    for name, numbers in (REFUSED | JUDGED).items():
        number = numbers[column]
        assert number is None or number <= LAST_KNOWN
        if name in known:
            assert number == known[name], name
        else:
            assert number is None or number > 450, name  # newer than the headers


@pytest.mark.parametrize("machine", HEADERS)
def test_every_jump_of_the_filter_lands_inside(machine: str) -> None:
    code = filter_bytes(machine)
    steps = list(struct.iter_unpack("<HBBI", code))
    assert len(code) == 8 * len(steps)
    assert steps[-1] == (0x06, 0, 0, 0x7FFF0000)
    for place, (_, if_true, if_false, _) in enumerate(steps):
        assert place + 1 + max(if_true, if_false) <= len(steps) - 1 + (place == len(steps) - 1)


def test_this_machine_is_covered() -> None:
    assert filter_bytes(platform.machine())
