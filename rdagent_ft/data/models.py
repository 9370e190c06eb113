"""Find the base model that a person named, or choose one that fits the machine and say why.

Order: local directory, FT_FILE_PATH/models, hub. Without a name, models that are already here come
first, then the list in `knowledge/models.yaml`. Nothing is loaded into memory.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field

from rdagent_ft.data.data_files import local_path, path_exists
from rdagent_ft.data.hub import HubName, describe_repo, download_files, parse_hub_name
from rdagent_ft.data.model_folder import is_model_folder, read_model_folder, weight_files
from rdagent_ft.data.rows import ModelSource
from rdagent_ft.data.safetensors_header import count_weights
from rdagent_ft.errors import PreflightError, UserError
from rdagent_ft.values import Frozen

Device = Literal["cpu", "cuda"]
_WANTED_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "LICENSE",
    }
)


GENERATED = "demo/"
"""Models that the demo generated: they can be named, but are never chosen for a person's data."""


class ListedModel(Frozen):
    """One entry of `knowledge/models.yaml`; memory is for LoRA SFT, in GiB, None where it is no use."""

    id: str
    params_b: float = Field(gt=0)
    licence: str
    gpu_gib: float
    cpu_gib: float | None


class MemoryLine(Frozen):
    """Memory by size for a model that is not listed: `gib_per_b` x billions of weights + `base_gib`."""

    gib_per_b: float
    base_gib: float


class ModelList(Frozen):
    """The content of `knowledge/models.yaml`."""

    schema_version: Literal[1]
    estimate: dict[Literal["gpu", "cpu"], MemoryLine]
    cpu_max_params_b: float
    models: tuple[ListedModel, ...]


class _Local(NamedTuple):
    """A model under FT_FILE_PATH/models that could be trained here."""

    name: str
    path: Path
    params_b: float


def resolve_model(
    name: str | None,
    file_path: Path,
    *,
    memory_gib: float,
    device: Device,
    gpu_memory_gib: float | None,
) -> ModelSource:
    """Return the pinned base model.

    Args:
        name: a directory with config.json, a name under `file_path/models`, `org/name[@revision]`, or
            None to choose.
        file_path: root of `models/` (FT_FILE_PATH); a hub model is downloaded into it once.
        memory_gib: main memory of the machine.
        device: where training runs.
        gpu_memory_gib: memory of the largest GPU, None without one.

    Raises `UserError` for an unknown, damaged or pickled model and `PreflightError` when none fits.
    """
    root = file_path / "models"
    if name is not None:
        return _named(name, root)
    have_gib = memory_gib if device == "cpu" or gpu_memory_gib is None else gpu_memory_gib
    return _choose(root, have_gib, device)


def local_model(name: str, file_path: Path) -> Path | None:
    """Return the folder of the model called `name` under `file_path/models`; None when there is none.

    Only names inside that folder are found, whatever `name` spells.
    """
    root = file_path / "models"
    parts = Path(name).parts
    if not name.strip() or Path(name).is_absolute() or ".." in parts or any(p.startswith(".") for p in parts):
        return None
    folder = root / name
    return folder if path_exists(folder) and is_model_folder(folder) else None


@cache
def listed_models() -> ModelList:
    """Return the models that the program may choose by itself."""
    path = Path(__file__).resolve().parent.parent / "knowledge" / "models.yaml"
    return ModelList.model_validate(yaml.safe_load(path.read_text("utf-8")))


def _named(name: str, root: Path, choice_reason: str | None = None) -> ModelSource:
    local = local_path(name)
    if name.strip() and (path_exists(local) and local.is_dir()):
        if is_model_folder(local):
            return read_model_folder(name, local, choice_reason)
        if (local / "adapter_config.json").is_file():
            raise UserError(f"{name!r} is an adapter, not a base model", hint="merge it into its base first")
        raise UserError(f"model directory {name!r} has no config.json", hint=_suggest(name, root))
    hub_name = parse_hub_name(name)
    for folder in (name, hub_name.folder if hub_name else name):
        registered = root / folder
        inside = folder.strip() and ".." not in Path(folder).parts and not Path(folder).is_absolute()
        if inside and path_exists(registered) and is_model_folder(registered):
            return read_model_folder(name, registered, choice_reason)
    if hub_name is None or hub_name.subset is not None or name.startswith((".", "/", "~")):
        raise UserError(f"model {name!r} is not a directory or a hub id", hint=_suggest(name, root))
    try:
        path = _download(hub_name, root)
    except UserError as error:
        raise UserError(
            error.message, hint="; ".join(filter(None, (error.hint, _suggest(name, root))))
        ) from None
    return read_model_folder(name, path, choice_reason)


