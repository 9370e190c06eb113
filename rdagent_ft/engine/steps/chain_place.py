"""Where a chain of stages works, and the weights at one point of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdagent_ft.reporting.records import StepName


class ChainPlace(NamedTuple):
    """Where a chain's files lie and how its jobs are called.

    Attributes:
        loop, step: under which the jobs are journaled.
        stages: folder of the stages' own folders.
        configs: folder of the rendered configs.
        prefix: name of the chain among the step's jobs (`seed-43`); "" for the recipe's own.
    """

    loop: int
    step: StepName
    stages: Path
    configs: Path
    prefix: str = ""

    def part(self, number: int, kind: str) -> str:
        """Return the job's name among those of the step; the first stage keeps the chain's own."""
        return self.prefix if number == 1 else "-".join(filter(None, (self.prefix, str(number), kind)))


class Weights(NamedTuple):
    """Weights at one point of the chain: a model folder and perhaps an adapter on it.

    `stage` is the stage that made them, None for the base model; `is_base` says that `model` is it.
    """

    model: Path
    adapter: Path | None = None
    stage: int | None = None
    sha256: str | None = None
    is_base: bool = True
