"""What a path that a user names holds: our result folder, a folder of lm-eval, or answers of a run."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.errors import JobError, StateError, UserError
from rdagent_ft.evaluation.results.document import benchmark_key
from rdagent_ft.evaluation.results.folder import DOCUMENT_NAME, MAX_DOCUMENT_BYTES, read_folder
from rdagent_ft.evaluation.results.lm_eval_files import find_results
from rdagent_ft.evaluation.results.lm_eval_sheets import read_lm_eval
from rdagent_ft.evaluation.results.sample_sheet import sheet_of_samples
from rdagent_ft.evaluation.results.sheet import ModelResult, Sheet
from rdagent_ft.execution.outputs import read_json_file

SAMPLES_NAME = "samples.jsonl"
_MOST_FOLDERS = 1_000
_ACCEPTED = (
    "name a result folder (benchmark.json), a folder of lm-eval (results_*.json with --log_samples), or "
    "the eval folder of a run (<benchmark>-<split>/samples.jsonl)"
)


def read_result(path: Path) -> ModelResult:
    """Return the scores at `path`: a folder of one of the three kinds, or the main file in one.

    Raises `UserError` when there is nothing to compare there, `StateError` when it is damaged.
    """
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise UserError(f"{str(path)!r} does not exist", hint=_ACCEPTED)
    if (path / DOCUMENT_NAME).exists():
        return _of_document(path)
    folders = _sample_folders(path)
    if folders:
        return _of_samples(path, folders)
    if (path / "eval").is_dir() and (folders := _sample_folders(path / "eval")):
        return _of_samples(path / "eval", folders)
    if find_results(path):
        return read_lm_eval(path)
    raise UserError(f"{str(path)!r} holds no result", hint=_ACCEPTED)


def _of_file(path: Path) -> ModelResult:
    if path.name == DOCUMENT_NAME:
        return _of_document(path.parent)
    if path.suffix == ".jsonl" and path.name == SAMPLES_NAME:
        return _of_samples(path.parent, [path.parent])
    if path.suffix == ".json":
        return read_lm_eval(path.parent, only=path.name)
    raise UserError(f"{str(path)!r} is no result", hint=_ACCEPTED)


def _of_document(folder: Path) -> ModelResult:
    try:
        value = read_json_file(folder, DOCUMENT_NAME, MAX_DOCUMENT_BYTES)
    except JobError as error:
        raise StateError(f"in {folder}: {error.message}") from None
    if "models" in value and "benchmarks" not in value:
        raise UserError(
            f"{folder / DOCUMENT_NAME} is a summary of several models",
            hint="name the folder of one of them, e.g. base/, fine-tuned/<time>/ or loops/003/eval/",
        )
    return read_folder(folder)


def _sample_folders(path: Path) -> list[Path]:
    if (path / SAMPLES_NAME).exists():
        return [path]
    found = sorted(inner.parent for inner in path.glob(f"*/{SAMPLES_NAME}"))
    if len(found) > _MOST_FOLDERS:
        raise UserError(
            f"{path} holds {len(found)} folders of answers", hint="name the eval folder of a loop"
        )
    return found


def _of_samples(root: Path, folders: list[Path]) -> ModelResult:
    sheets: dict[str, Sheet] = {}
    for folder in folders:
        sheet = sheet_of_samples(folder, SAMPLES_NAME)
        key = benchmark_key(sheet.benchmark, sheet.split)
        if key in sheets:
            raise UserError(f"{root} holds answers to {key} twice", hint="name the folder of one model")
        sheets[key] = sheet
    name = root.parent.name if root.name == "eval" else root.name
    return ModelResult(label=name or str(root), source=root, kind="samples", sheets=sheets)
