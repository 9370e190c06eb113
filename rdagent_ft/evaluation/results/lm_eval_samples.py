"""One `samples_<task>_<time>.jsonl` of lm-eval: one row a document and filter, checked and reduced.

Texts are dropped. A document is known by its hash, never by its place: `--limit` and `--samples`
give other places. Equal documents of one task are told apart by their order.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn, cast

from rdagent_ft.errors import JobError, StateError
from rdagent_ft.evaluation.results.sample_sheet import MAX_FILE_BYTES, MAX_LINE_BYTES, MAX_LINES, shown
from rdagent_ft.execution.outputs import clean_text, iter_json_lines

Measured = dict[str, tuple[float, float]]
"""Document key -> (numerator, denominator); a plain score has denominator 1."""

Key = tuple[str, str]
"""(metric, filter)."""


class TaskSamples:
    """What one file holds.

    Attributes:
        docs: document key -> (document hash, prompt hash), in order of appearance.
        scores: (metric, filter) -> measured documents.
        unusable: (metric, filter) -> why its values are no scores.
    """

    def __init__(self) -> None:
        self.docs: dict[str, tuple[str, str | None]] = {}
        self.scores: dict[Key, Measured] = {}
        self.unusable: dict[Key, str] = {}


class _Filter:
    """Documents of one filter so far."""

    def __init__(self) -> None:
        self.lines: dict[int, int] = {}
        self.n_equal: dict[str, int] = {}


def read_task_samples(root: Path, name: str, n_docs: int) -> TaskSamples:
    """Return a task's measured documents.

    Raises `StateError` naming file and line for a damaged row, a doubled document, NaN, a score of
    another type, filters with different documents, or a count other than `n_docs`.
    """
    samples, filters = TaskSamples(), dict[str, _Filter]()
    try:
        lines = iter_json_lines(root, name, MAX_FILE_BYTES, MAX_LINES, max_line_bytes=MAX_LINE_BYTES)
        for number, row in lines:
            _add(samples, filters, row, number, f"{root / name}:{number}")
    except JobError as error:
        raise StateError(f"in {root}: {error.message}", hint="run lm-eval with --log_samples") from None
    for filter_name, found in filters.items():
        if len(found.lines) != n_docs:
            raise StateError(
                f"{root / name} holds {len(found.lines)} documents of filter {filter_name!r}, "
                f"the results file says {n_docs}: it is cut, or of another run"
            )
    if len(samples.docs) != n_docs:
        raise StateError(f"{root / name}: its filters have different documents, {len(samples.docs)} in all")
    return samples


def _add(
    samples: TaskSamples, filters: dict[str, _Filter], row: dict[str, Any], number: int, place: str
) -> None:
    filter_name = _text(row, "filter", place)
    found = filters.setdefault(filter_name, _Filter())
    doc_id = row.get("doc_id")
    if isinstance(doc_id, bool) or not isinstance(doc_id, int):
        _refuse(place, f"`doc_id` is {shown(doc_id)}, a number was expected")
    if doc_id in found.lines:
        _refuse(
            place, f"document {doc_id} with filter {filter_name!r} stands in line {found.lines[doc_id]} too"
        )
    found.lines[doc_id] = number
    doc_hash = _text(row, "doc_hash", place)
    n_equal = found.n_equal[doc_hash] = found.n_equal.get(doc_hash, 0) + 1
    key = doc_hash if n_equal == 1 else f"{doc_hash}#{n_equal}"
    prompt_hash = _text(row, "prompt_hash", place) if row.get("prompt_hash") is not None else None
    if samples.docs.setdefault(key, (doc_hash, prompt_hash)) != (doc_hash, prompt_hash):
        _refuse(place, "the same document has another prompt under another filter")
    metrics = row.get("metrics")
    if not isinstance(metrics, list):
        _refuse(place, f"`metrics` is {shown(metrics)}, a list was expected")
    for metric in cast(list[Any], metrics):
        if not isinstance(metric, str) or metric not in row:
            _refuse(place, f"metric {shown(metric)} has no value")
        _measure(samples, (clean_text(metric), filter_name), key, row[metric], place)


def _measure(samples: TaskSamples, measure: Key, key: str, value: Any, place: str) -> None:
    measured = samples.scores.setdefault(measure, {})
    if isinstance(value, list):
        values = [_number(one, place, measure[0]) for one in cast(list[Any], value)]
        found = None if None in values else [one for one in values if one is not None]
        if not found or not set(found) <= {0.0, 1.0}:
            samples.unusable.setdefault(measure, "its values are lists, and not of right and wrong")
            return
        measured[key] = (math.fsum(found), float(len(found)))
        return
    number = _number(value, place, measure[0])
    if number is None:
        samples.unusable.setdefault(measure, f"{shown(value)} is no number")
    else:
        measured[key] = (number, 1.0)


def _number(value: Any, place: str, metric: str) -> float | None:
    """Return a score as a float, None for what is no number. NaN and infinity are damage."""
    if isinstance(value, str):
        # numpy scalars are written as text by the harness.
        value = {"True": 1.0, "False": 0.0}.get(value, value)
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, (bool, int, float)):
        return None
    if not -1e300 < value < 1e300:
        _refuse(place, f"`{clean_text(metric)}` is {shown(value)}: no usable number")
    return float(value)


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        _refuse(place, f"`{key}` is {shown(value)}, a short text was expected")
    return value


def _refuse(place: str, what: str) -> NoReturn:
    raise StateError(f"{place}: {what}")
