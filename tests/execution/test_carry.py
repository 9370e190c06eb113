"""Carrying files out of a hostile folder: by content or by renaming, never through a link."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import JobError
from rdagent_ft.execution import carry
from rdagent_ft.execution.carry import copy_file_inside, copy_tree, move_folder_inside
from rdagent_ft.execution.job_tree import MAX_DEPTH, list_tree
from rdagent_ft.values import sha256_file

GIB = 1 << 30


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's folder with one good file and one of each bad kind, below `output`."""
    (tmp_path / "secret").write_text("canary")
    folder = tmp_path / "job" / "output" / "checkpoint-5"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"step": 5}')
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder-link").symlink_to(tmp_path)
    (folder / "hard-link").hardlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, monkeypatch.context() as here:
        here.chdir(folder)  # the path of a socket is short
        listener.bind("socket")
    with open(os.fsencode(folder) + b"/na\xffme\n", "wb"):
        pass
    return tmp_path / "job"


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_every_entry_is_called_what_it_is(job: Path) -> None:
    kinds = {entry.name.split("/")[-1]: entry.kind for entry in list_tree(job, max_entries=100)}
    bad = {name: kind for name, kind in kinds.items() if kind not in {"file", "folder"}}
    assert len(bad) == 6
    assert bad | {"?": "?"} == {
        "link": "link",
        "folder-link": "link",
        "hard-link": "shared",
        "pipe": "special",
        "socket": "special",
        "na\udcffme\n": "unnamed",
        "?": "?",
    }
    with pytest.raises(JobError, match="too many files"):
        list_tree(job, max_entries=5)


