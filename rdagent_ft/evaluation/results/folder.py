"""A result folder: `benchmark.json` and the answers of one model, written and read.

    FOLDER/benchmark.json   FOLDER/samples/<benchmark>.jsonl   FOLDER/lm-eval/  (what the harness left)

The document is written last and atomically: a folder without it is no result. Reading believes
nothing: every mean is computed again from the answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from rdagent_ft.errors import JobError, StateError
from rdagent_ft.evaluation.results.document import (
    BenchmarkEntry,
    BenchmarkRole,
    Health,
    ResultDocument,
    benchmark_key,
    invalid_reason,
)
from rdagent_ft.evaluation.results.health import health_of
from rdagent_ft.evaluation.results.sample_sheet import sheet_of_samples
from rdagent_ft.evaluation.results.sheet import ModelResult, Sheet, mean_score
from rdagent_ft.evaluation.rows import SampleRow, ScorerName
from rdagent_ft.evaluation.sample_files import write_samples
from rdagent_ft.evaluation.statistics import summarise
from rdagent_ft.execution.outputs import clean_text, read_json_file
from rdagent_ft.values import canonical_json, sha256_text, write_json

DOCUMENT_NAME = "benchmark.json"
MAX_DOCUMENT_BYTES = 16 << 20
AGREEMENT = 1e-6


def entry_of(
    rows: Sequence[SampleRow],
    *,
    scorer: ScorerName,
    n_expected: int,
    metric: str | None = None,
    filter_name: str | None = None,
    role: BenchmarkRole | None = None,
    extra: Mapping[str, float | None] | None = None,
    harness_value: float | None = None,
    seconds: float | None = None,
    health: Health | None = None,
) -> BenchmarkEntry:
    """Return the entry of one benchmark split: mean, error and rates of its answers.

    `n_expected` counts items, not answers; `metric` is the scorer's name unless given. Further
    measures that rows carry in `parts` become `extra`. Raises `JobError` for no rows, mixed or doubled
    ones, and when the harness's mean differs from ours by more than 1e-6.
    """
    if not rows:
        raise JobError("no answers, no entry: leave the benchmark out and set the status")
    n_items = len({row.item_id for row in rows})
    scored = any(row.score is not None for row in rows)
    score = summarise(rows, scorer=scorer, n_expected=n_expected) if scored else None
    if score is not None and harness_value is not None and abs(score.value - harness_value) > AGREEMENT:
        raise JobError(
            f"{rows[0].benchmark}: the harness says {harness_value!r}, "
            f"its {score.n} answers give {score.value!r}"
        )
    return BenchmarkEntry(
        split=rows[0].split,
        role=role,
        metric=metric or scorer,
        filter=filter_name,
        n=0 if score is None else score.n,
        n_expected=n_expected,
        unscored=n_items if score is None else score.n_unscored,
        value=None if score is None else score.value,
        stderr=None if score is None else score.stderr,
        ci95=None if score is None else score.ci95,
        extra={**_measures(rows), **(extra or {})},
        health=health or health_of(rows, scorer),
        harness_value=harness_value,
        samples=samples_name(rows[0].benchmark, rows[0].split),
        seconds=seconds,
    )


def samples_name(benchmark: str, split: str) -> str:
    """Return where a benchmark's answers lie in the folder: `samples/gsm8k.jsonl`.

    A name that is no plain file name is cleaned and carries a hash of itself.
    """
    key = benchmark_key(benchmark, split).replace("/", "-")
    if re.fullmatch(r"[\w][\w.+-]{0,99}", key, re.ASCII) is None:
        key = f"{re.sub(r'[^A-Za-z0-9_+-]', '_', key)[:80] or 'benchmark'}-{sha256_text(key)[:8]}"
    return f"samples/{key}.jsonl"


def write_result(folder: Path, document: ResultDocument, samples: Mapping[str, Sequence[SampleRow]]) -> None:
    """Write a result folder: the answers of each benchmark, then the document that names them.

    `samples` has the keys of `document.benchmarks` (`benchmark_key`); what `lm-eval/` holds stays as it
    is. An older document is taken away first, so that a crash leaves no document over other answers.
    Raises `JobError` when keys differ or an entry does not count its rows.
    """
    if set(samples) != set(document.benchmarks):
        raise JobError(
            f"answers of {sorted(samples)} do not belong to the benchmarks {sorted(document.benchmarks)}"
        )
    for key, rows in samples.items():
        entry = document.benchmarks[key]
        n_items = len({row.item_id for row in rows})
        if entry.n + entry.unscored != n_items:
            raise JobError(
                f"{key}: {n_items} items have answers, the entry counts {entry.n + entry.unscored}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DOCUMENT_NAME).unlink(missing_ok=True)
    for key, rows in samples.items():
        write_samples(folder / document.benchmarks[key].samples, rows)
    write_json(folder / DOCUMENT_NAME, document.model_dump(mode="json"))


def read_document(folder: Path) -> ResultDocument:
    """Return the checked `benchmark.json`. Raises `StateError` for damage or another version."""
    place = folder / DOCUMENT_NAME
    try:
        value = read_json_file(folder, DOCUMENT_NAME, MAX_DOCUMENT_BYTES)
    except JobError as error:
        raise StateError(f"in {folder}: {error.message}") from None
    version = value.get("schema_version")
    if version != 1:
        raise StateError(
            f"{place} has schema_version {str(version)[:20]}, this program reads 1",
            hint="read it with the version of rdagent-ft that wrote it",
        )
    try:
        return ResultDocument.model_validate(value)
    except (ValidationError, RecursionError) as error:
        lines = str(error).splitlines()
        raise StateError(f"{place} is no result: {' '.join(lines[1:3])[:300]}") from None


def read_folder(folder: Path) -> ModelResult:
    """Return a result folder's scores, each mean computed again from the answers.

    Raises `StateError` for damaged files, a benchmark whose answers are another's, and a mean that
    is not that of the answers.
    """
    document = read_document(folder)
    sheets = {key: _sheet(folder, key, entry, document) for key, entry in document.benchmarks.items()}
    return ModelResult(
        label=clean_text(document.model.id)[:200],
        source=folder,
        kind="result",
        sheets=sheets,
        document=document,
    )


def _sheet(folder: Path, key: str, entry: BenchmarkEntry, document: ResultDocument) -> Sheet:
    place = folder / DOCUMENT_NAME
    sheet = sheet_of_samples(
        folder,
        entry.samples,
        metric=entry.metric,
        filter_name=entry.filter,
        n_expected=entry.n_expected,
        higher_is_better=entry.higher_is_better,
        protocol=canonical_json(document.generation),
        health=entry.health,
    )
    if benchmark_key(sheet.benchmark, sheet.split) != key:
        raise StateError(
            f"{folder / entry.samples} holds {sheet.benchmark} ({sheet.split}), {place} says {key}"
        )
    ours = mean_score(sheet)
    n_scored = len(sheet.items) - sheet.n_unscored
    if (ours is None) != (entry.value is None) or n_scored != entry.n:
        raise StateError(f"{place}: {key} has {entry.n} scored items, {folder / entry.samples} {n_scored}")
    if ours is not None and entry.value is not None and abs(ours - entry.value) > AGREEMENT:
        raise StateError(
            f"{place}: {key} is {entry.value!r} there, but its {n_scored} answers give {ours!r}",
            hint="one of the files was changed after the evaluation: evaluate again",
        )
    return sheet.with_trouble(_trouble(entry, document))


def _trouble(entry: BenchmarkEntry, document: ResultDocument) -> str | None:
    if not entry.complete:
        return f"{entry.n + entry.unscored} of {entry.n_expected} items"
    if (reason := invalid_reason(entry)) is not None:
        return reason
    if entry.metric == "rubric" and document.judge.status != "ok":
        return f"graded by a judge that is {document.judge.status}"
    return None


def _measures(rows: Sequence[SampleRow]) -> dict[str, float | None]:
    sums: dict[str, list[float]] = {}
    for row in rows:
        for name, values in row.parts.items():
            sums.setdefault(name, []).extend(values)
    return {name: sum(values) / len(values) if values else None for name, values in sums.items()}
