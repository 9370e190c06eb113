"""The folder of one OpenCompass run: config, data, tokenizer, and whether an earlier run is gone on with.

The folder is named after everything that the answers depend on, because OpenCompass skips whatever it
finds done, whichever model did it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.opencompass.config import config_hash, render_config
from rdagent_ft.evaluation.opencompass.environment import place_tokenizer
from rdagent_ft.evaluation.opencompass.logs import read_logs
from rdagent_ft.evaluation.opencompass.place import Placed, place_data
from rdagent_ft.evaluation.opencompass.predictions import mend_unfinished
from rdagent_ft.evaluation.opencompass.spec import OpenCompassRequest
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import Frozen, content_hash, sha256_file, write_atomic, write_json

TIMESTAMP = re.compile(r"[0-9]{8}_[0-9]{6}")
IDENTITY_NAME = "identity.json"
CONFIG_NAME = "config.py"
LOG_NAME = "opencompass.log"


class Prepared(Frozen):
    """A run on disk that can be started.

    Attributes:
        folder: named after the identity; holds config, data, tokenizer, `work` and the log.
        identity: what the answers depend on; a folder with another one is never used.
        reuse: OpenCompass's timestamp folder of an earlier, unfinished run of the same identity.
    """

    folder: Path
    identity: dict[str, str]
    placed: tuple[Placed, ...]
    reuse: str | None = None

    @property
    def work_dir(self) -> Path:
        """Return OpenCompass's `-w`."""
        return self.folder / "work"


def prepare(request: OpenCompassRequest, out_dir: Path) -> Prepared:
    """Write config, data and tokenizer into a folder of `out_dir` named after the run's identity.

    Raises `JobError` ("poisoned cache") when that folder holds anything of another identity, `DataError`
    and `PreflightError` for input that cannot be asked.
    """
    staging = Path(tempfile.mkdtemp(prefix=".opencompass-", dir=_made(out_dir.absolute())))
    try:
        identity = _identity(request, staging)
        folder = out_dir.absolute() / f"opencompass-{request.endpoint.role}-{content_hash(identity)}"
        reuse = _reusable(folder, identity)
        (folder / "work").mkdir(parents=True, exist_ok=True)
        placed = place_data(request.tasks, folder / "data-cache")
        place_tokenizer(request.endpoint.tokenizer_dir, folder / "tokenizer")
        text = render_config(request, placed, folder / "tokenizer")
        write_atomic(folder / CONFIG_NAME, text)
        write_json(folder / IDENTITY_NAME, identity)
        if reuse is not None:
            _mend(request, placed, folder / "work" / reuse)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Prepared(folder=folder, identity=identity, placed=placed, reuse=reuse)


def command(prepared: Prepared, python: Path) -> tuple[str, ...]:
    """Return the argv that runs a prepared folder."""
    argv = (str(python), "-m", "opencompass.cli.main", str(prepared.folder / CONFIG_NAME), "-m", "infer")
    argv += ("-w", str(prepared.work_dir), "--max-num-workers", "1")
    return argv if prepared.reuse is None else (*argv, "-r", prepared.reuse)


def _identity(request: OpenCompassRequest, staging: Path) -> dict[str, str]:
    """Return what the answers depend on. The server's port is left out: it changes with every start."""
    neutral = request.model_copy(
        update={"endpoint": request.endpoint.model_copy(update={"base_url": "http://server"})}
    )
    placed = place_data(request.tasks, staging)
    text = render_config(neutral, placed, Path("/tokenizer")).replace(str(staging), "/data")
    files = {
        task.name: sha256_file(task.task.items_file)
        + ("" if task.records_file is None else sha256_file(task.records_file))
        for task in request.tasks
    }
    return {
        "model": request.endpoint.fingerprint,
        "role": request.endpoint.role,
        "items": content_hash(files, 32),
        "config": config_hash(text),
    }


def _reusable(folder: Path, identity: dict[str, str]) -> str | None:
    """Return the one timestamp folder of an earlier run of this identity, None when there is none."""
    if not folder.exists():
        return None
    if not any(folder.iterdir()):
        return None
    work = folder / "work"
    found = sorted(path.name for path in work.iterdir()) if work.is_dir() else []
    stored: dict[str, Any] = (
        read_json_file(folder, IDENTITY_NAME) if (folder / IDENTITY_NAME).exists() else {}
    )
    if stored != identity or len(found) > 1 or not all(TIMESTAMP.fullmatch(name) for name in found):
        if not stored and not found:
            return None  # an earlier call ended before its identity was written: nothing was asked yet
        raise JobError(
            f"poisoned cache: {folder} does not hold one run of this model, these items and this config",
            hint="remove the folder; nothing in it can be trusted",
        )
    if not found:
        return None
    earlier = read_logs(folder / LOG_NAME, work / found[0])
    if earlier.altered is not None:
        raise JobError(
            f"{folder} holds answers that do not count: {earlier.message}", hint="remove the folder"
        )
    return found[0]


def _mend(request: OpenCompassRequest, placed: tuple[Placed, ...], run_dir: Path) -> None:
    for task in request.tasks:
        items = {item.item_id: item for item in read_items(task.task.items_file, task.task.n_items)}
        for one in placed:
            if one.task_name == task.name:
                mend_unfinished(run_dir, request.endpoint.role, task, one, items)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
