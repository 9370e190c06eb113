"""Equal jobs get their stored result: real jobs in real processes, real folders, kills in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.errors import JobError
from rdagent_ft.execution import result_store
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.execution.port import JobHandle, JobKind, JobResult, JobSpec
from rdagent_ft.execution.result_cache import CachingExecutor
from rdagent_ft.execution.result_key import FileHashes, UnnamedResultError, job_key, package_hash
from rdagent_ft.execution.result_store import fetch_result, forget_result, prune, store_result
from rdagent_ft.values import sha256_file

WAIT_S = 60.0
# Leaves weights, a nested file, a checkpoint, a link and a FIFO; counts how often it really ran.
JOB = """
import os, pathlib, sys
config, counter = map(pathlib.Path, sys.argv[1:])
with counter.open("a") as stream:
    stream.write("x")
print("read", config.read_text())
pathlib.Path("adapter/deep").mkdir(parents=True)
pathlib.Path("adapter/deep/weights.txt").write_text("w" * 1000)
pathlib.Path("output").mkdir(exist_ok=True)
pathlib.Path("output/checkpoint.pt").write_text("state")
os.symlink("/etc/passwd", "link")
os.mkfifo("pipe")
"""


class Bench:
    """Jobs that are equal but for their folders, and a count of those that really ran."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"
        self.counter = root / "counter"

    def executor(self, image: str = "img", code: str = "c0", **options: Any) -> CachingExecutor:
        def image_of(kind: JobKind) -> str:
            return f"{image}-{kind}"

        return CachingExecutor(LocalExecutor(grace_s=0.5), self.store, image_of, code, **options)

    def spec(self, name: str, *, text: str = "lr: 1", code: str = JOB, **changes: Any) -> JobSpec:
        folder = self.root / name
        config = folder / "files" / "sft.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f"{text}\noutput_dir: {folder}/attempt-1/output\nself: {config}\n")
        values: dict[str, Any] = {
            "attempt_id": f"{name}-train-1",
            "kind": "train",
            "argv": ("python", "-c", code, str(config), str(self.counter)),
            "out_dir": folder / "attempt-1",
            "inputs": {"config": config},
            "scratch": ("output",),
            "labels": {"run": name},
            "env": {"OUT": str(folder / "attempt-1")},
            "deadline_unix": time.time() + 120,
        }
        return JobSpec.model_validate(values | changes)

    @property
    def n_runs(self) -> int:
        return len(self.counter.read_text()) if self.counter.exists() else 0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def finish(executor: CachingExecutor, handle: JobHandle) -> JobResult:
    give_up_at = time.monotonic() + WAIT_S
    while executor.poll(handle).state == "running":
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    return executor.collect(handle)


def run(executor: CachingExecutor, spec: JobSpec) -> JobResult:
    return finish(executor, executor.submit(spec))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def key_of(spec: JobSpec, image: str = "img", code: str = "c0") -> str:
    return job_key(spec, image=image, code_hash=code, hashes=FileHashes())


def test_an_equal_job_in_another_folder_gets_the_result_without_running(bench: Bench) -> None:
    executor = bench.executor()
    first = run(executor, bench.spec("one"))
    assert (first.failure_class, first.reason, bench.n_runs) == ("ok", "exit", 1)
    handle = executor.submit(bench.spec("two"))
    assert executor.poll(handle).state == "ended"
    executor.cancel(handle)  # idempotent, and nothing to stop
    second = executor.collect(handle)
    assert bench.n_runs == 1
    assert (second.failure_class, second.reason, second.exit_code) == ("ok", "cached", 0)
    assert second.evidence == {"cached": first.evidence["stored"]}
    assert second.ended_unix - second.started_unix == first.ended_unix - first.started_unix
    out_dir = bench.root / "two" / "attempt-1"
    assert files_below(out_dir) == ["adapter/deep/weights.txt", "job.log"]
    assert (out_dir / "adapter" / "deep" / "weights.txt").read_text() == "w" * 1000
    log = executor.log_path(handle).read_text()
    assert "read lr: 1" in log
    assert handle.executor == "local"
    assert JobHandle.model_validate_json(handle.model_dump_json()) == handle


