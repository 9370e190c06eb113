"""`benchmarks/benchmark.json` and `comparison.json` of a model: its base and its latest tuned result.

Made from what is there; nothing is scored again. Folders that lm-eval filled by itself are read too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.results.compare import compare_results
from rdagent_ft.evaluation.results.comparison import ComparisonDocument
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.sheet import ModelResult, mean_score
from rdagent_ft.values import Frozen, write_json

BASE, TUNED = "base", "fine-tuned"
_TIME = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}")


class Summary(Frozen):
    """What was written.

    Attributes:
        folder: the benchmarks folder.
        tuned: the tuned result that was taken, relative to it.
        base: the base result, None without one.
        comparison: None without a base.
        document: the summary as JSON values.
    """

    folder: Path
    tuned: str
    base: str | None
    comparison: ComparisonDocument | None
    document: dict[str, Any]


def benchmarks_folder(path: Path) -> Path:
    """Return the benchmarks folder that a path means: itself, or `benchmarks` in a model's folder."""
    for folder in (path, path / "benchmarks"):
        if (folder / TUNED).is_dir() or (folder / BASE).is_dir():
            return folder
    raise UserError(
        f"{str(path)!r} holds no results: no folder {TUNED}/ or {BASE}/ in it or in its benchmarks/",
        hint="score a model first: rdagent-ft benchmark MODEL",
    )


def latest_tuned(folder: Path) -> Path:
    """Return the newest `fine-tuned/<time>`. Raises `UserError` when there is none."""
    times = [path for path in (folder / TUNED).glob("*") if path.is_dir() and _TIME.match(path.name)]
    if not times:
        raise UserError(f"{folder / TUNED} holds no result: a folder named by its time is expected")
    return max(times, key=lambda path: path.name)


def summarise_folder(path: Path, *, target: str | None = None, margin: float | None = None) -> Summary:
    """Write the summary and, with a base, the comparison of a benchmarks folder; return both.

    Raises `UserError` when there is no tuned result or it cannot be compared, `StateError` for damage.
    """
    folder = benchmarks_folder(path)
    tuned_folder = latest_tuned(folder)
    tuned = read_result(tuned_folder)
    base = read_result(folder / BASE) if (folder / BASE).is_dir() else None
    comparison = None if base is None else compare_results(base, tuned, target=target, margin=margin)
    document: dict[str, Any] = {
        "schema_version": 1,
        "models": [
            *([] if base is None else [_model(base, "base", BASE)]),
            _model(tuned, "candidate", tuned_folder.relative_to(folder).as_posix()),
        ],
        "comparison": None if comparison is None else comparison.model_dump(mode="json"),
    }
    write_json(folder / "benchmark.json", document)
    if comparison is None:
        (folder / "comparison.json").unlink(missing_ok=True)
    else:
        write_json(folder / "comparison.json", document["comparison"])
    return Summary(
        folder=folder,
        tuned=document["models"][-1]["folder"],
        base=None if base is None else BASE,
        comparison=comparison,
        document=document,
    )


def _model(result: ModelResult, role: str, folder: str) -> dict[str, Any]:
    if result.document is not None:
        return {"folder": folder, **result.document.model_dump(mode="json")}
    return {
        "folder": folder,
        "status": "ok" if all(sheet.trouble is None for sheet in result.sheets.values()) else "partial",
        "model": {"role": role, "id": result.label},
        "benchmarks": {
            key: {
                "metric": sheet.metric,
                "filter": sheet.filter,
                "higher_is_better": sheet.higher_is_better,
                "n": len(sheet.items) - sheet.n_unscored,
                "n_expected": sheet.n_expected,
                "value": mean_score(sheet),
            }
            for key, sheet in result.sheets.items()
        },
        "warnings": list(result.notes),
    }
