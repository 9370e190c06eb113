"""The launch profile, limits, command, mounts, labels and judge of containers: pure functions, no engine."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.engine.jobs import MAX_INFRA_RETRIES
from rdagent_ft.errors import JobError
from rdagent_ft.execution import docker_labels, docker_watch
from rdagent_ft.execution.bounded_log import KEPT_TAIL_BYTES
from rdagent_ft.execution.docker_engine import EngineInfo
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_judge import judge
from rdagent_ft.execution.docker_meter import MEASURE_EVERY_S
from rdagent_ft.execution.docker_mounts import bind_mounts, checked_inputs, linked_files
from rdagent_ft.execution.docker_profile import (
    GIB,
    KILL_AFTER_S,
    LAUNCHER,
    ORPHAN_GRACE_S,
    Limits,
    container_options,
    job_command,
    job_limits,
    job_variables,
)
from rdagent_ft.execution.port import JobSpec

LIMITS = Limits(memory_bytes=8 * GIB, n_cpus=2.5, shm_bytes=4 * GIB, tmp_bytes=2 * GIB)
MOUNTS = [{"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": True}]


def spec_for(folder: Path, **changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "attempt_id": "r-1-000-train-1",
        "kind": "train",
        "argv": ("python", "-m", "a.job"),
        "out_dir": folder / "run" / "attempt-1",
        "labels": {"run": "r-1", "loop": "000", "stage": "train", "run_dir": str(folder / "run")},
        "deadline_unix": 1_800_000_000.0,
    }
    return JobSpec.model_validate(values | changes)


def options_for(spec: JobSpec, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "labels": {"a": "label"},
        "mounts": MOUNTS,
        "limits": LIMITS,
        "user": (1234, 4321),
        "gpu_uuid": None,
        "runtime": None,
        "is_rootless": False,
    }
    return container_options(spec, **given | changes)


# The profile


def test_the_launch_profile_line_by_line() -> None:
    spec = spec_for(Path("/files"))
    options = options_for(spec)
    assert options.pop("environment") == job_variables(spec, LIMITS.n_cpus)
    assert options == {
        "labels": {"a": "label"},
        "user": "1234:4321",
        "working_dir": "/files/run/attempt-1",
        "hostname": "job",
        "init": True,
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 4096,
        "mem_limit": 8 * GIB,
        "memswap_limit": 8 * GIB,
        "nano_cpus": 2_500_000_000,
        "shm_size": 4 * GIB,
        "tmpfs": {"/tmp": f"size={2 * GIB},mode=1777,exec"},
        "mounts": MOUNTS,
        "log_config": {"type": "json-file", "config": {"max-size": "20m", "max-file": "3"}},
        "ulimits": [{"name": "core", "soft": 0, "hard": 0}],
        "restart_policy": {"Name": "no"},
        "oom_score_adj": 500,
    }


def test_a_job_that_needs_no_gpu_is_given_none() -> None:
    assert "device_requests" not in options_for(spec_for(Path("/f")), gpu_uuid="GPU-1")


def test_a_gpu_is_asked_for_by_its_uuid() -> None:
    options = options_for(spec_for(Path("/f"), needs_gpu=True), gpu_uuid="GPU-1")
    assert options["device_requests"] == [{"driver": "", "capabilities": [["gpu"]], "device_ids": ["GPU-1"]}]


def test_a_gpu_that_nobody_listed_is_still_asked_for() -> None:
    """So that the engine refuses, and no training runs on the CPU by mistake."""
    options = options_for(spec_for(Path("/f"), needs_gpu=True))
    assert options["device_requests"] == [{"driver": "", "capabilities": [["gpu"]], "count": 1}]


def test_another_runtime_changes_nothing_else() -> None:
    spec = spec_for(Path("/f"))
    assert options_for(spec, runtime="runsc") == {**options_for(spec), "runtime": "runsc"}


def test_in_a_rootless_engine_the_caller_is_uid_0_inside() -> None:
    spec = spec_for(Path("/f"))
    rootless = options_for(spec, is_rootless=True)
    expected = {**options_for(spec), "user": "0:0"}
    del expected["oom_score_adj"]  # not a rootless engine's to give
    assert rootless == expected


# What a job may use


def info(**changes: Any) -> EngineInfo:
    values: dict[str, Any] = {
        "id": "x", "version": "27", "api_version": "1.47", "n_cpus": 16, "memory_bytes": 100 * GIB,
        "root_dir": "/var/lib/docker", "is_rootless": False, "runtimes": ("runc",),
    }  # fmt: skip
    return EngineInfo.model_validate(values | changes)


def test_without_settings_a_job_may_use_nine_tenths_of_the_memory_and_all_cores() -> None:
    limits = job_limits(info())
    assert limits.memory_bytes == 90 * GIB
    assert limits.n_cpus == 16
    assert (limits.shm_bytes, limits.tmp_bytes) == (16 * GIB, 90 * GIB // 4)
    assert (limits.n_pids, limits.output_bytes, limits.n_output_files) == (4096, 200 * GIB, 200_000)


def test_settings_are_the_limits() -> None:
    limits = job_limits(info(), memory_gib=10, n_cpus=2.5, shm_gib=1, output_gib=3)
    assert limits.memory_bytes == 10 * GIB
    assert limits.n_cpus == 2.5
    assert (limits.shm_bytes, limits.tmp_bytes) == (GIB, 10 * GIB // 4)
    assert limits.output_bytes == 3 * GIB


@given(
    memory_gib=st.none() | st.floats(0.01, 4096),
    n_cpus=st.none() | st.floats(0.1, 1024),
    shm_gib=st.floats(0.001, 1024),
)
def test_shared_memory_and_tmp_leave_memory_for_the_job(
    memory_gib: float | None, n_cpus: float | None, shm_gib: float
) -> None:
    limits = job_limits(info(), memory_gib=memory_gib, n_cpus=n_cpus, shm_gib=shm_gib)
    assert 0 < limits.shm_bytes <= limits.memory_bytes // 2
    assert limits.tmp_bytes > 0
    assert limits.shm_bytes + limits.tmp_bytes <= limits.memory_bytes * 3 / 4
    assert 0 < limits.n_cpus <= 16, "the engine refuses more cores than it has"


@pytest.mark.parametrize("left_s", [3600.0, 1.0, 0.0, -1000.0])
def test_the_container_ends_itself_a_little_after_the_deadline(left_s: float) -> None:
    argv = ("python", "-c", "print('a b'); \"c\" $HOME")
    command = job_command(spec_for(Path("/f"), argv=argv, deadline_unix=time.time() + left_s))
    *before, seconds = command[: -len(argv)]
    assert before == ["sh", "-c", LAUNCHER, "sh", "timeout", f"--kill-after={KILL_AFTER_S}"]
    assert tuple(command[-len(argv) :]) == argv
    assert int(seconds) == pytest.approx(max(left_s, 1) + ORPHAN_GRACE_S, abs=1.5)
    assert int(seconds) > ORPHAN_GRACE_S, "0 would mean: no end at all"


@settings(deadline=None, max_examples=20)
@given(
    words=st.lists(st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1), max_size=4)
)
def test_arguments_reach_the_job_as_they_are(words: list[str]) -> None:
    """No shell of ours reads them. The command is run here: it is the same inside."""
    argv = (
        sys.executable,
        "-c",
        "import sys; print(ascii(sys.argv[1:])); print('e', file=sys.stderr)",
        *words,
    )
    command = job_command(spec_for(Path("/f"), argv=argv, deadline_unix=time.time() + 60))
    done = subprocess.run(command, capture_output=True, check=True)
    assert sorted(done.stdout.decode().splitlines()) == sorted([ascii(words), "e"])
    assert done.stderr == b"", "both streams are one"


def test_the_environment_is_made_of_nothing_but_this(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "of the controller")
    variables = job_variables(spec_for(Path("/f"), env={"WANTED": "yes"}), 2.5)
    assert variables.pop("WANTED") == "yes"
    assert sorted(variables) == [
        "HF_DATASETS_CACHE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE",
        "HOME", "LANG", "LOGNAME", "MPLCONFIGDIR", "OMP_NUM_THREADS", "OMP_WAIT_POLICY",
        "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED",
        "TOKENIZERS_PARALLELISM", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "USER", "XDG_CACHE_HOME",
    ]  # fmt: skip
    assert variables["HOME"] == "/tmp"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert {name for name, value in variables.items() if value.startswith("/tmp/.cache")} == {
        "HF_DATASETS_CACHE", "HF_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
        "XDG_CACHE_HOME",
    }  # fmt: skip


def test_the_numbers_that_the_page_names() -> None:
    """docs/execution.md names them; whoever changes one changes the page."""
    defaults = {n: p.default for n, p in inspect.signature(DockerExecutor.__init__).parameters.items()}
    assert (ORPHAN_GRACE_S, defaults["grace_s"]) == (60, 10.0)
    assert (defaults["log_max_bytes"], KEPT_TAIL_BYTES) == (50 << 20, 64 << 10)
    assert (docker_watch.OUTPUT_LOOK_S, MEASURE_EVERY_S) == (10.0, 20.0)
    assert MAX_INFRA_RETRIES == 2


# Whose a container is


def test_labels_say_whose_job_it_is_and_until_when() -> None:
    spec = spec_for(
        Path("/files"), labels={"run": "r-1", "loop": "000", "stage": "train", "run_dir": "/files/run"}
    )
    labels = docker_labels.job_labels(spec, spec.out_dir)
    prefix = "io.rdagent-ft."
    assert all(key.startswith(prefix) for key in labels)
    short = {key.removeprefix(prefix): value for key, value in labels.items()}
    assert short.pop("owner").split("/")[1] == str(os.getpid())
    assert short == {
        "host": docker_labels.host_id(),
        "uid": str(os.getuid()),
        "attempt": "r-1-000-train-1",
        "deadline": "1800000000",
        "out-dir": "/files/run/attempt-1",
        "run": "r-1",
        "loop": "000",
        "stage": "train",
        "run-dir": "/files/run",
    }
    assert docker_labels.container_name(spec.attempt_id) == "ft-r-1-000-train-1"


def test_an_unknown_label_of_a_spec_is_no_label_of_ours() -> None:
    spec = spec_for(Path("/f"), labels={"host": "another", "uid": "0", "owner": "", "x": "y"})
    labels = docker_labels.job_labels(spec, spec.out_dir)
    assert labels[docker_labels.HOST] == docker_labels.host_id()
    assert "io.rdagent-ft.x" not in labels


def test_an_owner_lives_as_long_as_that_very_process() -> None:
    labels = docker_labels.job_labels(spec_for(Path("/f")), Path("/f"))
    assert docker_labels.owner_lives(labels)
    boot, pid, ticks = labels[docker_labels.OWNER].split("/")
    for other in (
        f"{boot}/{pid}/{int(ticks) + 1}",  # a later process of the same number
        f"another-boot/{pid}/{ticks}",
        f"{boot}/{pid}",
        "",
        f"{boot}/x/{ticks}",
    ):
        assert not docker_labels.owner_lives({**labels, docker_labels.OWNER: other}), other


# What a job sees


def test_inputs_are_read_only_and_one_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").touch()
    inputs = {"model": tmp_path / "model", "rows": tmp_path / "rows.jsonl"}
    spec = spec_for(tmp_path, inputs=inputs, aliases={"/data": "rows", "/out": "out"})
    code = tmp_path / "code"
    mounts = {m["Target"]: m for m in bind_mounts(spec, checked_inputs(spec), code, "/opt/x/code")}
    out = str(spec.out_dir)
    assert {target: (m["Source"], m["ReadOnly"]) for target, m in mounts.items()} == {
        out: (out, False),
        "/out": (out, False),
        str(tmp_path / "model"): (str(tmp_path / "model"), True),
        str(tmp_path / "rows.jsonl"): (str(tmp_path / "rows.jsonl"), True),
        "/data": (str(tmp_path / "rows.jsonl"), True),
        "/opt/x/code": (str(code), True),
    }


def test_an_input_that_an_earlier_job_may_have_replaced_by_a_link_is_refused(tmp_path: Path) -> None:
    made_by_a_job = tmp_path / "run" / "attempt-0"
    made_by_a_job.mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (made_by_a_job / "weights").symlink_to(tmp_path / "home")
    with pytest.raises(JobError, match="through a link"):
        checked_inputs(spec_for(tmp_path, inputs={"weights": made_by_a_job / "weights"}))
    (made_by_a_job / "up").symlink_to(tmp_path)
    with pytest.raises(JobError, match="through a link"):
        checked_inputs(spec_for(tmp_path, inputs={"weights": made_by_a_job / "up" / "home"}))


def test_a_missing_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="'rows' of job"):
        checked_inputs(spec_for(tmp_path, inputs={"rows": tmp_path / "rows.jsonl"}))


def test_a_model_of_the_hubs_cache_comes_with_the_files_it_links_to(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "abc").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    (snapshot / "alias").symlink_to("model.safetensors")
    (snapshot / "gone").symlink_to("../../blobs/gone")
    (snapshot / "folder").symlink_to(tmp_path)
    assert linked_files(snapshot) == {str(blobs / "abc"): blobs / "abc"}


def test_links_of_a_jobs_own_output_are_not_followed(tmp_path: Path) -> None:
    """What a job wrote may be the next job's input, and may link to any file of the host."""
    written = tmp_path / "run" / "attempt-0" / "adapter"
    written.mkdir(parents=True)
    (tmp_path / "key").write_text("private")
    (written / "weights").symlink_to(tmp_path / "key")
    spec = spec_for(tmp_path, inputs={"adapter": written})
    mounts = bind_mounts(spec, checked_inputs(spec), tmp_path / "code", "/code")
    assert str(tmp_path / "key") not in {m["Source"] for m in mounts} | {m["Target"] for m in mounts}


