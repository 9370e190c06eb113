"""What of a job goes into which volume of a remote engine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from job_steps import spec_of

from rdagent_ft.errors import JobError
from rdagent_ft.execution import docker_trees
from rdagent_ft.execution.docker_labels import ATTEMPT, CONTENT, HOST, UID
from rdagent_ft.execution.docker_parcels import Parcel, plan_parcels
from rdagent_ft.execution.docker_trees import Hashes
from rdagent_ft.execution.port import JobSpec

CODE_TARGET = "/opt/rdagent-ft/rdagent_ft"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with a job's prepared folder, data and a config, as the engine's steps lay them out."""
    run = tmp_path / "run"
    for name in ("job", "data", "files"):
        (run / name).mkdir(parents=True)
    (run / "data" / "train.jsonl").write_text("{}\n")
    (run / "files" / "config.yaml").write_text("epochs: 1")
    (run / "files" / "other.txt").write_text("not asked for")
    return run


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "rdagent_ft"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "x.pyc").write_bytes(b"old")
    (folder / "__init__.py").write_text("")
    return folder


def plan(spec: JobSpec, code: Path, user: tuple[int, int] = (1000, 1000)) -> dict[str, Parcel]:
    """Parcels by their first target."""
    return {parcel.targets[0]: parcel for parcel in plan_parcels(spec, code, user, Hashes())}


def names(parcel: Parcel) -> list[str]:
    return sorted(item.name for item in parcel.items)


def test_targets_are_the_paths_of_this_machine(run_dir: Path, code: Path) -> None:
    inputs = {"data": run_dir / "data", "config": run_dir / "files" / "config.yaml"}
    (run_dir / "job" / "checkpoint").write_text("of the attempt before")
    spec = spec_of(run_dir, "", inputs=inputs, aliases={"/data": "data", "/out": "out"})
    found = plan(spec, code)
    assert set(found) == {str(run_dir / "job"), str(run_dir / "data"), str(run_dir / "files"), CODE_TARGET}
    out = found[str(run_dir / "job")]
    assert (out.volume, out.targets) == (f"ft-{spec.attempt_id}-out", (str(run_dir / "job"), "/out"))
    assert (out.is_output, names(out)) == (True, ["checkpoint"])
    assert found[str(run_dir / "data")].targets == (str(run_dir / "data"), "/data")
    assert names(found[CODE_TARGET]) == ["__init__.py"]
    assert [m["ReadOnly"] for parcel in found.values() for m in parcel.mounts()].count(False) == 2
    for parcel in found.values():
        assert {HOST, UID} < set(parcel.labels)
        assert len({ATTEMPT, CONTENT} & set(parcel.labels)) == 1


def test_a_single_file_brings_none_of_its_neighbours(run_dir: Path, code: Path) -> None:
    spec = spec_of(run_dir, "", inputs={"config": run_dir / "files" / "config.yaml"})
    assert names(plan(spec, code)[str(run_dir / "files")]) == ["config.yaml"]


def test_files_of_one_folder_share_a_volume_and_leave_room_for_what_is_mounted_below(
    run_dir: Path, code: Path
) -> None:
    (run_dir / "one.txt").write_text("1")
    (run_dir / "two.txt").write_text("2")
    inputs = {"one": run_dir / "one.txt", "two": run_dir / "two.txt", "data": run_dir / "data"}
    found = plan(spec_of(run_dir, "", inputs=inputs), code)
    assert names(found[str(run_dir)]) == ["data", "job", "one.txt", "two.txt"]
    kinds = {item.name: item.kind for item in found[str(run_dir)].items}
    assert (kinds["job"], kinds["one.txt"]) == ("folder", "file")
    assert names(found[str(run_dir / "data")]) == ["train.jsonl"]


@pytest.mark.parametrize("place", ["/etc/hostname", "/usr/bin/env"])
def test_a_file_whose_folder_the_image_needs_is_refused_by_name(
    run_dir: Path, code: Path, place: str
) -> None:
    with pytest.raises(JobError, match=f"{place}.*mounts whole folders"):
        plan(spec_of(run_dir, "", inputs={"config": Path(place)}), code)


def test_a_file_alias_beside_another_mount_is_refused(run_dir: Path, code: Path) -> None:
    inputs = {"data": run_dir / "data", "config": run_dir / "files" / "config.yaml"}
    with pytest.raises(JobError, match=r"/data/config\.yaml"):
        plan(
            spec_of(run_dir, "", inputs=inputs, aliases={"/data": "data", "/data/config.yaml": "config"}),
            code,
        )
    with pytest.raises(JobError, match=r" /config\.yaml"):
        plan(spec_of(run_dir, "", inputs=inputs, aliases={"/config.yaml": "config"}), code)
    found = plan(spec_of(run_dir, "", inputs=inputs, aliases={"/given/here.yaml": "config"}), code)
    assert names(found["/given"]) == ["here.yaml"]


