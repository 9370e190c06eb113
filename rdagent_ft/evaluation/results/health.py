"""Behaviour rates as `benchmark.json` holds them: from rows in memory, or counted while a file streams.

What the rates mean is `evaluation.behaviour`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdagent_ft.errors import StateError
from rdagent_ft.evaluation.behaviour import behaviour, repeats_itself
from rdagent_ft.evaluation.results.document import Health
from rdagent_ft.evaluation.rows import SampleRow, ScorerName


def health_of(rows: Sequence[SampleRow], scorer: ScorerName) -> Health | None:
    """Return the rates of rows in memory; None when no row holds an answer."""
    if not any(row.score is not None or row.prediction for row in rows):
        return None
    found = behaviour(rows, scorer)
    return Health(
        length_rate=found.rates["truncated"],
        empty_rate=found.rates["empty"],
        repeat_rate=found.rates["repeated"],
        extract_fail=found.rates["no_answer"],
        refused_rate=found.rates["refused"],
        mean_tokens=found.mean_tokens,
        mean_chars=found.mean_chars,
    )


class HealthCount:
    """Counts over SampleRows as JSON objects, for files without a document that holds the rates."""

    __slots__ = ("chars", "n", "n_empty", "n_length", "n_repeated", "n_tokens", "tokens")

    def __init__(self) -> None:
        self.n = self.n_empty = self.n_length = self.n_repeated = 0
        self.chars = self.tokens = self.n_tokens = 0

    def add(self, row: dict[str, Any], place: str) -> None:
        """Count one answer. Raises `StateError` when its text is no text."""
        text = row.get("prediction")
        if not isinstance(text, str):
            raise StateError(f"{place}: `prediction` is no text")
        if row.get("score") is None and not text:
            return
        self.n += 1
        self.chars += len(text)
        self.n_empty += not text.strip()
        self.n_length += row.get("finish_reason") == "length"
        self.n_repeated += repeats_itself(text)
        n_tokens = row.get("n_tokens")
        if isinstance(n_tokens, int) and not isinstance(n_tokens, bool) and 0 <= n_tokens < 10**9:
            self.tokens, self.n_tokens = self.tokens + n_tokens, self.n_tokens + 1

    def rates(self) -> Health | None:
        """Return the shares; None without answers. What the scorer took out is not known here."""
        if not self.n:
            return None
        return Health(
            length_rate=self.n_length / self.n,
            empty_rate=self.n_empty / self.n,
            repeat_rate=self.n_repeated / self.n,
            mean_tokens=self.tokens / self.n if self.n_tokens == self.n else None,
            mean_chars=self.chars / self.n,
        )