def test_a_deep_tree_ends_the_listing(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(3000):  # deeper than a recursion, a path or a limit of open files allows
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    entries = list_tree(folder, max_entries=100)
    assert [entry.kind for entry in entries] == ["folder"] * MAX_DEPTH + ["deep"]
    assert copy_tree(folder, tmp_path / "copy", max_bytes=1, max_files=100).n_skipped == 1
    while True:  # shutil.rmtree cannot
        try:
            shutil.rmtree(folder)
            break
        except (OSError, RecursionError):
            deepest = folder
            for _ in range(400):
                deepest = deepest / "d"
            deepest.rename(tmp_path / "rest")
            shutil.rmtree(folder)
            (tmp_path / "rest").rename(folder)


def test_moved_are_regular_files_alone(job: Path, tmp_path: Path) -> None:
    state = job / "output" / "checkpoint-5" / "trainer_state.json"
    state.chmod(0o6777)
    target = tmp_path / "next"
    target.mkdir()
    n_left = move_folder_inside(job, "output", target, max_files=100, max_bytes=GIB)
    assert n_left == 6
    assert files_below(target) == ["output/checkpoint-5/trainer_state.json"]
    moved = target / "output" / "checkpoint-5" / "trainer_state.json"
    assert moved.stat().st_mode & 0o7777 == 0o644
    assert not state.exists()
    assert (tmp_path / "secret").read_text() == "canary"


def test_a_move_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "job" / "output"
    source.mkdir(parents=True)
    for number in range(10):
        (source / f"{number}").write_text(str(number))
    n_calls = 0
    rename = os.rename

    def failing(*args: object, **options: object) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 5:
            raise KeyboardInterrupt
        rename(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(carry.os, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        move_folder_inside(tmp_path / "job", "output", tmp_path / "next", max_files=100, max_bytes=GIB)
    move_folder_inside(tmp_path / "job", "output", tmp_path / "next", max_files=100, max_bytes=GIB)
    assert files_below(tmp_path / "next") == [f"output/{number}" for number in range(10)]
    assert (tmp_path / "next" / "output" / "7").read_text() == "7"


def test_nothing_is_moved_past_a_limit_or_through_a_link(job: Path, tmp_path: Path) -> None:
    target = tmp_path / "next"
    target.mkdir()
    with pytest.raises(JobError, match="too many files"):
        move_folder_inside(job, "output", target, max_files=3, max_bytes=GIB)
    with pytest.raises(JobError, match="larger than 5 bytes"):
        move_folder_inside(job, "output", target, max_files=100, max_bytes=5)
    (job / "elsewhere").symlink_to(tmp_path)
    for name in ("elsewhere", "../job/output", "absent", str(job / "output")):
        with pytest.raises(JobError):
            move_folder_inside(job, name, target, max_files=100, max_bytes=GIB)
    assert list(target.iterdir()) == []


def test_a_file_is_copied_whole_or_not_at_all(job: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.json"
    carried = copy_file_inside(job, "output/checkpoint-5/trainer_state.json", target, max_bytes=100)
    assert (carried.n_bytes, carried.sha256) == (11, sha256_file(target))
    with pytest.raises(JobError, match="larger than 10 bytes"):
        copy_file_inside(job, "output/checkpoint-5/trainer_state.json", target, max_bytes=10)
    for name in ("link", "hard-link", "pipe", "socket", "absent", "folder-link/secret", "."):
        with pytest.raises(JobError):
            copy_file_inside(job, f"output/checkpoint-5/{name}", target, max_bytes=100)
    assert target.read_text() == '{"step": 5}', "a refused copy leaves the old file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.json", "job", "secret"]


def test_a_target_that_is_a_link_is_replaced_and_not_written_through(job: Path, tmp_path: Path) -> None:
    target = tmp_path / "metrics.jsonl"
    target.symlink_to(tmp_path / "secret")
    copy_file_inside(job, "output/checkpoint-5/trainer_state.json", target, max_bytes=100)
    assert not target.is_symlink()
    assert (tmp_path / "secret").read_text() == "canary"


def test_a_tree_is_copied_without_the_rest(job: Path, tmp_path: Path) -> None:
    (job / "run.sh").write_text("exit 0")
    (job / "run.sh").chmod(0o4700)
    (job / ".jobs").mkdir()
    (job / ".jobs" / "claim").write_text("1")
    (job / "empty").mkdir()
    stats = copy_tree(job, tmp_path / "copy", skip={".jobs"}, max_bytes=GIB, max_files=100)
    assert files_below(tmp_path / "copy") == ["output/checkpoint-5/trainer_state.json", "run.sh"]
    assert [file.name for file in stats.files] == files_below(tmp_path / "copy")
    assert (stats.n_skipped, stats.n_bytes) == (6, 17)
    modes = [(tmp_path / "copy" / file.name).stat().st_mode & 0o7777 for file in stats.files]
    assert modes == [0o644, 0o755]
    assert [file.sha256 for file in stats.files] == [
        sha256_file(tmp_path / "copy" / file.name) for file in stats.files
    ]


def test_a_copy_ends_at_its_limits(job: Path, tmp_path: Path) -> None:
    (job / "sparse").touch()
    os.truncate(job / "sparse", 10 * GIB)
    with pytest.raises(JobError, match="larger than"):
        copy_tree(job, tmp_path / "copy", max_bytes=GIB, max_files=100)
    assert not (tmp_path / "copy").exists(), "sizes are looked at before anything is copied"
    with pytest.raises(JobError, match="too many files"):
        copy_tree(job, tmp_path / "copy", max_bytes=GIB, max_files=4)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)
trees = st.recursive(
    st.binary(max_size=20),
    lambda inner: st.dictionaries(names.filter(lambda n: n not in {".", ".."}), inner, max_size=4),
    max_leaves=12,
)


def write_tree(folder: Path, tree: object) -> int:
    """Write nested dictionaries as folders; return how many files have names that can be kept."""
    folder.mkdir()
    n_kept = 0
    assert isinstance(tree, dict)
    for name, inner in tree.items():
        clean = name.isprintable()
        if isinstance(inner, bytes):
            (folder / name).write_bytes(inner)
            n_kept += clean
        else:
            n_inner = write_tree(folder / name, inner)
            n_kept += n_inner if clean else 0
    return n_kept


@settings(max_examples=50, deadline=None)
@given(trees.filter(lambda tree: isinstance(tree, dict)))
def test_what_is_copied_is_equal(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    folder = tmp_path_factory.mktemp("tree")
    n_kept = write_tree(folder / "job", tree)
    stats = copy_tree(folder / "job", folder / "copy", max_bytes=GIB, max_files=1000)
    assert len(stats.files) == n_kept
    for file in stats.files:
        assert (folder / "copy" / file.name).read_bytes() == (folder / "job" / file.name).read_bytes()
