"""An executor around another one that does no work twice: an equal job gets its stored result.

Equal means an equal key (`result_key`); results lie in `result_store`. Only jobs that ended well are
stored. An attempt that the inner executor was ever asked to run stays with it, so that a resumed run
adopts its job; what was decided for an attempt is noted beside its folder, where no job can write.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError
from rdagent_ft.execution.machine import Gpu
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.execution.port import Executor, JobHandle, JobKind, JobResult, JobSpec, JobState
from rdagent_ft.execution.result_key import NOT_CONTENT, FileHashes, UnnamedResultError, job_key
from rdagent_ft.execution.result_store import fetch_result, forget_result, prune, store_result
from rdagent_ft.values import Frozen, write_json

_NOTE, _FETCHED = "cache.json", "fetched"
_ATTEMPT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_log = logging.getLogger(__name__)


class CacheNote(Frozen):
    """What was decided for one attempt.

    Attributes:
        key: name of its result; None when it has none.
        result: the stored result that it was given; None when the inner executor runs it.
        log_inside: the log's name in the job's folder, of a given result.
    """

    key: str | None
    result: JobResult | None = None
    log_inside: str | None = None


class CachingExecutor:
    """Implements the `Executor` port with another executor and a store of results.

    Args:
        inner: runs what is not stored.
        folder: the store; made when missing, shared by runs and processes.
        image_of: what a kind of job runs in, as an id that changes with its content.
        code_hash: the code that jobs run (`result_key.package_hash`).
        max_bytes: a job that leaves more is not stored.
        store_max_bytes: `tidy` removes what was used longest ago past this size.
    """

    def __init__(
        self,
        inner: Executor,
        folder: Path,
        image_of: Callable[[JobKind], str],
        code_hash: str,
        *,
        max_bytes: int = 20 << 30,
        store_max_bytes: int = 200 << 30,
    ) -> None:
        self.name = inner.name
        self._inner = inner
        self._folder = folder.absolute()
        self._image_of = image_of
        self._code_hash = code_hash
        self._max_bytes = max_bytes
        self._store_max_bytes = store_max_bytes
        self._hashes = FileHashes()

    @property
    def shares_files(self) -> bool:
        """Whether jobs of the inner executor write straight into our folders."""
        return self._inner.shares_files

    def submit(self, spec: JobSpec) -> JobHandle:
        """Give the job its stored result, or have it run; an attempt that was launched is adopted.

        Raises what the inner executor's `submit` raises.
        """
        note = self._note(spec)
        if note.result is None:
            handle = self._inner.submit(spec)
            extra = {} if note.key is None else {"key": note.key, "scratch": list(spec.scratch)}
            return handle.model_copy(update={"ref": handle.ref | extra})
        out_dir = spec.out_dir.absolute()
        _install(_control(out_dir, spec.attempt_id) / _FETCHED / "files", out_dir)
        return JobHandle(
            executor=self.name, attempt_id=spec.attempt_id, out_dir=out_dir, ref={"cached": note.key}
        )

    def poll(self, handle: JobHandle) -> JobState:
        """Return whether the job still runs; a given result has ended."""
        return JobState(state="ended") if "cached" in handle.ref else self._inner.poll(_plain(handle))

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job and everything it started; nothing to do for a given result."""
        if "cached" not in handle.ref:
            self._inner.cancel(_plain(handle))

    def collect(self, handle: JobHandle) -> JobResult:
        """Return how the job ended, and store it when it ended well.

        A given result has the reason `cached`, and `cached` with its key among the evidence; one that
        was stored now has `stored` there (`forget` takes either).
        """
        if "cached" in handle.ref:
            return self._given(handle)
        plain = _plain(handle)
        result = self._inner.collect(plain)
        key = handle.ref.get("key")
        if result.failure_class != "ok" or not isinstance(key, str):
            return result
        stored = store_result(
            self._folder,
            key,
            handle.out_dir.absolute(),
            result,
            self._inner.log_path(plain),
            skip=NOT_CONTENT | set(handle.ref.get("scratch", ())),
            max_bytes=self._max_bytes,
        )
        return _with_evidence(result, {"stored": key}) if stored else result

    def forget(self, result: JobResult) -> None:
        """Remove the stored result behind `result`: the job ended well, and yet it left nothing of use."""
        key = result.evidence.get("cached") or result.evidence.get("stored")
        if isinstance(key, str):
            forget_result(self._folder, key)

    def log_path(self, handle: JobHandle) -> Path:
        """Return the file that holds the job's merged output, or a copy of the stored one."""
        if "cached" not in handle.ref:
            return self._inner.log_path(_plain(handle))
        control = _control(handle.out_dir, handle.attempt_id)
        note = _read_note(control)
        if note is not None and note.log_inside is not None:
            return handle.out_dir / note.log_inside
        return control / _FETCHED / "job.log"

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs that the inner executor's jobs can be given."""
        return self._inner.gpus()

    def tidy(self, run_dir: Path) -> None:
        """Tidy the inner executor, and keep the store within its bound."""
        self._inner.tidy(run_dir)
        prune(self._folder, self._store_max_bytes)

    def abandoned(self) -> list[Path]:
        """Return the run folders of jobs whose controller is gone."""
        return self._inner.abandoned()

    def reap(self, folder: Path) -> list[str]:
        """Stop jobs under `folder` that nobody waits for; return their attempt ids."""
        return self._inner.reap(folder)

    def _note(self, spec: JobSpec) -> CacheNote:
        """Return what was decided for this attempt, deciding it now when nothing was.

        The note is written before anything is done, so that a controller that died in between finds
        the same decision: the job's folder is no longer what it was.
        """
        if not _ATTEMPT_ID.fullmatch(spec.attempt_id):
            raise JobError(f"attempt id {spec.attempt_id!r} cannot name a folder")
        control = _control(spec.out_dir, spec.attempt_id)
        note = _read_note(control)
        if note is not None:
            return note
        if spec.kind == "serve" or _was_launched(spec):  # a server leaves nothing to give again
            return CacheNote(key=None)
        note = self._decide(spec, control)
        write_json(control / _NOTE, note.model_dump(mode="json"))
        return note

    def _decide(self, spec: JobSpec, control: Path) -> CacheNote:
        try:
            key = job_key(
                spec, image=self._image_of(spec.kind), code_hash=self._code_hash, hashes=self._hashes
            )
        except UnnamedResultError as error:
            _log.info("the result of %s will not be kept: %s", spec.attempt_id, error.message)
            return CacheNote(key=None)
        try:
            stored = fetch_result(self._folder, key, control / _FETCHED)
        except OSError as error:  # a full disk, a store that may not be read
            _log.warning("stored result %s cannot be used: %s", key[:12], error)
            shutil.rmtree(control / _FETCHED, ignore_errors=True)
            stored = None
        if stored is None:
            return CacheNote(key=key)
        return CacheNote(key=key, result=stored.result, log_inside=stored.log_inside)

    def _given(self, handle: JobHandle) -> JobResult:
        note = _read_note(_control(handle.out_dir, handle.attempt_id))
        if note is None or note.result is None:
            raise JobError(
                f"the stored result that job {handle.attempt_id!r} was given is gone",
                hint=f"something removed files beside {handle.out_dir}",
            )
        return _with_evidence(note.result.model_copy(update={"reason": "cached"}), {"cached": note.key})


