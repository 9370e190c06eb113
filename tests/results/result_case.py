"""Folders of the three kinds that `compare` reads, written by hand for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdagent_ft.evaluation.results.document import (
    BenchmarkRole,
    GenerationUse,
    ModelIdentity,
    ResultDocument,
    ResultStatus,
    SuiteUse,
    benchmark_key,
    result_status,
)
from rdagent_ft.evaluation.results.folder import entry_of, write_result
from rdagent_ft.evaluation.rows import SampleRow

STAMP = "2026-11-20T21-00-00.000001"


def rows_of(
    scores: Sequence[float | None], benchmark: str = "gsm8k", split: str = "test", **changes: Any
) -> list[SampleRow]:
    """Return one row a score, with ids i0, i1, … and their prompts."""
    return [
        SampleRow.model_validate(
            {
                "benchmark": benchmark,
                "split": split,
                "item_id": f"i{number}",
                "prompt_hash": f"p{number}",
                "prediction": "the answer is 4",
                "extracted": "4",
                "gold": "4",
                "score": score,
                "unscored_reason": "no reference" if score is None else None,
                "finish_reason": "stop",
                "n_tokens": 5,
                **changes,
            }
        )
        for number, score in enumerate(scores)
    ]


def binary(n: int, n_right: int, *, flipped: int = 0) -> list[float | None]:
    """Return n scores with the first `n_right` right, after `flipped` of them moved to the end."""
    scores: list[float | None] = [1.0] * n_right + [0.0] * (n - n_right)
    for at in range(flipped):
        scores[at], scores[n - 1 - at] = 0.0, 1.0
    return scores


def write_folder(
    folder: Path,
    benchmarks: Mapping[str, Sequence[SampleRow]],
    *,
    role: str = "base",
    suite: str | None = "core",
    target: str | None = None,
    n_expected: Mapping[str, int] | None = None,
    status: ResultStatus | None = None,
    generation: GenerationUse | None = None,
    limit: int | None = None,
) -> Path:
    """Write a result folder with these answers; return it."""
    entries: dict[str, Any] = {}
    samples: dict[str, Sequence[SampleRow]] = {}
    for name, rows in benchmarks.items():
        key = benchmark_key(rows[0].benchmark, rows[0].split)
        given: BenchmarkRole | None = None if target is None else ("target" if name == target else "guard")
        n_items = len({row.item_id for row in rows})
        entries[key] = entry_of(
            rows, scorer="numeric_match", n_expected=(n_expected or {}).get(name, n_items), role=given
        )
        samples[key] = rows
    document = ResultDocument(
        run_id="r1",
        created="2026-11-20T21:00:00Z",
        status=status or result_status(entries, n_planned=len(entries)),
        model=ModelIdentity.model_validate({"role": role, "id": f"{role}-model", "kind": "full"}),
        suite=None if suite is None else SuiteUse(name=suite, version="1", limit=limit),
        generation=generation or GenerationUse(protocol="chat", max_tokens=512),
        benchmarks=entries,
    )
    write_result(folder, document, samples)
    return folder


def harness_row(doc_id: int, scores: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return one line of an lm-eval samples file."""
    document = {"question": f"what is {doc_id}?"}
    return {
        "doc_id": doc_id,
        "doc": document,
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"what is {doc_id}?", "arg_1": {}}},
        "resps": [["4"]],
        "filtered_resps": ["4"],
        "filter": "none",
        "metrics": list(scores),
        "doc_hash": hashlib.sha256(json.dumps(document).encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(f"what is {doc_id}?".encode()).hexdigest(),
        "target_hash": "0" * 64,
        **scores,
        **changes,
    }


def write_harness(
    folder: Path,
    tasks: Mapping[str, Sequence[dict[str, Any]]],
    *,
    groups: Mapping[str, list[str]] | None = None,
    means: Mapping[str, Mapping[str, float]] | None = None,
    stamp: str = STAMP,
    configs: Mapping[str, Any] | None = None,
    inside: str = "org__model",
    model_name: str = "org/model",
) -> Path:
    """Write a folder as lm-eval does: results and samples below the model's name; return it.

    The means are those of the rows unless `means` gives others.
    """
    place = folder / inside
    place.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for task, rows in tasks.items():
        sums: dict[str, list[float]] = {}
        for row in rows:
            for metric in row["metrics"]:
                value = row[metric]
                sums.setdefault(f"{metric},{row['filter']}", []).extend(
                    value if isinstance(value, list) else [value]
                )
        found = {key: sum(map(float, values)) / len(values) for key, values in sums.items()}
        results[task] = {"alias": task, **found, **(means or {}).get(task, {})}
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (place / f"samples_{task}_{stamp}.jsonl").write_text(lines)
    n_docs = {task: len({row["doc_id"] for row in rows}) for task, rows in tasks.items()}
    document = {
        "results": results,
        "group_subtasks": dict(groups or {}),
        "configs": dict(configs or {task: {"task": task, "num_fewshot": 0} for task in tasks}),
        "n-samples": {task: {"original": n, "effective": n} for task, n in n_docs.items()},
        "higher_is_better": {},
        "config": {"model": "hf"},
        "model_name": model_name,
    }
    (place / f"results_{stamp}.json").write_text(json.dumps(document))
    return folder
