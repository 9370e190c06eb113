"""The folder from which a running server loads adapters: mounted read-only there, filled from here.

A copy is named by its content, because the server's prefix cache is keyed by name and path: other
weights under an old path would be answered from the cache of the old ones. Files are copied, never
hard-linked: a trained folder whose files have a second name is refused later as possibly foreign.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import open_inside
from rdagent_ft.execution.weight_files import ADAPTER_WEIGHTS
from rdagent_ft.values import Frozen

ADAPTER_CONFIG = "adapter_config.json"
_PIECE_BYTES = 1 << 20


class SpooledAdapter(Frozen):
    """An adapter where the server sees it. `sha256` covers its config and its weights."""

    folder: Path
    sha256: str


def spool_adapter(spool: Path, name: str, adapter_dir: Path) -> SpooledAdapter:
    """Copy an adapter's config and weights into the spool and return the copy.

    It appears whole or not at all. The tokenizer and everything else in `adapter_dir` stays behind.
    Raises `JobError` when a file is missing, is no regular file, or cannot be copied.
    """
    staging = spool / f".{name}.{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        hashes = [_copy(adapter_dir, file, staging / file) for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
        sha256 = hashlib.sha256("".join(hashes).encode()).hexdigest()
        place = spool / f"{name}-{sha256[:16]}"
        if not place.exists():
            staging.rename(place)
    except OSError as error:
        raise JobError(f"adapter {name!r} cannot be copied for the server: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return SpooledAdapter(folder=place, sha256=sha256)


def _copy(folder: Path, name: str, place: Path) -> str:
    """Copy one regular file and return its SHA-256 in hex."""
    digest = hashlib.sha256()
    with os.fdopen(open_inside(folder, name), "rb") as source, place.open("xb") as copy:
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()