def _download(name: HubName, root: Path) -> Path:
    """Fetch config, tokenizer and safetensors of a hub model; nothing else, above all no pickle."""
    repo = describe_repo(name, "model")
    top = [path for path in repo.files if "/" not in path]
    weights = [path for path in top if path.endswith(".safetensors")]
    named = [path for path in weights if path.startswith("model")]
    wanted = [path for path in top if path in _WANTED_FILES]
    if "config.json" not in wanted:
        raise UserError(f"hub model {name.repo_id!r} has no config.json: it is not a transformers model")
    if not weights:
        raise UserError(
            f"hub model {name.repo_id!r} has no safetensors weights, and pickled ones would run code",
            hint="choose a model with safetensors",
        )
    target = root / name.folder
    download_files(repo, wanted + (named or weights), target)
    return target


def _choose(root: Path, have_gib: float, device: Device) -> ModelSource:
    """Return the largest model that fits: one that is here already, else one from the list."""
    known = listed_models()
    place = f"{have_gib:.0f} GiB of {'GPU' if device == 'cuda' else 'main'} memory"
    here = [
        item
        for item in _local_models(root)
        if not item.name.startswith(GENERATED) and _needed_gib(item.name, item.params_b, device) <= have_gib
    ]
    if here:
        best = max(here, key=lambda item: (item.params_b, item.name))
        need = _needed_gib(best.name, best.params_b, device)
        reason = (
            f"chosen because it is the largest model under {str(root)!r} that fits {place} "
            f"({best.params_b:.3g} B weights need about {need:.0f} GiB)"
        )
        return read_model_folder(best.name, best.path, reason)
    fitting = [item for item in known.models if _needed_gib(item.id, item.params_b, device) <= have_gib]
    if not fitting:
        raise PreflightError(
            f"no listed model can be trained with {place}",
            hint="name a smaller one with --model DIRECTORY",
        )
    best_listed = max(fitting, key=lambda item: item.params_b)
    need = _needed_gib(best_listed.id, best_listed.params_b, device)
    slow = "; larger ones are too slow without a GPU" if device == "cpu" else ""
    reason = (
        f"chosen because it is the largest listed model that fits {place} "
        f"({best_listed.params_b:g} B weights need about {need:.0f} GiB, licence {best_listed.licence}){slow}"
    )
    try:
        return _named(best_listed.id, root, reason)
    except UserError as error:
        raise UserError(
            f"no model was named, and the one that fits this machine cannot be had: {error.message}",
            hint="name a local one with --model DIRECTORY, or put one under FT_FILE_PATH/models",
        ) from None


def _needed_gib(name: str, params_b: float, device: Device) -> float:
    """Return the memory that LoRA training of the model takes; infinite where it makes no sense."""
    known = listed_models()
    listed = next((item for item in known.models if item.id == name), None)
    if listed is not None:
        needed = listed.gpu_gib if device == "cuda" else listed.cpu_gib
        return float("inf") if needed is None else needed
    if device == "cpu" and params_b > known.cpu_max_params_b:
        return float("inf")
    line = known.estimate["gpu" if device == "cuda" else "cpu"]
    return line.gib_per_b * params_b + line.base_gib


def _local_models(root: Path) -> Iterator[_Local]:
    """Yield the models under `root` whose weights are whole; `name` or `org/name`."""
    for name in _model_names(root):
        path = root / name
        try:
            yield _Local(name, path, count_weights(weight_files(path)) / 1e9)
        except UserError:
            continue  # damaged or pickled: it can be named, and then says what is wrong


def _model_names(root: Path) -> list[str]:
    folders = [item for item in [*root.glob("*"), *root.glob("*/*")] if is_model_folder(item)]
    names = (item.relative_to(root).as_posix() for item in folders)
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _suggest(name: str, root: Path) -> str:
    """Return near names among the models that are here and the listed ones."""
    known = [*_model_names(root), *(item.id for item in listed_models().models)]
    by_last = {item.rpartition("/")[2].lower(): item for item in known}
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    last = name.rstrip("/").rpartition("/")[2].lower()
    near += [by_last[item] for item in difflib.get_close_matches(last, list(by_last), n=3, cutoff=0.6)]
    if near:
        return f"did you mean {', '.join(list(dict.fromkeys(near))[:3])}?"
    return "give a directory with config.json and safetensors, or a hub id org/name"
