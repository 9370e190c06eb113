"""The files that lm-evaluation-harness leaves (`--log_samples --output_path`), found and checked.

A folder may hold several runs at any depth; each `…_<time>.json` belongs with the
`samples_<task>_<time>.jsonl` beside it. Reading the answers: `lm_eval_samples`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

from rdagent_ft.errors import JobError, StateError, UserError
from rdagent_ft.execution.outputs import clean_text, read_json_file

MAX_RESULTS_BYTES = 128 << 20
MAX_DEPTH, MAX_ENTRIES = 8, 50_000
_STAMP = re.compile(r"^(?P<name>.*)_(?P<stamp>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?)\.json$")


class HarnessRun(NamedTuple):
    """One results file, parsed as far as it is used here.

    Attributes:
        root, name: the folder that was named, and the results file inside it.
        stamp: time of the run as in the file names.
        results: task or group -> measure -> value.
        configs: task -> its configuration.
        n_docs: task -> documents that were asked; the leaf tasks are its keys.
        groups: group -> members, which may be groups themselves.
        higher_is_better: task -> metric -> bool.
        label: the model's name.
        template_sha: hash of the chat template, or None.
    """

    root: Path
    name: str
    stamp: str
    results: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    n_docs: dict[str, int]
    groups: dict[str, list[str]]
    higher_is_better: dict[str, dict[str, Any]]
    label: str
    template_sha: str | None

    def samples_name(self, task: str) -> str:
        """Return the path of a task's answers, relative to `root`."""
        folder = Path(self.name).parent
        return (folder / f"samples_{task}_{self.stamp}.jsonl").as_posix()


def find_results(root: Path) -> list[str]:
    """Return the results files below a folder, as relative paths in order; links are not followed.

    Raises `UserError` when the folder holds too much to be a result.
    """
    found: list[str] = []
    n_entries = 0
    for folder, folders, files in os.walk(root):
        relative = Path(folder).relative_to(root)
        n_entries += len(files) + len(folders)
        if n_entries > MAX_ENTRIES:
            raise UserError(
                f"{root} holds more than {MAX_ENTRIES} files", hint="name the folder of one evaluation"
            )
        if len(relative.parts) >= MAX_DEPTH:
            folders.clear()
        folders.sort()
        found += [(relative / name).as_posix() for name in sorted(files) if _is_results(name, files)]
    return found


def read_runs(root: Path, names: list[str]) -> list[HarnessRun]:
    """Return the parsed results files. Raises `UserError` when two of them score the same task."""
    runs = [_read(root, name) for name in names]
    first: dict[str, str] = {}
    for run in runs:
        for task in run.n_docs:
            if task in first:
                raise UserError(
                    f"{root} holds two runs of {clean_text(task)}: {first[task]} and {run.name}",
                    hint="name the one results file, or the folder of one run",
                )
            first[task] = run.name
    if len({run.label for run in runs}) > 1:
        shown = ", ".join(sorted({run.label for run in runs})[:5])
        raise UserError(f"{root} holds runs of several models: {shown}", hint="name the folder of one model")
    return runs


def _is_results(name: str, files: list[str]) -> bool:
    match = _STAMP.match(name)
    if match is None or name.startswith("."):
        return False
    if match["name"] == "results":
        return True
    ending = f"_{match['stamp']}.jsonl"
    return any(other.startswith("samples_") and other.endswith(ending) for other in files)


def _read(root: Path, name: str) -> HarnessRun:
    place = root / name
    try:
        document = read_json_file(root, name, MAX_RESULTS_BYTES)
    except JobError as error:
        raise StateError(f"in {root}: {error.message}") from None
    match = _STAMP.match(Path(name).name)
    if match is None:
        raise UserError(f"{place} is not named as lm-eval names its results: results_<time>.json")
    counts = _objects(document, "n-samples", place)
    n_docs: dict[str, int] = {}
    for task, count in counts.items():
        effective = count.get("effective")
        if isinstance(effective, bool) or not isinstance(effective, int) or effective < 0 or "/" in task:
            raise StateError(f"{place}: `n-samples` of {clean_text(task)[:80]!r} is no count")
        n_docs[task] = effective
    if not n_docs:
        raise StateError(f"{place} names no task with documents")
    groups = document.get("group_subtasks")
    return HarnessRun(
        root=root,
        name=name,
        stamp=match["stamp"],
        results=_objects(document, "results", place),
        configs=_objects(document, "configs", place),
        n_docs=n_docs,
        groups=_groups(groups),
        higher_is_better=_objects(document, "higher_is_better", place),
        label=_label(document),
        template_sha=_text(document.get("chat_template_sha")),
    )


def _objects(document: dict[str, Any], key: str, place: Path) -> dict[str, dict[str, Any]]:
    """Return an object of objects; what is absent is empty, except the results themselves."""
    value = document.get(key)
    if value is None and key not in {"results", "n-samples"}:
        return {}
    if not isinstance(value, dict):
        raise StateError(f"{place}: `{key}` is no object: this is no results file of lm-eval")
    parsed = cast(dict[str, Any], value)
    for name, inner in parsed.items():
        if not isinstance(inner, dict):
            raise StateError(f"{place}: `{key}.{clean_text(name)[:80]}` is no object")
    return cast(dict[str, dict[str, Any]], parsed)


def _groups(value: Any) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    if isinstance(value, dict):
        for group, members in cast(dict[str, Any], value).items():
            if isinstance(members, list):
                groups[group] = [name for name in cast(list[Any], members) if isinstance(name, str)]
    return groups


def _label(document: dict[str, Any]) -> str:
    name = _text(document.get("model_name"))
    if name is None:
        config: Any = document.get("config")
        name = _text(cast(dict[str, Any], config).get("model")) if isinstance(config, dict) else None
    return name or "lm-eval"


def _text(value: Any) -> str | None:
    return clean_text(value)[:200] if isinstance(value, str) and value.strip() else None
