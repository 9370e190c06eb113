"""How much a job's folder holds, and how full its disk is: plain files, no engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdagent_ft.execution.docker_profile import GIB, Limits
from rdagent_ft.execution.docker_watch import disk_is_almost_full, output_is_too_much

LIMITS = Limits(memory_bytes=GIB, n_cpus=1, shm_bytes=GIB, tmp_bytes=GIB, output_bytes=1 << 20)


def test_a_folder_is_too_much_by_bytes_on_disk_or_by_files(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "data").write_bytes(os.urandom(900_000))
    assert not output_is_too_much(tmp_path, LIMITS)
    (tmp_path / "more").write_bytes(os.urandom(200_000))
    assert output_is_too_much(tmp_path, LIMITS)
    few_files = LIMITS.model_copy(update={"output_bytes": GIB, "n_output_files": 3})
    assert output_is_too_much(tmp_path, few_files)


def test_a_sparse_file_counts_for_what_it_takes(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(10 * GIB)
    assert not output_is_too_much(tmp_path, LIMITS)


def test_links_count_as_themselves(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    (tmp_path / "job" / "link").symlink_to(tmp_path / "big")
    (tmp_path / "job" / "up").symlink_to(tmp_path)
    assert not output_is_too_much(tmp_path / "job", LIMITS)


def test_a_disk_that_is_almost_full_is_seen_whoever_filled_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"bytes": LIMITS.min_free_bytes}

    class Usage:
        def __init__(self, _path: object) -> None:
            self.free = free["bytes"]

    monkeypatch.setattr("rdagent_ft.execution.docker_watch.shutil.disk_usage", Usage)
    assert not disk_is_almost_full(tmp_path, LIMITS)
    free["bytes"] -= 1
    assert disk_is_almost_full(tmp_path, LIMITS)