# How it ended

STARTED = "2026-11-21T12:00:00.123456789Z"
ENDED = "2026-11-21T12:30:00.5Z"
ENDED_UNIX = 1_795_264_200.5
LATER = ENDED_UNIX + 1000


def judged(state: dict[str, Any], **changes: Any) -> tuple[str, str]:
    given: dict[str, Any] = {
        "stop_reason": None, "deadline_unix": LATER, "engine_was_away": False, "needs_gpu": False,
        "log_tail": "",
    }  # fmt: skip
    return judge({"StartedAt": STARTED, "FinishedAt": ENDED, **state}, **given | changes)


@pytest.mark.parametrize(
    ("state", "more", "expected"),
    [
        ({"ExitCode": 0}, {}, ("ok", "exit")),
        ({"ExitCode": 1}, {}, ("candidate", "exit")),
        ({"ExitCode": 134}, {}, ("candidate", "exit")),
        ({"ExitCode": 139}, {}, ("candidate", "exit")),
        ({"ExitCode": 127, "StartedAt": "0001-01-01T00:00:00Z"}, {}, ("infra", "start_failed")),
        ({"ExitCode": 1, "OOMKilled": True}, {}, ("resource", "out_of_memory")),
        ({"ExitCode": 137, "OOMKilled": True}, {}, ("resource", "out_of_memory")),
        ({"ExitCode": 137}, {}, ("resource", "killed, memory suspected")),
        ({"ExitCode": 135}, {}, ("resource", "killed, memory suspected")),
        ({"ExitCode": 143}, {}, ("infra", "killed")),
        ({"ExitCode": 130}, {}, ("infra", "killed")),
        ({"ExitCode": 129}, {}, ("infra", "killed")),
        ({"ExitCode": 124}, {"deadline_unix": ENDED_UNIX - 60}, ("resource", "deadline")),
        ({"ExitCode": 137}, {"deadline_unix": ENDED_UNIX - 90}, ("resource", "deadline")),
        ({"ExitCode": 124}, {}, ("candidate", "exit")),
        ({"ExitCode": 137}, {"engine_was_away": True}, ("infra", "engine_restarted")),
        ({"ExitCode": 255}, {"engine_was_away": True}, ("infra", "engine_restarted")),
        ({"ExitCode": 143}, {"engine_was_away": True}, ("infra", "engine_restarted")),
        ({"ExitCode": 1}, {"engine_was_away": True}, ("candidate", "exit")),
        ({"ExitCode": 143}, {"stop_reason": "cancelled"}, ("stopped", "cancelled")),
        ({"ExitCode": 0}, {"stop_reason": "cancelled"}, ("stopped", "cancelled")),
        ({"ExitCode": 143}, {"stop_reason": "deadline"}, ("resource", "deadline")),
        ({"ExitCode": 0}, {"stop_reason": "deadline"}, ("resource", "deadline")),
        ({"ExitCode": 137}, {"stop_reason": "stalled"}, ("resource", "stalled")),
        ({"ExitCode": 137}, {"stop_reason": "output_limit"}, ("resource", "output_limit")),
        ({"ExitCode": 1}, {"needs_gpu": True, "log_tail": "Error: GPU is lost"}, ("infra", "gpu_lost")),
        ({"ExitCode": 1}, {"log_tail": "RuntimeError: GPU is lost"}, ("candidate", "exit")),
    ],
)  # fmt: skip
def test_the_table_of_ends(state: dict[str, Any], more: dict[str, Any], expected: tuple[str, str]) -> None:
    assert judged(state, **more) == expected


