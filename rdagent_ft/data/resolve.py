"""Find the dataset that a person named, and pin it: local path, name under FT_FILE_PATH, hub id.

A name is tested as a path before it is taken for a hub id, so that a local folder never becomes a
confusing "repository not found". Does not look inside the files: `read.py` does.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
from pathlib import Path
from typing import Any, cast

from rdagent_ft.data.data_files import (
    DATA_SUFFIXES,
    ChosenFiles,
    choose_train_files,
    content_revision,
    dataset_names,
    folder_files,
    is_data_file,
    is_held_out,
    local_path,
    path_exists,
    pin_files,
)
from rdagent_ft.data.hub import MANIFEST, HubName, HubRepo, describe_repo, download_files, parse_hub_name
from rdagent_ft.data.rows import DatasetSource, FileRef
from rdagent_ft.errors import DataError, UserError

_MAX_MANIFEST_BYTES = 16 << 20


def resolve_dataset(name: str, file_path: Path) -> DatasetSource:
    """Return the pinned dataset that `name` means.

    Args:
        name: a file or folder, a name under `file_path/datasets`, or `org/name[@revision][:subset]`.
        file_path: root of `datasets/` (FT_FILE_PATH); a hub dataset is downloaded into it once.

    Raises `UserError` for an unknown name (near names in the hint), an unreachable hub or a subset
    that must be chosen, and `DataError` for an empty or changed file.
    """
    root = file_path / "datasets"
    local = local_path(name)
    if name.strip() and path_exists(local):
        return _pin(name, local, registered=False)
    for registered in _registered_paths(name, root):
        if path_exists(registered):
            return _pin(name, registered, registered=True)
    hub_name = None if _looks_like_path(name) else parse_hub_name(name)
    if hub_name is None:
        raise UserError(
            f"dataset {name!r} is not a file, a folder or a known name", hint=_suggest(name, root)
        )
    try:
        return _from_hub(name, hub_name, root)
    except UserError as error:
        if error.problems or error.hint is None:
            raise
        near = _near_names(name, root)
        hint = error.hint + (f"; did you mean {', '.join(near)}?" if near else "")
        raise type(error)(error.message, hint=hint) from None


def _pin(name: str, path: Path, *, registered: bool) -> DatasetSource:
    """Return the source for an existing file or folder."""
    if path.is_file():
        if not is_data_file(path.name):
            raise UserError(
                f"{str(path)!r} is not a data file",
                hint=f"known endings are {', '.join(DATA_SUFFIXES)}",
            )
        files = pin_files([path])
        kind = "registered" if registered else "local"
        return DatasetSource(name=name, kind=kind, revision=content_revision(files), files=files)
    chosen = choose_train_files(folder_files(path), f"dataset folder {str(path)!r}")
    files = pin_files([path / item for item in chosen.paths])
    manifest = _read_manifest(path)
    if manifest is not None:
        _check_unchanged(path, files, manifest)
        revision = str(manifest["revision"])
        return DatasetSource(name=name, kind="hub", revision=revision, files=files, notes=chosen.notes)
    return DatasetSource(
        name=name,
        kind="registered" if registered else "local",
        revision=content_revision(files),
        files=files,
        notes=chosen.notes,
    )


def _from_hub(name: str, hub_name: HubName, root: Path) -> DatasetSource:
    repo = describe_repo(hub_name, "dataset")
    chosen = choose_hub_files(repo, hub_name.subset)
    target = root / hub_name.folder
    download_files(repo, list(chosen.paths), target)
    source = _pin(name, target, registered=True)
    return source.model_copy(update={"notes": (*chosen.notes, *source.notes)})


def choose_hub_files(repo: HubRepo, subset: str | None) -> ChosenFiles:
    """Return the training files of a hub dataset, by its card's `configs` or by file names.

    Raises `UserError` that lists the subsets when one must be named, or when `subset` is unknown.
    """
    where = f"hub dataset {repo.repo_id!r}"
    configs = _card_configs(repo.card)
    if not configs:
        if subset is not None:
            inside = [path for path in repo.files if path.split("/")[0] == subset and is_data_file(path)]
            if not inside:
                raise UserError(f"{where} has no subset {subset!r}: it has no subsets")
            return choose_train_files(inside, f"subset {subset!r} of {where}")
        return choose_train_files(repo.files, where)
    if subset is None and len(configs) > 1:
        raise UserError(
            f"{where} has several subsets: {', '.join(configs)}",
            hint=f"name one, e.g. --dataset {repo.repo_id}:{next(iter(configs))}",
        )
    chosen = next(iter(configs)) if subset is None else subset
    if chosen not in configs:
        raise UserError(f"{where} has no subset {chosen!r}", hint=f"its subsets are {', '.join(configs)}")
    return _config_files(repo, configs[chosen], f"subset {chosen!r} of {where}")


def _card_configs(card: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return subset -> [(split, file pattern)] from a dataset card's `configs`."""
    found: dict[str, list[tuple[str, str]]] = {}
    for config in _dicts(card.get("configs")):
        patterns: list[tuple[str, str]] = []
        declared = config.get("data_files")
        if isinstance(declared, str):
            patterns.append(("", declared))
        elif isinstance(declared, list):
            patterns += [("", item) for item in cast("list[Any]", declared) if isinstance(item, str)]
            for item in _dicts(cast("list[Any]", declared)):
                paths = item.get("path")
                listed = [paths] if isinstance(paths, str) else cast("list[Any]", paths or [])
                patterns += [(str(item.get("split", "")), str(path)) for path in listed]
        if isinstance(config.get("data_dir"), str):
            patterns.append(("", f"{config['data_dir'].rstrip('/')}/*"))
        found[str(config.get("config_name", "default"))] = patterns
    return found


