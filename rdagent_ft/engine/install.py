"""Putting the exported model into `export/`: checked, whole, and safe to repeat after a crash.

What is handed to people was written by jobs, so it is judged once more here, and its hash must be the
one that the training recorded. Nothing is converted.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rdagent_ft.errors import JobError
from rdagent_ft.execution.carry import copy_tree
from rdagent_ft.execution.weight_files import MAX_FILES, check_weights, combined_sha256, max_model_bytes
from rdagent_ft.values import Frozen, write_atomic

MERGED = "merged"
_INSTALLING = "installing"


class Exported(Frozen):
    """What is to be installed.

    Attributes:
        loop: whose model it is.
        out_dir: the merge job's folder, with `merged/` in it.
        base_model: what adapter and model were made from.
        weights: the trained weights; copied to `export/adapter` when they are an adapter.
        is_adapter: whether they are.
        sha256: hash of the trained weights as the train step recorded it.
    """

    loop: int
    out_dir: Path
    base_model: Path
    weights: Path
    is_adapter: bool
    sha256: str | None


def install_export(run_dir: Path, exported: Exported) -> None:
    """Build `export/` beside its place and swap it in.

    Raises `JobError` when the merge left no model, when a file cannot be trusted, or when the weights
    are not the ones that were trained.
    """
    staging = run_dir / f".export.{exported.loop:03d}.new"
    # The jobs' own folders are theirs to write; this one, a level higher, is not.
    marker = exported.out_dir.parent / _INSTALLING
    if (exported.out_dir / MERGED).is_symlink() or (exported.out_dir / MERGED).exists():
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _check_and_copy(exported, staging)
        write_atomic(marker, exported.out_dir.name)
        (exported.out_dir / MERGED).rename(staging / MERGED)
    elif not marker.is_file() or marker.read_text(encoding="utf-8") != exported.out_dir.name:
        raise JobError("the merge left no model")
    if staging.exists():  # else a crash came after the swap and before the record
        _swap(staging, run_dir / "export", run_dir / ".export.old")


def _check_and_copy(exported: Exported, staging: Path) -> None:
    base, weights = exported.base_model, exported.weights
    merged = check_weights(exported.out_dir, MERGED, base_model=base, kind="model")
    trained = merged
    if exported.is_adapter:
        trained = check_weights(weights.parent, weights.name, base_model=base, kind="adapter")
        copy_tree(weights, staging / "adapter", max_bytes=max_model_bytes(base), max_files=MAX_FILES)
    if exported.sha256 not in {None, combined_sha256(trained)}:
        raise JobError(
            f"the weights of loop {exported.loop} are not the ones that were trained",
            hint="something changed the run's folder; train again",
        )


def _swap(staging: Path, place: Path, old: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    staging.rename(place)
    shutil.rmtree(old, ignore_errors=True)