def test_an_input_inside_another_one_travels_once(run_dir: Path, code: Path) -> None:
    inputs = {"all": run_dir / "data", "one": run_dir / "data" / "train.jsonl"}
    found = plan(spec_of(run_dir, "", inputs=inputs), code)
    assert set(found) == {str(run_dir / "job"), str(run_dir / "data"), CODE_TARGET}


def test_an_input_that_holds_the_jobs_folder_does_not_hold_its_files(run_dir: Path, code: Path) -> None:
    (run_dir / "job" / "checkpoint").write_text("x")
    found = plan(spec_of(run_dir, "", inputs={"run": run_dir}), code)
    assert "job" in names(found[str(run_dir)])
    assert "job/checkpoint" not in names(found[str(run_dir)])


def test_equal_contents_have_one_name_and_others_have_another(tmp_path: Path, code: Path) -> None:
    def volume(name: str, **files: str) -> str:
        folder = tmp_path / name
        (folder / "job").mkdir(parents=True)
        (folder / "in").mkdir()
        for file, text in files.items():
            (folder / "in" / file).write_text(text)
        return plan(spec_of(folder, "", inputs={"in": folder / "in"}), code)[str(folder / "in")].volume

    first = volume("first", a="1", b="2")
    assert volume("again", b="2", a="1") == first
    assert (
        len({first, volume("text", a="1", b="3"), volume("name", a="1", c="2"), volume("less", a="1")}) == 4
    )
    spec = spec_of(tmp_path / "first", "", inputs={"in": tmp_path / "first" / "in"})
    other_user = plan(spec, code, user=(1001, 1000))[str(tmp_path / "first" / "in")]
    assert other_user.volume != first
    (tmp_path / "first" / "in" / "a").chmod(0o755)
    assert plan(spec, code)[str(tmp_path / "first" / "in")].volume != first


def test_a_big_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = docker_trees.sha256_file
    monkeypatch.setattr(docker_trees, "sha256_file", lambda path: read.append(path) or real(path))
    (tmp_path / "weights").write_text("one")
    hashes = Hashes()

    def listing() -> list[list[str]]:
        return hashes.listing(docker_trees.list_items(tmp_path, follow_links_out=False))

    first = listing()
    assert listing() == first
    assert len(read) == 1
    (tmp_path / "weights").write_text("two")
    os.utime(tmp_path / "weights", ns=(time.time_ns(), time.time_ns() + 10_000_000))
    assert listing() != first
    assert len(read) == 2


def test_a_model_in_the_hubs_cache_travels_with_its_blobs(tmp_path: Path, code: Path) -> None:
    run, blobs = tmp_path / "run", tmp_path / "hub" / "blobs"
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    for folder in (run / "job", blobs, snapshot / "sub"):
        folder.mkdir(parents=True)
    (blobs / "1234").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    (snapshot / "sub" / "again").symlink_to("../model.safetensors")
    (snapshot / "absolute").symlink_to(snapshot / "model.safetensors")
    (snapshot / "nowhere").symlink_to("missing")
    (snapshot / "folder").symlink_to("../../blobs")
    os.mkfifo(snapshot / "fifo")
    spec = spec_of(run, "", inputs={"model": snapshot}, labels={"run_dir": str(run)})
    items = {item.name: item for item in plan(spec, code)[str(snapshot)].items}
    assert items["model.safetensors"].source == blobs / "1234"
    assert items["absolute"].source == blobs / "1234"
    assert set(items) == {"model.safetensors", "absolute", "sub", "sub/again", "nowhere"}
    assert items["nowhere"].kind == "link"
    assert items["sub/again"].source == blobs / "1234"


def test_a_link_of_the_run_that_leads_out_is_not_followed(run_dir: Path, code: Path) -> None:
    (run_dir / "data" / "stolen").symlink_to("/etc/passwd")
    (run_dir / "data" / "inside").symlink_to("train.jsonl")
    (run_dir / "job" / "stolen").symlink_to("/etc/passwd")
    inputs = {"data": run_dir / "data"}
    found = plan(spec_of(run_dir, "", inputs=inputs, labels={"run_dir": str(run_dir)}), code)
    items = {item.name: item for item in found[str(run_dir / "data")].items}
    assert set(items) == {"train.jsonl", "inside"}
    assert (items["inside"].kind, items["inside"].link) == ("link", "train.jsonl")
    assert found[str(run_dir / "job")].items == []
    (run_dir / "linked").symlink_to("/etc/passwd")
    with pytest.raises(JobError, match="through a link"):
        plan(spec_of(run_dir, "", inputs={"x": run_dir / "linked"}, labels={"run_dir": str(run_dir)}), code)


def test_an_input_that_is_no_file_or_folder_is_refused(run_dir: Path, code: Path) -> None:
    os.mkfifo(run_dir / "files" / "fifo")
    with pytest.raises(JobError, match="neither a file nor a folder"):
        plan(spec_of(run_dir, "", inputs={"x": run_dir / "files" / "fifo"}), code)
