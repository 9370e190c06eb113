"""The model that a finished run handed over, checked against what the run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdagent_ft.errors import StateError, UserError
from rdagent_ft.reporting.view import RunView
from rdagent_ft.values import sha256_file, sha256_text


class Source(NamedTuple):
    """The model that a run handed over: its loop, folders, and file -> hash of its weights."""

    loop: int
    merged: Path
    adapter: Path | None
    merged_sha256: dict[str, str]
    adapter_sha256: dict[str, str]


def source_of(view: RunView) -> Source:
    """Return the model that the run handed over, checked against its journal.

    Raises `UserError` when there is none, `StateError` when it is not the recorded one.
    """
    number = view.best_loop
    output, loop = view.export(number), view.loop(number)
    if number is None or output is None or loop is None or loop.train is None:
        status, _ = view.status
        why = f"its status is {status}"
        if status == "finished":
            why = "no candidate was accepted" if number is None else f"loop {number} was not exported"
        raise UserError(
            f"run {view.run_id} has handed over no model: {why}",
            hint=f"finish it with `rdagent-ft resume {view.run_id}`" if status != "finished" else None,
        )
    merged = view.run_dir / output.merged
    for name, digest in output.files.items():
        if not (merged / name).is_file() or sha256_file(merged / name) != digest:
            raise StateError(
                f"{output.merged}/{name} of run {view.run_id} is not the file that the run recorded"
            )
    adapter = None if output.adapter is None else view.run_dir / output.adapter
    weights = {} if adapter is None else _weight_hashes(adapter)
    if adapter is not None and loop.train.weights_sha256 not in {None, _combined(weights)}:
        raise StateError(f"{output.adapter} of run {view.run_id} is not the adapter that was trained")
    merged_weights = {k: v for k, v in output.files.items() if k.endswith(".safetensors")}
    return Source(number, merged, adapter, merged_weights or _weight_hashes(merged), weights)


def _weight_hashes(folder: Path) -> dict[str, str]:
    found = {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}
    if not found:
        raise StateError(f"{str(folder)!r} holds no weights")
    return found


def _combined(weights: dict[str, str]) -> str:
    """Return the hash as `execution.weight_files.combined_sha256` forms it."""
    hashes = [weights[name] for name in sorted(weights)]
    return hashes[0] if len(hashes) == 1 else sha256_text("".join(hashes))
