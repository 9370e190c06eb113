"""Jobs on an engine that does not see our files: a real one, reached through TCP."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from docker_jobs import MakeDocker, far_files
from far_engines import TcpForwarder
from job_steps import finish, run, spec_of, wait_until

from rdagent_ft.errors import EngineAwayError, JobError, PreflightError
from rdagent_ft.execution import docker_archives, docker_labels, docker_transfer
from rdagent_ft.execution.docker_control import control_folder
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_files import NearFiles
from rdagent_ft.execution.docker_meter import Meter
from rdagent_ft.execution.docker_parcels import output_volume
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.docker_short import helper_labels
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.execution.tail import JsonLinesTail

SLEEP = "import time; time.sleep(600)"
Sent = list[str]


@pytest.fixture
def sent(far_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The names of the couriers that brought something."""
    seen: Sent = []
    real = far_engine.put_archive

    def put(name: str, folder: str, archive: object) -> None:
        seen.append(name.removeprefix("ft-courier-"))
        real(name, folder, archive)  # pyright: ignore

    monkeypatch.setattr(far_engine, "put_archive", put)
    return seen


def kinds(sent: Sent) -> list[str]:
    return sorted("out" if name.endswith("-out") else name.split("-")[1] for name in sent)


def with_data(folder: Path, text: str) -> dict[str, Path]:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "in.txt").write_text(text)
    return {"data": folder / "data"}


def volumes_of(engine: Engine, attempt_id: str) -> list[str]:
    return [v["Name"] for v in engine.volumes({docker_labels.ATTEMPT: attempt_id})]


def test_a_job_sees_its_files_where_they_are_here_and_cannot_change_them(
    tmp_path: Path, make_far: MakeDocker
) -> None:
    inputs = with_data(tmp_path, "seven")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.yaml").write_text("epochs: 1")
    (tmp_path / "files" / "neighbour").write_text("not asked for")
    inputs["config"] = tmp_path / "files" / "config.yaml"
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    (tmp_path / "job" / "checkpoint" / "state").write_text("of the attempt before")
    code = f"""
import json, os
seen = {{
    "data": open({str(inputs["data"])!r} + "/in.txt").read(),
    "alias": open("/data/in.txt").read(),
    "config": open({str(inputs["config"])!r}).read(),
    "neighbours": os.listdir({str(tmp_path / "files")!r}),
    "checkpoint": open("checkpoint/state").read(),
    "me": [os.getuid(), os.getgid()], "owner": [os.stat(".").st_uid, os.stat("checkpoint/state").st_gid],
    "around": sorted(os.listdir({str(tmp_path)!r})),
}}
open("checkpoint/state", "w").write("changed")
os.remove("checkpoint/state") or open("/out/more.txt", "w").write("through the alias")
for place in ("/data/in.txt", {str(inputs["config"])!r}, "/opt/rdagent-ft/rdagent_ft/x", "/etc/x"):
    try:
        open(place, "a")
        seen["written"] = place
    except OSError:
        pass
json.dump(seen, open("seen.json", "w"))
"""
    aliases = {"/data": "data", "/out": "out"}
    result = run(make_far(user=(4321, 1234)), tmp_path, code, inputs=inputs, aliases=aliases)
    assert result.failure_class == "ok", result.log_tail
    assert json.loads((tmp_path / "job" / "seen.json").read_text()) == {
        "data": "seven", "alias": "seven", "config": "epochs: 1", "neighbours": ["config.yaml"],
        "checkpoint": "of the attempt before", "me": [4321, 1234], "owner": [4321, 1234],
        "around": ["data", "files", "job"],
    }  # fmt: skip
    assert (tmp_path / "job" / "more.txt").read_text() == "through the alias"
    assert not (tmp_path / "job" / "checkpoint" / "state").exists(), "what the job removed is gone here too"
    assert {p.stat().st_uid for p in (tmp_path / "job").rglob("*")} == {os.getuid()}
    assert (inputs["data"] / "in.txt").read_text() == "seven"


