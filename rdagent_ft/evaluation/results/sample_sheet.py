"""A sheet from a file of SampleRows, one line in memory at a time.

Validating 100,000 rows as full values and holding their texts takes seconds and hundreds of MB;
pairing needs five fields of each, which are checked here by hand, with file and line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from rdagent_ft.errors import JobError, StateError
from rdagent_ft.evaluation.results.document import Health
from rdagent_ft.evaluation.results.health import HealthCount
from rdagent_ft.evaluation.results.sheet import Item, Sheet
from rdagent_ft.execution.outputs import clean_text, iter_json_lines

MAX_FILE_BYTES = 1 << 30
MAX_LINE_BYTES = 16 << 20
MAX_LINES = 2_000_000
MAX_REPEATS = 10_000
MAX_NAME_CHARS = 200


class _Group:
    """The answers to one item so far."""

    __slots__ = ("cluster", "n_scored", "prompt_hash", "seen", "total")

    def __init__(self, cluster: str | None, prompt_hash: str) -> None:
        self.cluster, self.prompt_hash = cluster, prompt_hash
        self.total, self.n_scored, self.seen = 0.0, 0, 0


class _Reading:
    """What one file has shown so far; `add` takes a line."""

    def __init__(self, place: str, *, with_health: bool) -> None:
        self.place = place
        self.source: tuple[str, str] | None = None
        self.groups: dict[str, _Group] = {}
        self.measures: dict[str, dict[str, tuple[float, float]]] = {}
        self.health = HealthCount() if with_health else None

    def add(self, number: int, row: dict[str, Any]) -> None:
        place = f"{self.place}:{number}"
        source = (_name(row, "benchmark", place), _name(row, "split", place))
        if self.source is None:
            self.source = source
        elif self.source != source:
            _refuse(place, f"{' '.join(source)} in a file of {' '.join(self.source)}")
        item_id, prompt_hash = _name(row, "item_id", place), _name(row, "prompt_hash", place)
        cluster = None if row.get("cluster") is None else _name(row, "cluster", place)
        group = self.groups.setdefault(item_id, _Group(cluster, prompt_hash))
        if group.prompt_hash != prompt_hash or group.cluster != cluster:
            _refuse(place, f"item {item_id} has another prompt or cluster than before")
        bit = 1 << _repeat(row, place)
        if group.seen & bit:
            _refuse(place, f"item {item_id} has a second answer for repeat {row.get('repeat', 0)}")
        group.seen |= bit
        score = _score(row, place)
        if score is not None:
            group.total, group.n_scored = group.total + score, group.n_scored + 1
        if parts := row.get("parts"):
            self._add_parts(item_id, parts, place)
        if self.health is not None:
            self.health.add(row, place)

    def _add_parts(self, item_id: str, parts: Any, place: str) -> None:
        if not isinstance(parts, dict):
            _refuse(place, "`parts` is no object")
        for name, values in cast(dict[str, Any], parts).items():
            if not isinstance(values, list) or len(name) > MAX_NAME_CHARS:
                _refuse(place, "`parts` holds something else than lists of numbers")
            numbers = [number_of(value, place, f"parts.{name}") for value in cast(list[Any], values)]
            old = self.measures.setdefault(clean_text(name), {}).get(item_id, (0.0, 0.0))
            self.measures[clean_text(name)][item_id] = (old[0] + math.fsum(numbers), old[1] + len(numbers))


def sheet_of_samples(
    root: Path,
    name: str,
    *,
    metric: str = "score",
    filter_name: str | None = None,
    n_expected: int | None = None,
    higher_is_better: bool = True,
    protocol: str | None = None,
    health: Health | None = None,
) -> Sheet:
    """Return the sheet of `root/name`, a JSON lines file of SampleRows.

    Without `n_expected` the items in the file count as all; without `health` the rates are counted
    here, which reads every word. Raises `StateError` that names file and
    line for anything that is no answer: wrong types, NaN, scores outside 0..1, doubled answers.
    """
    reading = _Reading(str(root / name), with_health=health is None)
    try:
        lines = iter_json_lines(root, name, MAX_FILE_BYTES, MAX_LINES, max_line_bytes=MAX_LINE_BYTES)
        for number, row in lines:
            reading.add(number, row)
    except JobError as error:
        raise StateError(f"in {root}: {error.message}") from None
    if reading.source is None:
        raise StateError(f"{root / name} holds no answer")
    items = _items(reading.groups)
    benchmark, split = reading.source
    expected = len(items) if n_expected is None else n_expected
    return Sheet(
        benchmark=benchmark,
        split=split,
        metric=metric,
        filter=filter_name,
        items=items,
        n_expected=expected,
        higher_is_better=higher_is_better,
        measures=reading.measures,
        protocol=protocol,
        repeats=max(group.seen.bit_count() for group in reading.groups.values()),
        trouble=f"{len(items)} of {expected} items" if len(items) < expected else None,
        health=health if reading.health is None else reading.health.rates(),
    )


def number_of(value: Any, place: str, key: str) -> float:
    """Return a finite JSON number as a float. Raises `StateError` that names the place."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(place, f"`{key}` is {shown(value)}, a number was expected")
    if (isinstance(value, int) and abs(value) > 2**53) or not math.isfinite(value):
        _refuse(place, f"`{key}` is {shown(value)}: no usable number")
    return float(value)


def shown(value: Any) -> str:
    """Return a value of a file as short text that is safe to print."""
    return clean_text(repr(value)[:80])


def _items(groups: Mapping[str, _Group]) -> dict[str, Item]:
    return {
        item_id: Item(
            group.total / group.n_scored if group.n_scored else None, group.cluster, group.prompt_hash
        )
        for item_id, group in groups.items()
    }


def _refuse(place: str, what: str) -> NoReturn:
    raise StateError(f"{place}: {what}")


def _name(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS or not value.isprintable():
        _refuse(place, f"`{key}` is {shown(value)}, a short text was expected")
    return value


def _repeat(row: dict[str, Any], place: str) -> int:
    value = row.get("repeat", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_REPEATS:
        _refuse(place, f"`repeat` is {shown(value)}, a number from 0 was expected")
    return value


def _score(row: dict[str, Any], place: str) -> float | None:
    if "score" not in row:
        _refuse(place, "`score` is missing")
    value = row["score"]
    if value is None:
        return None
    score = number_of(value, place, "score")
    if not 0.0 <= score <= 1.0:
        _refuse(place, f"`score` is {score}, a share from 0 to 1 was expected")
    return score
