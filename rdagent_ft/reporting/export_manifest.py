"""What lies in an exported folder: `export_manifest.json`, its writing, reading and checking.

Every file is named with its size and hash, so that a publication sends exactly what was exported. Paths
are relative to the folder; nothing of the machine stands in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rdagent_ft.errors import StateError
from rdagent_ft.reporting.card_forms import Form
from rdagent_ft.values import Frozen, sha256_file, write_json

MANIFEST_NAME = "export_manifest.json"
README = "README.md"


class ExportFile(Frozen):
    """One file: path inside the folder, bytes, SHA-256."""

    path: str
    n_bytes: int
    sha256: str


class ExportManifest(Frozen):
    """An exported form of a run's model.

    Attributes:
        base, base_revision: the base model as the card names it.
        source_sha256: file -> hash of the weights that it was made from.
        dtype: how weights are stored; a GGUF type for `gguf`.
        notes: how the form differs from what was scored.
        files: everything beside this manifest and the card, in name order.
    """

    schema_version: Literal[1] = 1
    form: Form
    run_id: str
    loop: int
    recipe_hash: str | None
    base: str
    base_revision: str
    source_sha256: dict[str, str]
    dtype: str
    notes: tuple[str, ...] = ()
    files: tuple[ExportFile, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.n_bytes for file in self.files)

    @property
    def weights(self) -> str | None:
        """The name of the GGUF file; None in other forms."""
        return next((file.path for file in self.files if file.path.endswith(".gguf")), None)


def list_files(folder: Path) -> tuple[ExportFile, ...]:
    """Return the folder's files with sizes and hashes, without manifest and card."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return tuple(
        ExportFile(
            path=path.relative_to(folder).as_posix(), n_bytes=path.stat().st_size, sha256=sha256_file(path)
        )
        for path in found
        if path.relative_to(folder).as_posix() not in {MANIFEST_NAME, README}
    )


def write_manifest(folder: Path, manifest: ExportManifest) -> None:
    """Write the manifest into its folder."""
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> ExportManifest | None:
    """Return a folder's manifest, or None where there is none of ours."""
    try:
        return ExportManifest.model_validate(json.loads((folder / MANIFEST_NAME).read_bytes()))
    except (OSError, ValueError, RecursionError, ValidationError):
        return None


def check_files(folder: Path, manifest: ExportManifest) -> None:
    """Raise `StateError` with the first file that is missing, changed or new since the export."""
    now, then = {f.path: f for f in list_files(folder)}, {f.path: f for f in manifest.files}
    for path in sorted(now.keys() | then.keys()):
        if now.get(path) != then.get(path):
            word = "is new" if path not in then else "is missing" if path not in now else "was changed"
            raise StateError(
                f"{path!r} in {str(folder)!r} {word} since the export",
                hint="remove the folder and export again",
            )
