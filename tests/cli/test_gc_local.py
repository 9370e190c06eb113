"""`rdagent-ft gc` where no engine is needed: forged records of jobs, and the store of results."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_containers import command, sleeping_job

from rdagent_ft.engine.journal import Journal
from rdagent_ft.execution.docker_executor import control_folder
from rdagent_ft.execution.port import JobHandle, JobResult
from rdagent_ft.execution.processes import identify
from rdagent_ft.execution.result_store import store_result


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path / "files"))
    monkeypatch.setenv("FT_EXECUTOR", "local")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "files"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user that has nothing to do with any run."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("was_recorded", [True, False], ids=["running", "intent"])
def test_a_container_cannot_have_gc_stop_a_process_of_this_machine(
    files: Path, bystander: subprocess.Popen[bytes], was_recorded: bool
) -> None:
    run_dir = files / "output" / "a-run"
    run_dir.mkdir(parents=True)
    spec = sleeping_job(run_dir, "a-run-000-train-1")
    journal = Journal.create(run_dir, {"run_id": "a-run"})
    journal.intend(0, "train", 1, spec)
    if was_recorded:
        handle = JobHandle(executor="docker", attempt_id=spec.attempt_id, out_dir=spec.out_dir)
        journal.launched(spec.attempt_id, handle)
    journal.close()
    control_folder(spec.out_dir, spec.attempt_id).mkdir(parents=True)
    # What a job in a container can write: its own folder, in the form of the local executor.
    forged = spec.out_dir / ".jobs" / spec.attempt_id
    forged.mkdir(parents=True)
    named = identify(bystander.pid)
    assert named is not None
    (forged / "claim").write_text(json.dumps([named.pid, named.start_ticks, named.boot_id]))
    done = command("any", "gc")
    assert (done.returncode, done.stdout) == (0, "a-run: no job left behind\n")
    assert bystander.poll() is None
    assert [path.name for path in forged.iterdir()] == ["claim"]


def test_a_damaged_journal_is_named_and_the_others_are_looked_at(files: Path) -> None:
    for name in ("a-damaged", "b-fine"):
        (files / "output" / name).mkdir(parents=True)
    (files / "output" / "a-damaged" / "run.db").write_text("not a database")
    Journal.create(files / "output" / "b-fine", {"run_id": "b-fine"}).close()
    done = command("any", "gc")
    assert done.returncode == 0, done.stderr
    damaged, fine = done.stdout.splitlines()
    assert damaged.startswith("a-damaged: left alone: ")
    assert fine == "b-fine: no job left behind"


def test_stored_results_shrink_to_what_was_asked_for(files: Path, tmp_path: Path) -> None:
    store = files / "cache" / "jobs"
    now = time.time()
    result = JobResult(failure_class="ok", reason="exit", exit_code=0, started_unix=now - 1, ended_unix=now)
    out = tmp_path / "job"
    out.mkdir()
    (out / "weights").write_bytes(b"w" * 1_000_000)
    for key in ("a" * 64, "b" * 64):
        assert store_result(store, key, out, result, out / "job.log", skip=(), max_bytes=1 << 30)
    os.utime(store / ("a" * 64) / "result.json", (1, 1))
    assert "0.00 GiB" in command("any", "gc", "--cache-gib", "0.001", "--dry-run").stdout
    assert len(list(store.glob("?" * 64))) == 2
    assert "removed 1 stored results" in command("any", "gc", "--cache-gib", "0.001").stdout
    assert [path.name for path in store.glob("?" * 64)] == ["b" * 64], "the one used last is kept"


def test_without_an_engine_local_jobs_can_be_cleaned_all_the_same(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    local = command("any", "gc")
    assert (local.returncode, local.stdout) == (0, "")
    docker = command("any", "gc", "--executor", "docker")
    assert docker.returncode == 3
    assert "--executor local" in docker.stderr
    assert command("any", "gc", "--images").returncode == 2
