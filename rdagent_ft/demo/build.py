"""Puts the demo's dataset and base model under FT_FILE_PATH, under the names that the CLI uses.

The dataset is written here; the base is trained by a job that the caller gives to an executor, then
installed from the job's folder. Both are kept until their version changes. Runs nothing itself.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from rdagent_ft.demo.base_model import CORPUS_FILE, BaseVariant, base_corpus, pretrain_spec
from rdagent_ft.demo.flaws import shuffled_labels, with_flaws
from rdagent_ft.demo.router_task import router_items
from rdagent_ft.execution.carry import copy_file_inside
from rdagent_ft.execution.port import JobSpec
from rdagent_ft.values import canonical_json, sha256_file, write_atomic, write_json

Labels = Literal["true", "shuffled"]
DATASET_NAMES: dict[Labels, str] = {"true": "demo/router", "shuffled": "demo/router-shuffled"}
BASE_NAMES: dict[BaseVariant, str] = {"plain": "demo/router-base", "learned": "demo/router-base-learned"}
# Raised whenever the generated rows change; a test holds the file's hash against it.
DATASET_VERSION = 1
# Raised whenever the corpus, the sizes or the training of the base change; a test holds it too.
BASE_VERSION = 1
N_ITEMS = 4_032  # 192 for each of 21 actions
SEED = 7
DATA_FILE = "router.jsonl"
# No ending of a data file, so that the folder's only data file is the dataset.
MARKER = ".demo_marker"
DEMO_NOTE = (
    "The demo's data is generated: about 4 % of its answers are wrong on purpose, in every split, "
    "so about 96 % is the most that any model can score."
)
_MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
_MAX_MODEL_FILE_BYTES = 64 << 20
_MAX_MARKER_BYTES = 4_096


def write_demo_dataset(
    file_path: Path, *, n_items: int = N_ITEMS, seed: int = SEED, labels: Labels = "true"
) -> Path:
    """Write `datasets/demo/router/router.jsonl` under `file_path` and return its path.

    Columns: prompt, completion, source. `n_items` distinct items plus copies. With `labels="shuffled"`
    the dataset is `demo/router-shuffled` and nothing can be learned from it. A file that is whole and of
    the same version is left as it is.
    """
    path = file_path / "datasets" / DATASET_NAMES[labels] / DATA_FILE
    marker = {"version": DATASET_VERSION, "n_items": n_items, "seed": seed, "labels": labels}
    stored = _read_marker(path.parent)
    if path.is_file() and stored == {**marker, "sha256": sha256_file(path)}:
        return path
    items = router_items(n_items, seed)
    if labels == "shuffled":
        items = shuffled_labels(items, seed)
    lines = (json.dumps(row.as_columns(), ensure_ascii=False) + "\n" for row in with_flaws(items, seed))
    write_atomic(path, "".join(lines))
    write_json(path.parent / MARKER, {**marker, "sha256": sha256_file(path)})
    return path


def base_path(file_path: Path, variant: BaseVariant = "plain") -> Path:
    """Return where the base of this variant lies, or will lie."""
    return file_path / "models" / BASE_NAMES[variant]


def base_is_built(file_path: Path, variant: BaseVariant = "plain") -> bool:
    """Return whether a whole base of this version is installed."""
    folder = base_path(file_path, variant)
    return _read_marker(folder) == _base_marker(variant) and all(
        (folder / name).is_file() for name in _MODEL_FILES
    )


def base_job_spec(
    out_dir: Path, deadline_unix: float, variant: BaseVariant = "plain", *, max_steps: int | None = None
) -> JobSpec:
    """Write the job's input files into `out_dir` and return the job that trains the base there.

    The attempt id is made of the folder's name: use a new folder for a new try. About 40 s on two
    free cores for `plain`, twice that for `learned`. `max_steps` cuts it short, for tests.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    requests = [item.request for item in router_items(N_ITEMS, SEED)] if variant == "learned" else []
    texts = base_corpus(variant, dataset_requests=requests)
    write_atomic(out_dir / CORPUS_FILE, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    write_json(out_dir / "spec.json", pretrain_spec(variant, max_steps=max_steps))
    return JobSpec(
        attempt_id=f"demo-base-{variant}-{out_dir.name}",
        kind="pretrain",
        argv=("python", "-m", "rdagent_ft.training.pretrain_job", "--spec", "spec.json"),
        out_dir=out_dir,
        deadline_unix=deadline_unix,
    )


def install_base(out_dir: Path, file_path: Path, variant: BaseVariant = "plain") -> Path:
    """Put the base that a job left in `out_dir/model` in its place and return the folder.

    The folder appears whole or not at all; an older one is replaced. Raises `JobError` when a file is
    missing, not a regular file or far too large.
    """
    target = base_path(file_path, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for name in _MODEL_FILES:
            copy_file_inside(out_dir, f"model/{name}", staging / name, max_bytes=_MAX_MODEL_FILE_BYTES)
        write_json(staging / MARKER, _base_marker(variant))
        staging.chmod(0o755)
        old = staging.with_name(f"{staging.name}.old")
        if target.exists():
            target.rename(old)
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _base_marker(variant: BaseVariant) -> dict[str, Any]:
    return {"version": BASE_VERSION, "variant": variant}


def _read_marker(folder: Path) -> Any:
    """Return what the marker says, None when there is none or it cannot be read."""
    path = folder / MARKER
    try:
        if path.stat().st_size > _MAX_MARKER_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def base_identity(variant: BaseVariant) -> str:
    """Return canonical JSON of all that decides the trained base, for the test that holds its version."""
    requests = [item.request for item in router_items(N_ITEMS, SEED)] if variant == "learned" else []
    return canonical_json([pretrain_spec(variant), base_corpus(variant, dataset_requests=requests)])
