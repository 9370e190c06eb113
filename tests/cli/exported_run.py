"""A finished run with weights on disk: a journal of `make_run`, bound to folders that exist.

`bind_run` changes the records so that they name real files; `plain_weights` writes folders that no loader
needs to understand, for tests that only move files.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reporting"))
from make_run import make_run

from rdagent_ft.execution.weight_files import WeightFile, combined_sha256
from rdagent_ft.values import sha256_file

BEST = 6
"""The loop of `make_run` that is exported."""


def bind_run(folder: Path, base: Path, adapter: Path | None, merged: Path, **options: Any) -> Path:
    """Write a run whose export holds copies of the folders; return its directory."""
    run_dir = make_run(folder, kind="full" if adapter is None else "lora", **options)
    copies = [(merged, run_dir / "export" / "merged")]
    if adapter is not None:
        copies.append((adapter, run_dir / "export" / "adapter"))
    for source, target in copies:
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.is_file():
                (target / path.name).write_bytes(path.read_bytes())
    files = {path.name: sha256_file(path) for path in sorted((run_dir / "export/merged").iterdir())}
    trained = run_dir / ("export/merged" if adapter is None else "export/adapter")
    change(run_dir, BEST, "export", {"files": files})
    change(run_dir, BEST, "train", {"weights_sha256": weights_sha256(trained)})
    change_settings(run_dir, {"executor": "local"})
    prepare = read(run_dir, -1, "prepare")
    change(run_dir, -1, "prepare", {"model": {**prepare["model"], "path": str(base), "name": str(base)}})
    return run_dir


def weights_sha256(folder: Path) -> str:
    """Return the hash of a folder's weights as the train step records it."""
    weights = sorted(folder.glob("*.safetensors"))
    return combined_sha256(
        tuple(WeightFile(name=path.name, n_bytes=1, sha256=sha256_file(path)) for path in weights)
    )


def read(run_dir: Path, loop: int, step: str) -> dict[str, Any]:
    """Return the output of a step."""
    with sqlite3.connect(run_dir / "run.db") as database:
        found = database.execute("SELECT output FROM steps WHERE loop = ? AND step = ?", (loop, step))
        output = json.loads(found.fetchone()[0])
    database.close()
    return output


def change(run_dir: Path, loop: int, step: str, values: dict[str, Any]) -> None:
    """Change fields of a step's output."""
    output = json.dumps({**read(run_dir, loop, step), **values})
    with sqlite3.connect(run_dir / "run.db") as database:
        database.execute("UPDATE steps SET output = ? WHERE loop = ? AND step = ?", (output, loop, step))
    database.close()


def change_settings(run_dir: Path, values: dict[str, Any]) -> None:
    """Change stored settings."""
    with sqlite3.connect(run_dir / "run.db") as database:
        stored = json.loads(database.execute("SELECT value FROM run WHERE key = 'settings'").fetchone()[0])
        database.execute(
            "UPDATE run SET value = ? WHERE key = 'settings'", (json.dumps({**stored, **values}),)
        )
    database.close()


def plain_weights(folder: Path, base: Path, *, n_bytes: int = 64) -> tuple[Path, Path]:
    """Write an adapter and a merged folder with whole but meaningless safetensors files."""
    adapter, merged = folder / "adapter", folder / "merged"
    for place, name in ((adapter, "adapter_model.safetensors"), (merged, "model.safetensors")):
        place.mkdir(parents=True)
        entry = {"a": {"dtype": "I8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}}
        header = json.dumps(entry).encode()
        (place / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(n_bytes))
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "tokenizer_config.json").write_text(json.dumps({"name_or_path": str(base)}))
    (adapter / "README.md").write_text(f"fine-tuned version of [None](https://example.org) in {base}")
    (merged / "config.json").write_text(json.dumps({"_name_or_path": str(base), "hidden_size": 8}))
    return adapter, merged