def test_what_is_there_already_is_not_sent_again(tmp_path: Path, make_far: MakeDocker, sent: Sent) -> None:
    executor = make_far()
    same = f"same-{time.time_ns()}"
    code = "import os; print(open('/data/in.txt').read()); " + SLEEP
    first = spec_of(tmp_path / "a", code, inputs=with_data(tmp_path / "a", same), aliases={"/data": "data"})
    one = executor.submit(first)
    assert kinds(sent)[-2:] == ["in", "out"]
    sent.clear()
    with_data(tmp_path / "b", same)
    second = spec_of(
        tmp_path / "b", code, inputs={"data": tmp_path / "b" / "data"}, aliases={"/data": "data"}
    )
    two = executor.submit(second)
    assert kinds(sent) == ["out"]
    sent.clear()
    assert executor.submit(second) == two
    third = second.model_copy(update={"attempt_id": f"{second.attempt_id}-3", "out_dir": tmp_path / "c"})
    with_data(tmp_path / "b", "other")
    three = executor.submit(third)
    assert kinds(sent) == ["in", "out"]
    for handle, text in ((one, same), (two, same), (three, "other")):
        wait_until(
            lambda handle=handle: bool(executor.poll(handle)) and executor.log_path(handle).stat().st_size > 0
        )
        executor.cancel(handle)
        assert executor.collect(handle).log_tail.startswith(f"{text}\n")