@given(
    code=st.integers(0, 255),
    oom=st.booleans(),
    stop_reason=st.sampled_from([None, "cancelled", "deadline", "stalled", "output_limit"]),
    deadline_in_s=st.floats(-1e6, 1e6),
    away=st.booleans(),
    needs_gpu=st.booleans(),
    log_tail=st.sampled_from(["", "GPU is lost", "CUDA out of memory", "ok exit 0"]),
)
def test_what_no_end_can_be_taken_for(
    code: int, oom: bool, stop_reason: str | None, deadline_in_s: float, away: bool, needs_gpu: bool,
    log_tail: str,
) -> None:  # fmt: skip
    failure_class, reason = judged(
        {"ExitCode": code, "OOMKilled": oom},
        stop_reason=stop_reason, deadline_unix=ENDED_UNIX + deadline_in_s, engine_was_away=away,
        needs_gpu=needs_gpu, log_tail=log_tail,
    )  # fmt: skip
    assert (failure_class == "ok") == (code == 0 and stop_reason is None)
    assert (failure_class == "stopped") == (stop_reason == "cancelled")
    if failure_class == "candidate":
        assert code != 0
        assert not oom
        assert stop_reason is None
    if failure_class == "infra":
        assert away or reason in {"killed", "gpu_lost"}, "a retry of its own needs a reason outside the job"
    if not needs_gpu:
        assert reason != "gpu_lost", "what a job prints decides nothing else"