def _control(out_dir: Path, attempt_id: str) -> Path:
    """Return where the notes of an attempt lie: beside the job's folder."""
    out_dir = out_dir.absolute()
    return out_dir.with_name(f".{out_dir.name}.cache") / attempt_id


def _was_launched(spec: JobSpec) -> bool:
    """Return whether an executor without this cache has a record of the attempt."""
    out_dir = spec.out_dir.absolute()
    places = (out_dir / ".jobs", out_dir.with_name("." + out_dir.name))
    return any(os.path.lexists(place / spec.attempt_id) for place in places)


def _read_note(control: Path) -> CacheNote | None:
    if not (control / _NOTE).exists():
        return None
    return CacheNote.model_validate(read_json_file(control, _NOTE, 16 << 20))


def _install(fetched: Path, out_dir: Path) -> None:
    """Move what was fetched into the job's folder, entry by entry: a repeat goes on where it stopped."""
    out_dir.mkdir(parents=True, exist_ok=True)
    if not fetched.is_dir():
        return
    for entry in sorted(fetched.iterdir()):
        place = out_dir / entry.name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        entry.replace(place)


def _plain(handle: JobHandle) -> JobHandle:
    """Return the handle as the inner executor made it."""
    ref = {name: value for name, value in handle.ref.items() if name not in {"key", "scratch"}}
    return handle.model_copy(update={"ref": ref})


def _with_evidence(result: JobResult, more: dict[str, Any]) -> JobResult:
    return result.model_copy(update={"evidence": result.evidence | more})