def test_a_sending_that_was_cut_off_is_begun_anew(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = with_data(tmp_path, f"{time.time_ns()}")
    (tmp_path / "data" / "zz.bin").write_bytes(bytes(5 << 20))
    spec = spec_of(
        tmp_path,
        "import os; print(os.stat('/data/zz.bin').st_size)",
        inputs=inputs,
        aliases={"/data": "data"},
    )
    real = docker_archives.pack

    def cut(root: str, items: list[object], **options: object) -> object:
        for n, piece in enumerate(real(root, items, **options)):  # pyright: ignore
            if n == 5 and any(item.name == "zz.bin" for item in items):  # pyright: ignore
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr(docker_transfer, "pack", cut)
    with pytest.raises(KeyboardInterrupt):
        make_far().submit(spec)
    found = far_engine.inspect(docker_labels.container_name(spec.attempt_id))
    assert found is not None
    assert found["State"]["Status"] == "created"
    monkeypatch.setattr(docker_transfer, "pack", real)
    executor = make_far()
    assert finish(executor, executor.submit(spec)).log_tail == f"{5 << 20}\n"


def test_a_courier_of_a_dead_sender_is_taken_over_and_a_living_one_is_waited_for(
    tmp_path: Path,
    make_far: MakeDocker,
    far_engine: Engine,
    train_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(tmp_path, "print('fine')")
    courier = f"ft-courier-{output_volume(spec.attempt_id)}"
    labels = helper_labels("courier") | {docker_labels.OWNER: "another-boot/1/1"}
    far_engine.create(courier, train_image, ["true"], {"labels": labels})
    executor = make_far()
    assert finish(executor, executor.submit(spec)).failure_class == "ok"
    assert far_engine.inspect(courier) is None

    second = spec.model_copy(update={"attempt_id": f"{spec.attempt_id}-2"})
    courier = f"ft-courier-{output_volume(second.attempt_id)}"
    far_engine.create(courier, train_image, ["true"], {"labels": helper_labels("courier")})
    monkeypatch.setattr(docker_transfer, "SEND_WAIT_S", 1.0)
    result = finish(executor, executor.submit(second))
    assert (result.failure_class, result.reason) == ("infra", "start_failed")
    assert "another process has been sending" in result.log_tail
    far_engine.remove(courier)


def test_inputs_that_changed_after_the_container_was_made_fail_the_attempt(
    tmp_path: Path, make_far: MakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make_far()
    spec = spec_of(tmp_path, "print('started')", inputs=with_data(tmp_path, "one"), aliases={"/data": "data"})
    real = docker_transfer.FarFiles.send

    def send_late(self: docker_transfer.FarFiles, spec: JobSpec, image: str) -> None:
        with_data(tmp_path, "two, and longer")
        real(self, spec, image)

    monkeypatch.setattr(docker_transfer.FarFiles, "send", send_late)
    result = finish(executor, executor.submit(spec))
    assert (result.failure_class, result.reason) == ("infra", "start_failed")
    assert "not those that it was created for" in result.log_tail


def test_an_engine_whose_disk_is_full_says_so_and_the_attempt_may_be_tried_again(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine
) -> None:
    spec = spec_of(tmp_path, "print('started')")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "checkpoint").write_bytes(os.urandom(5 << 20))
    small = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    labels = {**docker_labels.own_labels(), docker_labels.ATTEMPT: spec.attempt_id}
    volume = output_volume(spec.attempt_id)
    far_engine.client.api.create_volume(volume, driver="local", driver_opts=small, labels=labels)
    executor = make_far()
    result = finish(executor, executor.submit(spec))
    assert (result.failure_class, result.reason) == ("infra", "start_failed")
    assert "no space left on device" in result.log_tail
    assert not far_engine.has_volume(volume)


def test_progress_is_seen_while_the_job_runs_and_its_lines_come_once(
    tmp_path: Path, make_far: MakeDocker
) -> None:
    executor = make_far()
    code = (
        "import json, os, time\n"
        "os.symlink('/etc/passwd', 'progress.jsonl')\n"
        "n = 0\n"
        "while not os.path.exists('/tmp/stop') and n < 4000:\n"
        "    open('metrics.jsonl', 'a').write(json.dumps({'step': n}) + '\\n'); n += 1; time.sleep(0.01)\n"
    )
    handle = executor.submit(spec_of(tmp_path, code))
    tail = JsonLinesTail(tmp_path / "job" / "metrics.jsonl")
    steps: list[int] = []

    def seen_enough() -> bool:
        assert executor.poll(handle).state == "running"
        steps.extend(row["step"] for row in tail.read_new())
        return len(steps) > 200

    wait_until(seen_enough)
    assert steps == list(range(len(steps)))
    assert not os.path.lexists(tmp_path / "job" / "progress.jsonl")
    executor.cancel(handle)
    executor.collect(handle)
    steps.extend(row["step"] for row in tail.read_new())
    assert steps == list(range(len(steps)))


def test_progress_past_its_bound_is_not_fetched_but_counts_as_a_sign_of_life(
    tmp_path: Path, make_far: MakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_transfer, "MAX_PROGRESS_BYTES", 1000)
    executor = make_far(stall_timeout_s=3.0)
    code = (
        "import time\nopen('metrics.jsonl', 'w').write('x' * 900)\ntime.sleep(1)\n"
        "for n in range(10):\n    open('metrics.jsonl', 'a').write('x' * 900)\n    time.sleep(0.5)\n"
    )
    handle = executor.submit(spec_of(tmp_path, code))
    seen = tmp_path / "job" / "metrics.jsonl"
    wait_until(lambda: executor.poll(handle).state == "running" and seen.exists())
    sizes: set[int] = set()
    wait_until(lambda: bool(sizes.add(seen.stat().st_size)) or executor.poll(handle).state == "ended")
    assert sizes == {900}
    assert executor.collect(handle).reason == "exit"
    assert seen.stat().st_size == 9900


def test_hostile_outputs_stay_where_they_are(tmp_path: Path, make_far: MakeDocker) -> None:
    code = (
        "import os, socket\n"
        "os.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'folder'); os.mkfifo('fifo')\n"
        "socket.socket(socket.AF_UNIX).bind('socket'); os.link('/etc/hostname', 'hard') if 0 else None\n"
        "open('new\\nline', 'w'); open(b'\\xff\\xfe', 'w')\n"
        "os.makedirs('/'.join('d' * 100)); open('fine', 'w').write('x'); os.chmod('fine', 0o6777)\n"
        "os.mkdir('closed'); open('closed/file', 'w').write('y'); os.chmod('closed', 0)\n"
    )
    result = run(make_far(user=(4321, 1234)), tmp_path, code)
    assert result.failure_class == "ok", result.log_tail
    found = {str(p.relative_to(tmp_path / "job")) for p in (tmp_path / "job").rglob("*")}
    assert {name for name in found if not name.startswith("d")} == {"fine", "closed", "closed/file"}
    assert max(name.count("/") for name in found) < 20
    assert (tmp_path / "job" / "fine").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "job" / "closed").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "code",
    [
        "open('zeros', 'wb').truncate(10 << 40)",
        "open('big', 'wb').write(bytes(3 << 20))",
        "for n in range(50): open(f'file-{n}', 'w')",
    ],
)
def test_a_job_that_leaves_too_much_ends_as_output_limit_and_leaves_nothing_here(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine, code: str
) -> None:
    limits = job_limits(far_engine.info, memory_gib=1.0)
    limits = limits.model_copy(update={"output_bytes": 2 << 20, "n_output_files": 40})
    files = docker_transfer.FarFiles(far_engine, (os.getuid(), os.getgid()), limits)
    executor = make_far(files=files)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "prepared").write_text("by us")
    result = run(executor, tmp_path, code)
    assert (result.failure_class, result.reason, result.exit_code) == ("resource", "output_limit", 0)
    assert "more than" in result.evidence["fetch_error"]
    assert [p.name for p in (tmp_path / "job").iterdir()] == ["prepared"]
    assert volumes_of(far_engine, spec_of(tmp_path, "").attempt_id) == []


