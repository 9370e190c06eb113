"""A folder of prepared parts: train, validation and test files, and a manifest that pins them.

The manifest holds counts and hashes, no rows and no paths of the machine; equal input and options give equal
files. A folder that holds anything else is never written into.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from rdagent_ft import __version__
from rdagent_ft.data.rows import DatasetSource
from rdagent_ft.data.shares import PART_NAMES, PartName
from rdagent_ft.errors import DataError, UserError
from rdagent_ft.values import Frozen, sha256_file, write_json

MANIFEST_NAME = "manifest.json"
_MADE_BY = "rdagent-ft data"


class PinnedFile(Frozen):
    """One file: its name without folder, rows (None for an input), bytes, SHA-256."""

    name: str
    n_rows: int | None = None
    n_bytes: int
    sha256: str


class PartsManifest(Frozen):
    """What was made of what, and how.

    Attributes:
        made_by, version: the program.
        dataset: what the user named; for a file its name without folder.
        revision: hub commit, or content hash of the files.
        inputs: the files read.
        format: what the parts are written as; read_as: what the input was taken for.
        mapping: canonical field -> column.
        options: the options that decide the content.
        n_read: records in the input; dropped: reason -> records that are in no part.
        parts: train, validation and perhaps test.
        notes: what a person should know.
    """

    schema_version: Literal[1] = 1
    made_by: Literal["rdagent-ft data"] = _MADE_BY
    version: str = __version__
    dataset: str
    revision: str
    inputs: tuple[PinnedFile, ...]
    format: str
    read_as: str
    mapping: dict[str, str]
    options: dict[str, Any]
    n_read: int
    dropped: dict[str, int]
    parts: dict[PartName, PinnedFile]
    notes: tuple[str, ...] = ()


def claim_folder(out: Path, source: DatasetSource) -> None:
    """Make `out` ready: absent, empty, or an earlier result, whose files are removed.

    Raises `UserError` for a folder with anything else, a file, or one that holds the input.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {str(out)!r} is not a folder")
    if any(Path(ref.path).resolve().is_relative_to(out.resolve()) for ref in source.files):
        raise UserError(f"--out {str(out)!r} holds the input", hint="write to a new folder")
    if out.is_dir() and any(out.iterdir()):
        own = {MANIFEST_NAME, *(part_file(name) for name in PART_NAMES)}
        if not {path.name for path in out.iterdir()} <= own or not _is_ours(out / MANIFEST_NAME):
            raise UserError(
                f"--out {str(out)!r} is not empty and was not written by this program",
                hint="name a new folder, or empty this one",
            )
        for name in own:
            (out / name).unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {str(out)!r} cannot be made: {error.strerror}") from None


def part_file(name: PartName) -> str:
    """Return the file name of a part."""
    return f"{name}.jsonl"


def check_parts(sizes: dict[PartName, int]) -> None:
    """Raise `DataError` when a part would be empty."""
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(
            f"{' and '.join(empty)} would be empty: {shown}",
            hint="use more rows or larger shares; rows that say nearly the same stay in one part",
        )


def pin_part(path: Path, n_rows: int) -> PinnedFile:
    """Return the manifest's entry of a written file."""
    return PinnedFile(name=path.name, n_rows=n_rows, n_bytes=path.stat().st_size, sha256=sha256_file(path))


def pinned_inputs(source: DatasetSource) -> tuple[PinnedFile, ...]:
    """Return the input files without their folders."""
    return tuple(
        PinnedFile(name=Path(ref.path).name, n_bytes=ref.n_bytes, sha256=ref.sha256) for ref in source.files
    )


def shown_name(source: DatasetSource) -> str:
    """Return the dataset's name without a folder of this machine."""
    return Path(source.name).name if source.kind == "local" else source.name


def write_manifest(out: Path, manifest: PartsManifest) -> None:
    """Write the manifest; it comes last, so that a folder without one is not complete."""
    write_json(out / MANIFEST_NAME, manifest.model_dump(mode="json"))


def manifest_lines(manifest: PartsManifest, out: Path) -> Iterable[str]:
    """Yield the manifest for people."""
    yield f"{manifest.dataset}: {manifest.n_read:,} records, read as {manifest.read_as}"
    for reason, count in manifest.dropped.items():
        yield f"  left out {count:,}: {reason}"
    for name, part in manifest.parts.items():
        yield f"{name}: {part.n_rows:,} rows, {out / part.name} (sha256 {part.sha256[:12]})"
    yield from (f"note: {note}" for note in manifest.notes)


def _is_ours(path: Path) -> bool:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("made_by") == _MADE_BY  # pyright: ignore