def _config_files(repo: HubRepo, patterns: list[tuple[str, str]], where: str) -> ChosenFiles:
    """Return the files of one subset; a subset without patterns means all files of the repository."""
    if not patterns:
        return choose_train_files(repo.files, where)
    held_out = {split for split, _ in patterns if split and is_held_out(split)}
    wanted = [pattern for split, pattern in patterns if split not in held_out]
    matched = {path for path in repo.files for pattern in wanted if fnmatch.fnmatchcase(path, pattern)}
    if not matched:
        raise UserError(
            f"{where} has no training files: its splits are {', '.join(sorted(held_out)) or 'none'}"
        )
    chosen = choose_train_files(matched, where)
    notes = (f"left out splits of the dataset: {', '.join(sorted(held_out))}",) if held_out else ()
    return ChosenFiles(chosen.paths, (*notes, *chosen.notes))


def _registered_paths(name: str, root: Path) -> list[Path]:
    """Return where `name` may lie under `root`; never outside of it."""
    hub_name = parse_hub_name(name)
    relative = [name, *(name + suffix for suffix in DATA_SUFFIXES)]
    if hub_name is not None:
        relative.append(hub_name.folder)
        if hub_name.subset:
            relative.append(f"{hub_name.repo_id}/{hub_name.subset}")
    safe = [item for item in relative if item.strip() and ".." not in Path(item).parts]
    return [root / item for item in safe if not Path(item).is_absolute()]


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest that a download left, or None where the folder was filled by a person."""
    path = folder / MANIFEST
    if not path.is_file() or path.stat().st_size > _MAX_MANIFEST_BYTES:
        return None
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        return None
    known = isinstance(manifest, dict) and {"revision", "files", "repo_id"} <= manifest.keys()
    return cast("dict[str, Any]", manifest) if known else None


def _check_unchanged(folder: Path, files: tuple[FileRef, ...], manifest: dict[str, Any]) -> None:
    """Raise `DataError` when a downloaded file no longer is what the commit held."""
    for ref in files:
        relative = Path(ref.path).relative_to(folder.absolute()).as_posix()
        if manifest["files"].get(relative) != ref.sha256:
            raise DataError(
                f"{ref.path!r} differs from commit {manifest['revision']} of {manifest['repo_id']!r}",
                hint=f"delete {str(folder)!r} to download it again, or move your own data to another name",
            )


def _suggest(name: str, root: Path) -> str:
    near = _near_names(name, root)
    if near:
        return f"did you mean {', '.join(near)}?"
    known = list(dataset_names(root))[:8]
    forms = (
        "give a json, jsonl, csv (.gz too) or parquet file, a folder of them, or a hub id org/name[:subset]"
    )
    return forms + (f"; under {str(root)!r} there are {', '.join(known)}" if known else "")


def _near_names(name: str, root: Path) -> list[str]:
    """Return up to three names that were perhaps meant: known datasets, then files beside the path."""
    known = list(dataset_names(root))
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    by_last = {item.rpartition("/")[2]: item for item in known}
    last = name.rpartition("/")[2]
    found += [by_last[item] for item in difflib.get_close_matches(last, list(by_last), n=3, cutoff=0.6)]
    folder = local_path(name).parent
    if path_exists(folder) and folder.is_dir():
        beside = {item.name: str(folder / item.name) for item in _listing(folder) if _may_hold_data(item)}
        near = difflib.get_close_matches(Path(name).name, list(beside), n=3, cutoff=0.6)
        found += [beside[item] for item in near]
    return list(dict.fromkeys(found))[:3]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:2000]
    except OSError:
        return []


def _may_hold_data(path: Path) -> bool:
    return is_data_file(path.name) or (path.is_dir() and not path.name.startswith("."))


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.lower().endswith(DATA_SUFFIXES) or "\\" in name


def _dicts(value: Any) -> list[dict[str, Any]]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
