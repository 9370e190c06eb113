"""`benchmark.json`: everything known of one model's evaluation, schema_version 1.

One file per evaluated model. The answers themselves lie beside it, one file a benchmark. Not here:
writing and reading the folder (`folder`), comparing two of them (`compare`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rdagent_ft.evaluation.behaviour import INVALID_ABOVE, WARN_ABOVE
from rdagent_ft.values import Frozen

ResultStatus = Literal["ok", "partial", "timeout", "failed", "invalid"]
BenchmarkRole = Literal["target", "guard"]
JudgeStatus = Literal["ok", "skipped", "degraded", "failed_gate", "uncalibrated", "invalid"]

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

MAX_UNSCORED_SHARE = 0.10
"""More unscored answers than this make a benchmark invalid: what is left is no sample of it."""

WARN_LENGTH_RATE, MAX_LENGTH_RATE = WARN_ABOVE["truncated"], INVALID_ABOVE["truncated"]
"""Share of answers cut by the token limit that is warned of, and above which a score cannot decide."""

MAX_EMPTY_RATE = INVALID_ABOVE["empty"]
"""Share of empty answers above which a score cannot decide."""


class ModelIdentity(Frozen):
    """Which model was scored. `fingerprint` pins its files; `parent` is the base's fingerprint."""

    role: Literal["base", "candidate"]
    id: str
    kind: Literal["full", "lora", "merged", "endpoint"]
    path: str | None = None
    fingerprint: str | None = None
    parent: str | None = None
    chat_template_sha: str | None = None
    saved_with_transformers: str | None = None


class SuiteUse(Frozen):
    """Which items were asked: `items_sha` pins them, `looks` counts how often their scores were used."""

    name: str
    version: str
    split: str = "test"
    items_sha: str | None = None
    seed: int | None = None
    limit: int | None = None
    looks: Count = 0


class EngineUse(Frozen):
    """What answered and what asked. `args` are the server's or the harness's own arguments."""

    server: str | None = None
    client: str | None = None
    args: dict[str, Any] = {}
    gpu: str | None = None
    freeze_sha: str | None = None


class GenerationUse(Frozen):
    """How answers were asked for; equal on both sides, or nothing can be compared."""

    protocol: str
    temperature: Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)] = 0.0
    max_tokens: Count | None = None
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 1


class JudgeUse(Frozen):
    """What a judge model did; `skipped` when none was asked."""

    status: JudgeStatus = "skipped"
    model: str | None = None
    rubric: str | None = None
    calibration: dict[str, Any] | None = None
    unscored: Count = 0
    cost_usd: NotNegative = 0.0


class Health(Frozen):
    """How the answers look, whatever they score (`evaluation.behaviour`). Shares of all answers.

    Attributes:
        length_rate: cut by the token limit.
        empty_rate: nothing but white space.
        repeat_rate: more than half of the 4-grams of words are repeats.
        extract_fail: the scorer found nothing in the text to score; None when unknown.
        refused_rate: the model declined; None when unknown.
        mean_tokens: mean generated tokens; None when unknown for an answer.
        mean_chars: mean length in characters.
    """

    length_rate: Share = 0.0
    empty_rate: Share = 0.0
    repeat_rate: Share | None = None
    extract_fail: Share | None = None
    refused_rate: Share | None = None
    mean_tokens: NotNegative | None = None
    mean_chars: NotNegative | None = None


class BenchmarkEntry(Frozen):
    """One benchmark's score.

    Attributes:
        metric, filter: what the value is; `filter` is the extraction rule's name, where there is one.
        n: items with a score; `unscored` items had none; `n_expected` were to be asked.
        value, stderr, ci95: None when nothing could be scored.
        cluster: what items that are not independent share, in words.
        extra: further measures, name -> value; None means that it could not be computed.
        harness_value: the same mean as the harness reports it, where one does.
        samples: file of the answers, relative to the folder.
    """

    split: str = "test"
    role: BenchmarkRole | None = None
    metric: str
    filter: str | None = None
    higher_is_better: bool = True
    n: Count
    n_expected: Count
    unscored: Count = 0
    value: Finite | None
    stderr: NotNegative | None
    ci95: tuple[Finite, Finite] | None
    cluster: str | None = None
    extra: dict[str, Finite | None] = {}
    health: Health | None = None
    harness_value: Finite | None = None
    samples: str
    seconds: NotNegative | None = None

    @property
    def complete(self) -> bool:
        """Whether every expected item was asked, scored or not."""
        return self.n + self.unscored == self.n_expected and self.n_expected > 0


class ContaminationUse(Frozen):
    """What the check of the training files against these items found."""

    checked_files: Count
    leaks: Count
    near: Count
    report: str | None = None


class ResultDocument(Frozen):
    """`benchmark.json` of one evaluated model."""

    schema_version: Literal[1] = 1
    run_id: str
    created: str
    status: ResultStatus
    failure: str | None = None
    model: ModelIdentity
    suite: SuiteUse | None = None
    engine: EngineUse = EngineUse()
    generation: GenerationUse
    judge: JudgeUse = JudgeUse()
    benchmarks: dict[str, BenchmarkEntry] = {}
    contamination: ContaminationUse | None = None
    timings: dict[str, Finite] = {}
    warnings: tuple[str, ...] = ()


def benchmark_key(benchmark: str, split: str) -> str:
    """Return the name of a benchmark split in documents and tables: `gsm8k`, but `heldout/val`."""
    return benchmark if split == "test" else f"{benchmark}/{split}"


def result_status(
    benchmarks: dict[str, BenchmarkEntry], *, n_planned: int, timed_out: bool = False, failed: bool = False
) -> ResultStatus:
    """Return what a result is worth: only `ok` may decide anything.

    `failed` without a single score; `timeout` when the clock ended it; `partial` when a planned
    benchmark or an expected item is missing; `invalid` when too many answers are unscored or cut.
    """
    if not any(entry.value is not None for entry in benchmarks.values()):
        return "timeout" if timed_out and not failed else "failed"
    if timed_out:
        return "timeout"
    if failed or len(benchmarks) < n_planned or not all(entry.complete for entry in benchmarks.values()):
        return "partial"
    return "invalid" if any(invalid_reason(entry) for entry in benchmarks.values()) else "ok"


def invalid_reason(entry: BenchmarkEntry) -> str | None:
    """Return why a complete benchmark's score cannot be used, or None."""
    n_asked = entry.n + entry.unscored
    if entry.value is None:
        return "nothing could be scored"
    if entry.unscored > MAX_UNSCORED_SHARE * n_asked:
        return f"{entry.unscored} of {n_asked} answers are unscored"
    if entry.health is not None and entry.health.length_rate > MAX_LENGTH_RATE:
        return f"{entry.health.length_rate:.0%} of the answers were cut by the token limit"
    if entry.health is not None and entry.health.empty_rate > MAX_EMPTY_RATE:
        return f"{entry.health.empty_rate:.0%} of the answers are empty"
    return None
