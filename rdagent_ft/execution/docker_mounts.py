"""Which folders a job's container sees: each input read-only, its own folder writable, nothing more.

Inputs and the output are mounted at their own absolute paths, so that a config means the same inside
and outside. On a remote engine the same targets are volumes (`docker_transfer`).
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError
from rdagent_ft.execution.port import JobSpec

MAX_LINKS = 2_000
MAX_ENTRIES = 50_000


def checked_inputs(spec: JobSpec) -> dict[str, Path]:
    """Return the inputs as absolute paths. Raises `JobError` for one that must not be mounted.

    What lies in the run's folder may have been written by a job: an input there must be reached
    without any link, because the engine follows links with its own rights.
    """
    run_dir = Path(spec.labels["run_dir"]) if "run_dir" in spec.labels else None
    inputs: dict[str, Path] = {}
    for name, given in spec.inputs.items():
        path = given.absolute()
        if not path.exists():
            raise JobError(f"input {name!r} of job {spec.attempt_id!r} is not there: {path}")
        if run_dir is not None and path.is_relative_to(run_dir.absolute()):
            inside = path.relative_to(run_dir.absolute())
            if path.resolve() != run_dir.resolve() / inside:
                raise JobError(f"input {name!r} of job {spec.attempt_id!r} is reached through a link: {path}")
        inputs[name] = path
    return inputs


def bind_mounts(spec: JobSpec, inputs: dict[str, Path], code: Path, code_target: str) -> list[dict[str, Any]]:
    """Return the bind mounts of a job on an engine that sees our files."""
    out_dir = spec.out_dir.absolute()
    mounts = {str(out_dir): _bind(out_dir, str(out_dir), read_only=False)}
    mounts[code_target] = _bind(code, code_target)
    run_dir = Path(spec.labels["run_dir"]).absolute() if "run_dir" in spec.labels else None
    for path in inputs.values():
        mounts.setdefault(str(path), _bind(path.resolve(), str(path)))
        if run_dir is None or not path.is_relative_to(run_dir):
            for target, source in linked_files(path).items():
                mounts.setdefault(target, _bind(source, target))
    for target, name in spec.aliases.items():
        source = out_dir if name == "out" else inputs[name]
        mounts[target] = _bind(source, target, read_only=name != "out")
    return list(mounts.values())


def linked_files(folder: Path) -> dict[str, Path]:
    """Return target inside the container -> real path, for links in `folder` that lead out of it.

    A model folder in the hub's cache is a folder of links to `../../blobs`: without the blobs, it
    would be full of dangling links inside. Raises `JobError` when there are too many.
    """
    if not folder.is_dir():
        return {}
    root, found = folder.resolve(), dict[str, Path]()
    for parent, folders, files in os.walk(root):
        for name in islice((*folders, *files), MAX_ENTRIES):
            path = Path(parent) / name
            if not path.is_symlink():
                continue
            seen_at = folder / path.relative_to(root)
            target = os.path.normpath(seen_at.parent / path.readlink())
            real = path.resolve()
            if real.is_file() and not Path(target).is_relative_to(folder):
                found[target] = real
            if len(found) > MAX_LINKS:
                raise JobError(f"{folder} holds more than {MAX_LINKS} links that lead out of it")
    return found


def _bind(source: Path, target: str, *, read_only: bool = True) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}