def test_a_running_job_is_measured_and_ended_at_its_limit(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = job_limits(far_engine.info, memory_gib=1.0)
    limits = limits.model_copy(update={"output_bytes": 2 << 20})
    files = docker_transfer.FarFiles(far_engine, (4321, 1234), limits)
    monkeypatch.setattr("rdagent_ft.execution.docker_watch.OUTPUT_LOOK_S", 0.5)
    code = "import os\nos.mkdir('d'); open('d/big', 'wb').write(bytes(5 << 20)); os.chmod('d', 0)\n" + SLEEP
    result = run(make_far(files=files, user=(4321, 1234)), tmp_path, code)
    assert (result.failure_class, result.reason) == ("resource", "output_limit")


def test_a_measure_counts_files_and_is_removed(
    tmp_path: Path,
    make_far: MakeDocker,
    far_engine: Engine,
    train_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor, look = make_far(), Meter.is_over
    # Attempts share the measure's name: looks of the executor's own would take or remove this test's.
    monkeypatch.setattr(docker_transfer.Meter, "is_over", lambda *_: False)
    spec = spec_of(tmp_path, "for n in range(30): open(str(n), 'w')\nprint('done', flush=True)\n" + SLEEP)
    handle = executor.submit(spec)
    wait_until(lambda: bool(executor.poll(handle)) and executor.log_path(handle).read_text() == "done\n")
    limits = job_limits(far_engine.info, memory_gib=1.0)
    name = f"ft-meter-{spec.attempt_id}"

    def has_ended() -> bool:
        found = far_engine.inspect(name)
        return found is not None and not found["State"]["Running"]

    for n_files, is_over in ((40, False), (20, True)):
        meter = Meter(far_engine, limits.model_copy(update={"n_output_files": n_files}), every_s=0.0)
        assert not look(meter, spec.attempt_id, train_image)
        wait_until(has_ended)
        assert look(meter, spec.attempt_id, train_image) == is_over
        assert far_engine.inspect(name) is None
    executor.cancel(handle)
    executor.collect(handle)


def test_a_fetch_that_is_cut_off_is_done_again(
    tmp_path: Path, make_far: MakeDocker, forwarder: TcpForwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[int] = []
    real = docker_transfer.unpack

    def cut_once(pieces: object, *args: object, **options: object) -> object:
        if not cuts:
            cuts.append(1)
            forwarder.cut()
        return real(pieces, *args, **options)  # pyright: ignore

    monkeypatch.setattr(docker_transfer, "unpack", cut_once)
    result = run(make_far(), tmp_path, "open('big', 'wb').write(bytes(20 << 20))")
    assert (result.failure_class, cuts) == ("ok", [1])
    assert (tmp_path / "job" / "big").stat().st_size == 20 << 20
    control = control_folder(tmp_path / "job", spec_of(tmp_path, "").attempt_id)
    left = {path.name for path in control.iterdir()}
    assert left - {"engine-away.json"} == {"job.log", "log.json", "result.json"}


def test_a_disk_of_ours_that_is_full_stops_the_run_and_loses_nothing(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make_far()
    spec = spec_of(tmp_path, "open('trained', 'w').write('x')")
    handle = executor.submit(spec)
    wait_until(lambda: executor.poll(handle).state == "ended")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(docker_archives, "_set_time", full)
        with pytest.raises(PreflightError, match="No space left"):
            executor.collect(handle)
    result = make_far().collect(handle)
    assert result.failure_class == "ok"
    assert (tmp_path / "job" / "trained").read_text() == "x"


def test_volumes_of_an_attempt_go_with_it_and_inputs_stay_until_they_are_pruned(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine
) -> None:
    def inputs() -> set[str]:
        own = {**docker_labels.own_labels(), docker_labels.CONTENT: ""}
        return {v["Name"] for v in far_engine.volumes(own)}

    executor = make_far()
    one = executor.submit(spec_of(tmp_path, SLEEP, inputs=with_data(tmp_path, f"{time.time_ns()}")))
    in_use = inputs()
    assert len(volumes_of(far_engine, one.attempt_id)) == 1
    far_files(far_engine).prune_inputs()
    far_files(far_engine).tidy()
    assert inputs() & in_use, "a container uses them"
    assert len(volumes_of(far_engine, one.attempt_id)) == 1
    used = [
        m["Name"]
        for m in (far_engine.inspect(f"ft-{one.attempt_id}") or {})["Mounts"]
        if m["Type"] == "volume"
    ]
    executor.cancel(one)
    executor.collect(one)
    assert volumes_of(far_engine, one.attempt_id) == []
    kept = [name for name in used if far_engine.has_volume(name)]
    far_files(far_engine, keeps_inputs=False).tidy()
    assert [name for name in used if far_engine.has_volume(name)] == []
    assert len(used) == 3
    assert len(kept) <= 2  # another test may have pruned them


def test_what_a_crash_left_is_tidied(tmp_path: Path, far_engine: Engine, train_image: str) -> None:
    attempt = f"left-{tmp_path.name}"
    dead = helper_labels("courier") | {docker_labels.OWNER: "another-boot/1/1"}
    far_engine.create(f"ft-courier-{attempt}", train_image, ["true"], {"labels": dead})
    far_engine.create(f"ft-other-{attempt}", train_image, ["true"], {"labels": {"io.example": "x"}})
    own = {**docker_labels.own_labels(), docker_labels.ATTEMPT: attempt}
    far_engine.make_volume(output_volume(attempt), own)
    far_engine.make_volume(f"foreign-{attempt}", {docker_labels.ATTEMPT: attempt})
    far_files(far_engine).tidy()
    assert far_engine.inspect(f"ft-courier-{attempt}") is None
    assert far_engine.inspect(f"ft-other-{attempt}") is not None
    assert not far_engine.has_volume(output_volume(attempt))
    assert far_engine.has_volume(f"foreign-{attempt}")
    far_engine.remove(f"ft-other-{attempt}")
    far_engine.remove_volume(f"foreign-{attempt}")


def test_what_a_reaped_job_had_written_is_saved_for_the_next_attempt(
    tmp_path: Path, make_far: MakeDocker, far_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os\nos.mkdir('checkpoint-10'); open('checkpoint-10/state', 'w').write('x')\n" + SLEEP
    spec = spec_of(tmp_path, f"print('going', flush=True)\n{code}", labels={"run_dir": str(tmp_path)})
    monkeypatch.setattr(docker_labels, "owner_id", lambda: "another-boot/1/1")
    executor = make_far()
    handle = executor.submit(spec)
    monkeypatch.undo()
    checkpoint = f"{tmp_path}/job/checkpoint-10/state"
    wait_until(lambda: far_engine.path_status(f"ft-{spec.attempt_id}", checkpoint) is not None)
    assert make_far().reap(tmp_path) == [spec.attempt_id]
    assert (tmp_path / "job" / "checkpoint-10" / "state").read_text() == "x"
    assert executor.collect(handle).reason == "reaped"
    assert volumes_of(far_engine, spec.attempt_id) == []


def test_local_paths_are_never_bound_on_a_remote_engine(
    tmp_path: Path, far_engine: Engine, train_image: str
) -> None:
    limits = job_limits(far_engine.info, memory_gib=1.0)
    executor = DockerExecutor(far_engine, lambda _kind: train_image, limits=limits)
    spec = spec_of(tmp_path, "pass", inputs=with_data(tmp_path, "x"))
    with pytest.raises(JobError) as refused:
        executor.submit(spec)
    assert str(tmp_path / "data") in refused.value.message
    assert far_engine.url in refused.value.message
    assert far_engine.inspect(docker_labels.container_name(spec.attempt_id)) is None
    with pytest.raises(JobError, match=str(tmp_path / "job")):
        NearFiles(far_engine, limits).mounts(spec_of(tmp_path, "pass"))


def test_no_mount_of_a_far_job_is_a_path(tmp_path: Path, far_engine: Engine) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "one.txt").write_text("1")
    inputs = with_data(tmp_path, "x") | {"one": tmp_path / "one.txt"}
    mounts = far_files(far_engine).mounts(spec_of(tmp_path, "", inputs=inputs, aliases={"/out": "out"}))
    assert {mount["Type"] for mount in mounts} == {"volume"}
    assert all("/" not in mount["Source"] for mount in mounts)


def test_an_engine_behind_a_dead_port_is_named(far_engine: Engine, forwarder: TcpForwarder) -> None:
    forwarder.close()
    with pytest.raises(EngineAwayError, match=r"tcp://127\.0\.0\.1"):
        far_engine.inspect("anything")
