"""Results of jobs on disk, one folder a key: whole or absent, checked by hash when they are used.

`KEY/files/…` is what the job left, `KEY/job.log` its log, `KEY/result.json` the list of both with
their hashes. An entry is built in a folder of its own and renamed at the end, so a kill at any moment
leaves nothing that counts; a damaged entry is a miss and is removed. Whether a result is worth
keeping is asked elsewhere.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rdagent_ft.errors import JobError
from rdagent_ft.execution.carry import CarriedFile, copy_file_inside, copy_tree
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.execution.port import JobResult
from rdagent_ft.values import Frozen, write_json

MAX_FILES = 20_000
MAX_LOG_BYTES = 256 << 20
_MAX_ENTRY_BYTES = 32 << 20
_ENTRY, _LOG, _FILES = "result.json", "job.log", "files"
_STAGING, _TRASH = ".staging-", ".trash-"
_log = logging.getLogger(__name__)


class StoredResult(Frozen):
    """One entry: the result, the files with their hashes, the log.

    Attributes:
        log_inside: name of the log in the job's own folder; None when the executor keeps it elsewhere.
    """

    schema_version: Literal[1] = 1
    key: str
    result: JobResult
    files: tuple[CarriedFile, ...]
    log: CarriedFile | None
    log_inside: str | None
    stored_unix: float


def store_result(
    folder: Path, key: str, out_dir: Path, result: JobResult, log: Path, *,
    skip: Collection[str], max_bytes: int,
) -> bool:  # fmt: skip
    """Store what an ended job left; return whether an entry of this key is there now.

    `skip` names entries at the top of `out_dir` that are not kept. Links and special files are left
    out. A job that left too much, or a full disk, is no error: nothing is stored, and the log says so.
    """
    entry = folder / key
    if entry.is_dir():
        return True
    log_inside = log.name if log.parent == out_dir else None
    try:
        with _staging(folder) as staging:
            stats = copy_tree(
                out_dir,
                staging / _FILES,
                skip={*skip, *([] if log_inside is None else [log_inside])},
                max_bytes=max_bytes,
                max_files=MAX_FILES,
            )
            stored = StoredResult(
                key=key,
                result=result,
                files=stats.files,
                log=_copy_log(log, staging / _LOG),
                log_inside=log_inside,
                stored_unix=time.time(),
            )
            write_json(staging / _ENTRY, stored.model_dump(mode="json"))
            staging.rename(entry)
    except JobError as error:
        _log.info("result %s is not kept: %s", key[:12], error.message)
    except OSError as error:  # of two writers, the second finds the entry in its place
        if not entry.is_dir():
            _log.warning("result %s could not be kept: %s", key[:12], error)
    return entry.is_dir()


def fetch_result(folder: Path, key: str, target: Path) -> StoredResult | None:
    """Copy an entry to `target` (`files/…` and, kept elsewhere, `job.log`); None is a miss.

    Every file is checked against its hash. A damaged entry is removed and counts as a miss; `target`
    is then left empty.
    """
    entry = folder / key
    if not entry.is_dir():
        return None
    shutil.rmtree(target, ignore_errors=True)
    (target / _FILES).mkdir(parents=True)
    try:
        stored = StoredResult.model_validate(read_json_file(entry, _ENTRY, _MAX_ENTRY_BYTES))
        if stored.key != key:
            raise JobError(f"it is the entry of {stored.key[:12]}")
        for file in stored.files:
            _fetch(entry / _FILES, file, target / _FILES / file.name)
        if stored.log is not None:
            inside = target / _FILES / stored.log_inside if stored.log_inside else target / _LOG
            _fetch(entry, stored.log, inside)
    except (JobError, ValidationError) as error:
        _log.warning("stored result %s is damaged and is removed: %s", key[:12], error)
        shutil.rmtree(target, ignore_errors=True)
        forget_result(folder, key)
        return None
    _touch(entry / _ENTRY)
    return stored


def forget_result(folder: Path, key: str) -> None:
    """Remove an entry; it stops counting at once. Absent is no error."""
    trash = folder / f"{_TRASH}{secrets.token_hex(8)}"
    try:
        (folder / key).rename(trash)
    except OSError:
        return
    shutil.rmtree(trash, ignore_errors=True)


def prune(folder: Path, max_bytes: int) -> list[str]:
    """Remove the entries that were used longest ago until the rest has at most `max_bytes`.

    Also removes what killed writers left behind. Returns the keys that were removed.
    """
    if not folder.is_dir():
        return []
    entries: list[tuple[float, int, str]] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_TRASH) or (path.name.startswith(_STAGING) and _is_orphan(path)):
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith("."):
            entries.append((_last_used(path), _size(path), path.name))
    n_bytes = sum(size for _, size, _ in entries)
    removed: list[str] = []
    for _, size, key in sorted(entries):
        if n_bytes <= max_bytes:
            break
        forget_result(folder, key)
        removed.append(key)
        n_bytes -= size
    return removed


def _copy_log(log: Path, target: Path) -> CarriedFile | None:
    try:
        return copy_file_inside(log.parent, log.name, target, max_bytes=MAX_LOG_BYTES).model_copy(
            update={"name": _LOG}
        )
    except JobError:  # an executor may have none, and a job may have put a link in its place
        return None


def _fetch(source: Path, file: CarriedFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    found = copy_file_inside(source, file.name, target, max_bytes=file.n_bytes)
    if found.sha256 != file.sha256:
        raise JobError(f"`{file.name}` has changed")


@contextmanager
def _staging(folder: Path) -> Generator[Path]:
    """Yield a new folder that this process holds locked; it is removed unless it was renamed."""
    staging = folder / f"{_STAGING}{secrets.token_hex(8)}"
    staging.mkdir(parents=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield staging
    finally:
        os.close(descriptor)
        shutil.rmtree(staging, ignore_errors=True)


def _is_orphan(staging: Path) -> bool:
    """Return whether no live process holds the folder."""
    try:
        descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except FileNotFoundError:
        return  # pruned a moment ago; what was fetched is whole


def _last_used(entry: Path) -> float:
    try:
        return (entry / _ENTRY).stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    n_bytes = 0
    for parent, _folders, files in os.walk(entry):
        for name in files:
            try:
                n_bytes += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return n_bytes
