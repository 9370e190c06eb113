"""Trained models on this machine that `rdagent-ft benchmark` can offer: of our runs, and `./outputs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_json_file

_RUN_FOLDERS = ("export/merged", "export/adapter")
_OUTPUT_FOLDERS = ("merged_16bit", "merged_4bit", "merged", "lora", "adapter", "")
_MOST = 200


class LocalModel(NamedTuple):
    """A folder with a model or an adapter, and the base it names, where it names one."""

    path: Path
    kind: Literal["model", "adapter"]
    base: Path | None


def find_models(file_path: Path, folder: Path) -> list[LocalModel]:
    """Return trained models, newest first: FT_FILE_PATH/output/*/export and `folder`/outputs/*."""
    places: list[Path] = []
    for run in _folders(file_path / "output"):
        places += [run / inside for inside in _RUN_FOLDERS]
    for model in _folders(folder / "outputs"):
        places += [model / inside if inside else model for inside in _OUTPUT_FOLDERS]
    found = [model for place in places if (model := describe_model(place)) is not None]
    found.sort(key=lambda model: model.path.stat().st_mtime, reverse=True)
    return found[:_MOST]


def describe_model(path: Path) -> LocalModel | None:
    """Return what a folder holds, None when it holds neither a model nor an adapter."""
    if (path / "adapter_config.json").is_file():
        named = _base_of(path)
        return LocalModel(path, "adapter", named)
    if (path / "config.json").is_file():
        return LocalModel(path, "model", None)
    return None


def _base_of(adapter: Path) -> Path | None:
    """Return the local folder that an adapter's configuration names as its base."""
    try:
        config: dict[str, Any] = read_json_file(adapter, "adapter_config.json")
    except JobError:
        return None
    named = cast(object, config.get("base_model_name_or_path"))
    if not isinstance(named, str) or not named or "\0" in named or len(named) > 4096:
        return None
    for path in (Path(named), adapter / named):
        if (path / "config.json").is_file():
            return path
    return None


def _folders(path: Path) -> list[Path]:
    return sorted(inner for inner in path.iterdir() if inner.is_dir()) if path.is_dir() else []
