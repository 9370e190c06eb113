"""What `data tag` can find wrong before a row is sent, so that a person hears all of it at once.

Opens no connection and pays nothing. What is wrong with the rows themselves is found by `tagging.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from rdagent_ft.data.compressed import data_suffix, is_packed
from rdagent_ft.data.data_files import is_data_file, local_path, path_exists
from rdagent_ft.data.read import records_of
from rdagent_ft.data.rows import DatasetSource
from rdagent_ft.errors import PreflightError, Problem, RdagentFtError, UserError
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.teacher_endpoint import build_teacher, resolve_teacher_endpoint
from rdagent_ft.settings import Settings

Findings = list[tuple[str, RdagentFtError]]
"""What is wrong, each with the option or setting that it is about."""


def teacher_errors(settings: Settings, environ: Mapping[str, str]) -> list[PreflightError]:
    """Return everything that is missing for a teacher: model, key or address, price, package."""
    errors: list[PreflightError] = []
    if not (settings.teacher_model or "").strip():
        errors.append(PreflightError("no model is set that could tag rows", hint="set FT_TEACHER_MODEL"))
        # The rest can be judged for any model but the price.
        settings = settings.model_copy(update={"teacher_model": "unnamed", "llm_price_unknown": "ok"})
    try:
        resolve_teacher_endpoint(settings, environ)
    except PreflightError as error:
        errors.append(error)
        settings = settings.model_copy(update={"teacher_api_key": SecretStr("stands in")})
    try:
        build_teacher(settings, MemoryLedger(), lambda _: None, temperature=0.0, max_tokens=1)
    except PreflightError as error:
        if all(error.message != other.message for other in errors):
            errors.append(error)
    return errors


def check_out(out: Path, name: str, source: DatasetSource | None, file_path: Path) -> None:
    """Raise `UserError` unless `out` is a new file that can be written in the format of the dataset.

    Args:
        out: where the tagged rows go.
        name: the dataset as a person named it; a folder of that name must not take `out` in.
        source: the dataset that was found; None where it was not.
        file_path: root of `datasets/` (FT_FILE_PATH).
    """
    if out.is_symlink() or path_exists(out):
        raise UserError(f"--out {str(out)!r} exists already", hint="name a new file, or remove this one")
    if not is_data_file(out.name) or (is_packed(out) and data_suffix(out) == ".parquet"):
        raise UserError(
            f"--out {str(out)!r} is no name of a data file", hint="use the ending of the dataset's own file"
        )
    parent = next(folder for folder in out.absolute().parents if path_exists(folder))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--out {str(out)!r} cannot be written: {str(parent)!r} is no folder of yours")
    folders = [path for path in (local_path(name), file_path / "datasets" / name) if path_exists(path)]
    if any(folder.is_dir() and out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise UserError(
            f"--out {str(out)!r} lies in the dataset's folder, whose rows would then count twice",
            hint="write it to another folder",
        )
    if source is not None:
        _check_format(out, [Path(ref.path) for ref in source.files])


def _check_format(out: Path, files: Sequence[Path]) -> None:
    suffixes = sorted({data_suffix(path) for path in files})
    if len(suffixes) > 1:
        raise UserError(
            f"the dataset has files of several formats ({', '.join(suffixes)}), and one file is written",
            hint="tag one of them at a time",
        )
    if data_suffix(out) != suffixes[0]:
        raise UserError(
            f"--out {str(out)!r} would change the format: the dataset is {suffixes[0]}",
            hint=f"name it {out.name.split('.')[0]}{suffixes[0]}",
        )
    if suffixes == [".csv"] and len(files) > 1:
        firsts = [next(records_of(path), None) for path in files]
        if len({tuple(first.columns) for first in firsts if first is not None and first.columns}) > 1:
            raise UserError(
                "the dataset's CSV files have different columns, and one file is written",
                hint="tag one of them at a time",
            )


def raise_together(found: Findings) -> None:
    """Raise what was found: one error as it is, several as a list.

    Of several, a mistake in the command decides the exit code (2), else what is missing for a start (3).
    """
    if len(found) == 1:
        raise found[0][1]
    problems: list[Problem] = []
    for key, error in found:
        problems += error.problems or [
            Problem(key, None, error.message, "data.tag", error.hint or "change it, and start again")
        ]
    if problems:
        is_mistake = any(isinstance(error, UserError) for _, error in found)
        kind = UserError if is_mistake else PreflightError
        raise kind(f"nothing was sent: {len(problems)} problems", problems=tuple(problems))