def test_the_cache_outlives_the_executor_and_a_hit_is_a_hit_again(bench: Bench) -> None:
    run(bench.executor(), bench.spec("one"))
    for name in ("two", "three"):
        assert run(bench.executor(), bench.spec(name)).reason == "cached"
    assert bench.n_runs == 1


def test_whatever_decides_the_result_is_part_of_its_name(bench: Bench, tmp_path: Path) -> None:
    spec = bench.spec("one")
    key = key_of(spec)
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("{}")
    changed = {
        "image": key_of(spec, image="other"),
        "code": key_of(spec, code="c1"),
        "argv": key_of(spec.model_copy(update={"argv": (*spec.argv, "--more")})),
        "env": key_of(spec.model_copy(update={"env": {**spec.env, "SEED": "1"}})),
        "kind": key_of(spec.model_copy(update={"kind": "merge"})),
        "gpu": key_of(spec.model_copy(update={"needs_gpu": True})),
        "aliases": key_of(spec.model_copy(update={"aliases": {"/data": "config"}})),
        "input": key_of(spec.model_copy(update={"inputs": {**spec.inputs, "data": data}})),
        "content": key_of(bench.spec("one", text="lr: 2")),
    }
    (data / "train.jsonl").write_text('{"a": 1}')
    with_data = bench.spec("one", inputs={**spec.inputs, "data": data})
    changed["data"] = key_of(with_data)
    (data / "more.jsonl").write_text("")
    changed["another file"] = key_of(with_data)
    spec.out_dir.mkdir()
    (spec.out_dir / "request.json").write_text("{}")
    changed["a file in the output folder"] = key_of(bench.spec("one"))
    assert len({key, *changed.values()}) == len(changed) + 1, changed


def test_what_does_not_decide_it_is_not(bench: Bench) -> None:
    key = key_of(bench.spec("one"))
    other = bench.spec("elsewhere/deeper", attempt_id="x-9", deadline_unix=1.0, labels={"run": "z"})
    assert key_of(other) == key
    (other.out_dir / ".jobs" / "x").mkdir(parents=True)
    (other.out_dir / ".jobs" / "x" / "claim").write_text("1")
    assert key_of(other) == key


def test_paths_are_replaced_at_their_edges_only(bench: Bench) -> None:
    one, two = bench.spec("one"), bench.spec("two")

    def key(spec: JobSpec, text: str) -> str:
        spec.inputs["config"].write_text(text)
        return key_of(spec)

    assert key(one, f"see {one.out_dir}/x, {one.out_dir}") == key(two, f"see {two.out_dir}/x, {two.out_dir}")
    assert key(one, f"see {one.out_dir}0/x") != key(two, f"see {two.out_dir}0/x")
    assert key(one, f"see /mnt{one.out_dir}") != key(two, f"see /mnt{two.out_dir}")
    assert key(one, f"see {one.out_dir}") != key(two, "see <out>")
    assert key(one, f"see {one.out_dir}") != key(two, f"see {two.inputs['config']}")


