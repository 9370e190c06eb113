"""One benchmark of one model, reduced to what pairing needs: a score and a prompt hash an item.

Texts are left on disk: a sheet of 100,000 answers takes about 40 MB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.evaluation.results.document import Health, ResultDocument


class Item(NamedTuple):
    """One item: the mean over its scored repeats (None: no repeat was scored), cluster, prompt."""

    score: float | None
    cluster: str | None
    prompt_hash: str | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One benchmark split of one model under one metric.

    Attributes:
        items: item id -> what it scored.
        measures: further measures, name -> item id -> (numerator, denominator); a measure's value is
            the sum of numerators over the sum of denominators.
        n_expected: items that were to be asked.
        repeats: answers of the item that has most.
        protocol: canonical text of the generation settings; None when unknown.
        trouble: why this sheet may be shown but not decide; None when nothing is wrong.
        health: behaviour rates; None when unknown.
    """

    benchmark: str
    split: str
    metric: str
    filter: str | None
    items: Mapping[str, Item]
    n_expected: int
    higher_is_better: bool = True
    measures: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=lambda: {})
    repeats: int = 1
    protocol: str | None = None
    trouble: str | None = None
    health: Health | None = None

    @property
    def metric_name(self) -> str:
        """The metric with its filter: `exact_match, flexible-extract`."""
        return self.metric if self.filter in (None, "none") else f"{self.metric}, {self.filter}"

    def with_trouble(self, trouble: str | None) -> Sheet:
        """Return the sheet with the reason why it cannot decide."""
        return replace(self, trouble=trouble)

    @property
    def n_unscored(self) -> int:
        """Items that were asked and have no score."""
        return sum(item.score is None for item in self.items.values())


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model's scores, wherever they were read from.

    Attributes:
        label: what to call it in tables.
        kind: `result` is our folder, `lm-eval` a folder of the harness, `samples` rows of a run.
        document: the `benchmark.json`, for `result` only.
        sheets: benchmark key -> sheet.
        notes: what was left out and why.
    """

    label: str
    source: Path
    kind: Literal["result", "lm-eval", "samples"]
    sheets: Mapping[str, Sheet]
    document: ResultDocument | None = None
    notes: tuple[str, ...] = ()


def mean_score(sheet: Sheet) -> float | None:
    """Return the mean over scored items, None without one."""
    scores = [item.score for item in sheet.items.values() if item.score is not None]
    return math.fsum(scores) / len(scores) if scores else None


def measure_value(parts: Mapping[str, tuple[float, float]]) -> float | None:
    """Return sum of numerators / sum of denominators, None when there is nothing to divide by."""
    below = math.fsum(part[1] for part in parts.values())
    return math.fsum(part[0] for part in parts.values()) / below if below > 0 else None
