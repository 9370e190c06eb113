"""The harness port: what scores a model. A harness prepares a job and parses what it left.

A result counts only when the expected number of items parsed: exit codes lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from rdagent_ft.data.rows import SplitName
from rdagent_ft.evaluation.items import Answer
from rdagent_ft.evaluation.rows import PromptFormat, ScorerName
from rdagent_ft.values import Frozen


class EvalTask(Frozen):
    """One benchmark split to be answered.

    Attributes:
        benchmark: registry name (`heldout`, `gsm8k`, …).
        split: which split the items are.
        items_file: JSON lines of `items.EvalItem`.
        n_items: how many rows the file holds; fewer answers make the result invalid.
        scorer: how an answer is scored.
        max_new_tokens: generation limit per answer.
        method: `generate` text, or `choose` the likeliest of the item's choices by log-probability.
        repeats: answers per item; more than one only with a temperature above 0.
        temperature: 0 is greedy.
        repetition_penalty: 1 leaves the probabilities of tokens that occurred before as they are.
    """

    benchmark: str
    split: SplitName
    items_file: Path
    n_items: int
    scorer: ScorerName
    max_new_tokens: int
    method: Literal["generate", "choose"] = "generate"
    repeats: int = 1
    temperature: float = 0.0
    repetition_penalty: float = 1.0


class EvalModel(Frozen):
    """One model to be scored: a base directory and, for a candidate, its adapter or full weights.

    Attributes:
        role: `base` or `tuned`; part of the output file names.
        path: model directory (for full fine-tuning: the trained one).
        adapter: PEFT adapter directory, or None.
        only: (benchmark, split) of the tasks it is asked; None means all of the request.
        batch_size: sequences per forward pass, where it differs from the request's.
        repetition_penalty: decoding of this model alone; None means the task's.
    """

    role: str
    path: Path
    adapter: Path | None = None
    only: tuple[tuple[str, SplitName], ...] | None = None
    batch_size: int | None = None
    repetition_penalty: float | None = None


class EvalRequest(Frozen):
    """Everything a harness needs: models x tasks under one protocol.

    Attributes:
        models: scored in this order in one job; base and tuned see identical prompts.
        tasks: benchmark splits.
        prompt_format: `plain` joins the turns; `chat` applies the base tokenizer's template.
        batch_size: sequences per forward pass.
        device: `cpu`, `cuda` or `auto`.
    """

    models: tuple[EvalModel, ...]
    tasks: tuple[EvalTask, ...]
    prompt_format: PromptFormat
    batch_size: int
    device: str = "auto"

    def pairs(self) -> list[tuple[EvalModel, EvalTask]]:
        """Return which model is asked which task, in the order of the job."""
        return [
            (model, task)
            for model in self.models
            for task in self.tasks
            if model.only is None or (task.benchmark, task.split) in model.only
        ]


class Harness(Protocol):
    """What scores a model."""

    name: str

    def prepare(self, request: EvalRequest, out_dir: Path) -> tuple[str, ...]:
        """Write the job's input files into `out_dir`; return the argv to run there."""
        ...

    def parse(self, request: EvalRequest, out_dir: Path) -> dict[tuple[str, str, str], list[Answer]]:
        """Return (role, benchmark, split) -> answers, in item order; `score.score_answers` scores them.

        Raises `JobError` when an item is missing, unknown or doubled.
        """
        ...