def test_large_and_binary_files_count_byte_by_byte(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = bench.spec("one"), bench.spec("two")
    for spec in (one, two):
        spec.inputs["config"].write_bytes(b"\0" + str(spec.out_dir).encode())
    assert key_of(one) != key_of(two)
    weights = bench.root / "model.safetensors"
    weights.write_bytes(bytes(5 << 20))
    n_hashed = 0

    def counted(path: Path) -> str:
        nonlocal n_hashed
        n_hashed += 1
        return sha256_file(path)

    monkeypatch.setattr("rdagent_ft.execution.result_key.sha256_file", counted)
    hashes = FileHashes()
    spec = bench.spec("three", inputs={"model": weights})
    keys = {job_key(spec, image="i", code_hash="c", hashes=hashes) for _ in range(3)}
    assert (len(keys), n_hashed) == (1, 1)
    with weights.open("r+b") as stream:
        stream.write(b"\x01")
    assert job_key(spec, image="i", code_hash="c", hashes=hashes) not in keys
    assert n_hashed == 2


def test_a_model_of_linked_files_is_named_and_a_linked_folder_is_not(bench: Bench) -> None:
    blob = bench.root / "blob"
    blob.write_text("weights")
    model = bench.root / "model"
    model.mkdir()
    (model / "model.safetensors").symlink_to(blob)
    spec = bench.spec("one", inputs={"model": model})
    key = key_of(spec)
    blob.write_text("other weights")
    assert key_of(spec) != key
    (model / "more").symlink_to(bench.root)
    with pytest.raises(UnnamedResultError, match="links to a folder"):
        key_of(spec)
    for path in ("absent", "pipe"):
        if path == "pipe":
            os.mkfifo(bench.root / "pipe")
        with pytest.raises(UnnamedResultError):
            key_of(bench.spec("one", inputs={"x": bench.root / path}))


def test_a_job_that_cannot_be_named_runs_and_is_not_stored(bench: Bench) -> None:
    executor = bench.executor()
    for number, name in enumerate(("one", "two"), start=1):
        spec = bench.spec(name)
        (spec.out_dir / "output").mkdir(parents=True)  # a checkpoint of the attempt before
        result = run(executor, spec)
        assert (result.reason, result.evidence, bench.n_runs) == ("exit", {}, number)
    assert not bench.store.exists()


@pytest.mark.parametrize(
    ("code", "failure_class"),
    [
        ("raise SystemExit(3)", "candidate"),
        ("import os; os.kill(os.getpid(), 9)", "resource"),
        ("import os; os.kill(os.getpid(), 15)", "infra"),
    ],
)
def test_a_failure_is_never_stored(bench: Bench, code: str, failure_class: str) -> None:
    executor = bench.executor()
    for name in ("one", "two"):
        assert run(executor, bench.spec(name, code=code)).failure_class == failure_class
    assert not bench.store.exists()


def test_a_cancelled_job_is_not_stored(bench: Bench) -> None:
    executor = bench.executor()
    handle = executor.submit(bench.spec("one", code="import time; time.sleep(600)"))
    assert executor.poll(handle).state == "running"
    with pytest.raises(JobError, match="still runs"):
        executor.collect(handle)
    executor.cancel(handle)
    assert executor.collect(handle).failure_class == "stopped"
    assert not bench.store.exists()


def test_a_result_of_no_use_can_be_forgotten(bench: Bench) -> None:
    executor = bench.executor()
    first = run(executor, bench.spec("one"))
    executor.forget(first)
    second = run(executor, bench.spec("two"))
    assert (second.reason, bench.n_runs) == ("exit", 2)
    cached = run(executor, bench.spec("three"))
    assert cached.reason == "cached"
    executor.forget(cached)
    assert run(executor, bench.spec("four")).reason == "exit"
    executor.forget(first)
    executor.forget(first.model_copy(update={"evidence": {}}))


def test_a_job_that_left_too_much_is_not_stored(bench: Bench) -> None:
    executor = bench.executor(max_bytes=500)
    for number, name in enumerate(("one", "two"), start=1):
        result = run(executor, bench.spec(name))
        assert (result.failure_class, bench.n_runs) == ("ok", number)
    assert list(bench.store.iterdir()) == []


def damage_weights(entry: Path) -> None:
    (entry / "files" / "adapter" / "deep" / "weights.txt").write_text("W" * 1000)


def grow_weights(entry: Path) -> None:
    (entry / "files" / "adapter" / "deep" / "weights.txt").write_text("w" * 1001)


def lose_weights(entry: Path) -> None:
    (entry / "files" / "adapter" / "deep" / "weights.txt").unlink()


def link_weights(entry: Path) -> None:
    lose_weights(entry)
    (entry / "files" / "adapter" / "deep" / "weights.txt").symlink_to("/etc/passwd")


def damage_log(entry: Path) -> None:
    (entry / "job.log").write_text("other")


def cut_list(entry: Path) -> None:
    (entry / "result.json").write_text((entry / "result.json").read_text()[:-20])


def lose_list(entry: Path) -> None:
    (entry / "result.json").unlink()


def foreign_list(entry: Path) -> None:
    path = entry / "result.json"
    path.write_text(path.read_text().replace(entry.name, "0" * 64))


DAMAGES = [
    damage_weights,
    grow_weights,
    lose_weights,
    link_weights,
    damage_log,
    cut_list,
    lose_list,
    foreign_list,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_a_miss_and_is_removed(bench: Bench, damage: Callable[[Path], None]) -> None:
    executor = bench.executor()
    key = run(executor, bench.spec("one")).evidence["stored"]
    damage(bench.store / key)
    handle = executor.submit(bench.spec("two"))
    assert not (bench.store / key).exists()
    result = finish(executor, handle)
    assert (result.reason, bench.n_runs) == ("exit", 2)
    assert run(executor, bench.spec("three")).reason == "cached"


def test_an_attempt_that_was_launched_is_adopted_and_not_given_a_result(bench: Bench) -> None:
    waiting = "import time, pathlib; time.sleep(1); pathlib.Path('done').write_text('x')"
    first = bench.executor()
    spec = bench.spec("one", code=waiting)
    handle = first.submit(spec)
    # Meanwhile another run stores the same result, and this controller dies before it notes the handle.
    assert run(bench.executor(), bench.spec("two", code=waiting)).failure_class == "ok"
    again = bench.executor().submit(spec)
    assert again == handle
    assert "cached" not in again.ref
    result = finish(bench.executor(), again)
    assert (result.reason, "stored" in result.evidence) == ("exit", True)


def test_an_attempt_launched_without_the_cache_is_adopted(bench: Bench) -> None:
    run(bench.executor(), bench.spec("one"))
    spec = bench.spec("two")
    local = LocalExecutor(grace_s=0.5)
    handle = local.submit(spec)
    adopted = bench.executor().submit(spec)
    assert adopted.ref == handle.ref
    assert finish(bench.executor(), adopted).reason == "exit"
    assert bench.n_runs == 2
    contained = bench.spec("three")  # what a container executor notes lies beside the job's folder
    (contained.out_dir.with_name(".attempt-1") / contained.attempt_id).mkdir(parents=True)
    assert "cached" not in bench.executor().submit(contained).ref


def test_a_given_result_is_given_again_after_a_crash(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    key = run(bench.executor(), bench.spec("one")).evidence["stored"]
    spec = bench.spec("two")
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if target.parent == spec.out_dir and target.name == "job.log":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        bench.executor().submit(spec)
    monkeypatch.undo()
    assert files_below(spec.out_dir) == ["adapter/deep/weights.txt"]
    forget_result(bench.store, key)  # even when the store was emptied in between
    executor = bench.executor()
    handle = executor.submit(spec)
    assert executor.collect(handle).reason == "cached"
    assert files_below(spec.out_dir) == ["adapter/deep/weights.txt", "job.log"]
    assert executor.submit(spec) == handle
    assert bench.n_runs == 1


def test_the_key_survives_in_the_handle(bench: Bench) -> None:
    handle = bench.executor().submit(bench.spec("one"))
    handle = JobHandle.model_validate_json(handle.model_dump_json())
    assert handle.ref["scratch"] == ["output"]
    later = bench.executor()
    result = finish(later, handle)
    assert result.evidence["stored"] == handle.ref["key"]
    assert later.collect(handle) == result, "a second look changes nothing"


def test_an_attempt_id_names_no_path(bench: Bench) -> None:
    with pytest.raises(JobError, match="cannot name a folder"):
        bench.executor().submit(bench.spec("one", attempt_id="../../x"))


KILLED = """
import os, signal, sys
from pathlib import Path
from rdagent_ft.execution import result_store
from rdagent_ft.execution.port import JobResult

where, store, out_dir = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
copy = result_store.copy_file_inside
match where:
    case "copying":
        result_store.copy_tree = lambda s, t, **k: (t.mkdir(), (t / "part").write_text("x"), die())
    case "log":
        result_store.copy_file_inside = die
    case "list":
        result_store.write_json = die
    case "half a list":
        result_store.write_json = lambda path, value: (path.write_text("{"), die())
    case "renaming":
        Path.rename = die
result = JobResult(failure_class="ok", reason="exit", exit_code=0, started_unix=1.0, ended_unix=2.0)
result_store.store_result(store, "k" * 64, out_dir, result, out_dir / "job.log", skip=(), max_bytes=1 << 30)
"""


@pytest.mark.parametrize("where", ["copying", "log", "list", "half a list", "renaming"])
def test_a_kill_leaves_nothing_that_counts(tmp_path: Path, where: str) -> None:
    store, out_dir = tmp_path / "store", tmp_path / "job"
    out_dir.mkdir()
    (out_dir / "weights").write_text("w")
    (out_dir / "job.log").write_text("fine\n")
    done = subprocess.run([sys.executable, "-c", KILLED, where, str(store), str(out_dir)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert fetch_result(store, "k" * 64, tmp_path / "target") is None
    assert len(list(store.iterdir())) == 1
    assert prune(store, 1 << 40) == []
    assert list(store.iterdir()) == []
    assert stored(store, "k" * 64, out_dir)
    assert fetch_result(store, "k" * 64, tmp_path / "target") is not None


def stored(store: Path, key: str, out_dir: Path) -> bool:
    result = JobResult(failure_class="ok", reason="exit", exit_code=0, started_unix=1.0, ended_unix=2.0)
    return store_result(store, key, out_dir, result, out_dir / "job.log", skip=(), max_bytes=1 << 30)


def test_of_two_writers_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out_dir, other = tmp_path / "store", tmp_path / "job", tmp_path / "other"
    for folder in (out_dir, other):
        folder.mkdir()
        (folder / "who").write_text(folder.name)
    copy = result_store.copy_tree

    def overtaken(source: Path, target: Path, **options: Any) -> Any:
        stats = copy(source, target, **options)
        monkeypatch.undo()
        assert stored(store, "k", other)
        assert prune(store, 1 << 40) == [], "a writer at work is left alone"
        return stats

    monkeypatch.setattr(result_store, "copy_tree", overtaken)
    assert stored(store, "k", out_dir)
    assert [path.name for path in store.iterdir()] == ["k"]
    fetched = fetch_result(store, "k", tmp_path / "target")
    assert fetched is not None
    assert (tmp_path / "target" / "files" / "who").read_text() == "other"


def test_the_store_keeps_what_was_used_last(tmp_path: Path) -> None:
    store, out_dir = tmp_path / "store", tmp_path / "job"
    out_dir.mkdir()
    (out_dir / "weights").write_bytes(bytes(100_000))
    for number, key in enumerate("abcd"):
        assert stored(store, key, out_dir)
        os.utime(store / key / "result.json", (number, number))
    assert fetch_result(store, "a", tmp_path / "target") is not None
    assert prune(store, 250_000) == ["b", "c"]
    assert sorted(path.name for path in store.iterdir()) == ["a", "d"]
    assert prune(store, 0) == ["d", "a"]
    assert prune(tmp_path / "absent", 0) == []


def test_tidy_prunes_the_store(bench: Bench) -> None:
    executor = bench.executor(store_max_bytes=0)
    key = run(executor, bench.spec("one")).evidence["stored"]
    assert (bench.store / key).is_dir()
    executor.tidy(bench.root)
    assert not (bench.store / key).exists()


def test_a_full_or_closed_store_never_fails_a_job(bench: Bench) -> None:
    bench.store.write_text("a file in the store's place")
    executor = bench.executor()
    for number, name in enumerate(("one", "two"), start=1):
        result = run(executor, bench.spec(name))
        assert (result.failure_class, result.evidence, bench.n_runs) == ("ok", {}, number)


def test_the_entry_holds_the_log_and_no_scratch(bench: Bench) -> None:
    key = run(bench.executor(), bench.spec("one")).evidence["stored"]
    entry = bench.store / key
    assert files_below(entry) == ["files/adapter/deep/weights.txt", "job.log", "result.json"]
    listed = read_json_file(entry, "result.json")
    assert listed["log"]["sha256"] == sha256_file(entry / "job.log")


def test_the_code_hash_is_of_this_package() -> None:
    assert package_hash() == package_hash()
    assert len(package_hash()) == 64


def test_the_rest_goes_to_the_inner_executor(bench: Bench) -> None:
    executor = bench.executor()
    assert executor.gpus() == LocalExecutor().gpus()
    assert executor.abandoned() == []
    handle = executor.submit(bench.spec("one", code="import time; time.sleep(600)"))
    assert executor.reap(bench.root) == ["one-train-1"]
    assert executor.collect(handle).failure_class in {"infra", "stopped"}
