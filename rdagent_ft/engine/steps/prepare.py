"""Set-up step 1: find, read, split and pin the data; find the model; choose how answers are scored.

All of it happens in memory first (`gather`), so that bad input leaves nothing behind; the files are
written once a run directory exists (`prepare`). The test split is written, but only `claim`
scores on it; `code` compares a data script's rows with it, to leave copies out.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rdagent_ft.data.models import resolve_model
from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.preference_store import write_preference_rows
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import SPLIT_NAMES, DatasetSource, ModelSource, ReadReport, Row, SplitName
from rdagent_ft.data.split import split_rows
from rdagent_ft.data.tokens import TextEncoder, load_encoder
from rdagent_ft.data.write import write_rows
from rdagent_ft.engine.context import RunContext, RunRequest
from rdagent_ft.engine.steps.leaks import REPORT_NAME, drop_leaks
from rdagent_ft.engine.steps.preferences import Preferences, gather_preferences
from rdagent_ft.engine.steps.stage_data import PREFERENCES_NAME
from rdagent_ft.errors import DataError, PreflightError, UserError
from rdagent_ft.evaluation.benchmarks import check_benchmarks, find_benchmark, load_items
from rdagent_ft.evaluation.ifeval_answers import find_nltk_data
from rdagent_ft.evaluation.outside import CodeCase, CodeResult, GradeCase, GradeResult, Outside
from rdagent_ft.evaluation.rows import PromptFormat, ScorerName
from rdagent_ft.evaluation.score import missing_for
from rdagent_ft.evaluation.scorers import choose_scorer
from rdagent_ft.execution.machine import Gpu, Machine, machine_facts, read_machine
from rdagent_ft.llm.judge_endpoint import resolve_judge_endpoint
from rdagent_ft.reporting.records import PreferenceInfo, PrepareOutput, SplitInfo
from rdagent_ft.settings import Settings
from rdagent_ft.values import sha256_file, write_json

MAX_NEW_TOKENS = 1024
HELDOUT = "heldout"


class Gathered(NamedTuple):
    """Everything that preparation found, still in memory."""

    machine: Machine
    source: DatasetSource
    read: ReadReport
    model: ModelSource
    encoder: TextEncoder
    prompt_format: PromptFormat
    splits: dict[SplitName, list[Row]]
    clusters: dict[str, int]
    train_tokens: list[int]
    scorer: ScorerName
    scorer_reason: str
    method: Literal["generate", "choose"]
    max_new_tokens: int
    reported: tuple[str, ...]
    notices: tuple[str, ...]
    n_contaminated: int
    contamination: dict[str, Any]
    seconds: float
    preferences: Preferences | None = None


def gather(request: RunRequest, settings: Settings, gpus: tuple[Gpu, ...]) -> Gathered:
    """Resolve and read everything; write nothing. Raises `UserError`/`PreflightError` on bad input.

    `gpus` are those that the executor can give to jobs.
    """
    started = time.monotonic()
    machine = read_machine(settings.file_path, gpus)
    if machine.device == "cpu" and not settings.allow_cpu:
        raise PreflightError(
            f"the {settings.executor} executor has no GPU, and training on CPU was not allowed",
            hint="set FT_ALLOW_CPU=1 to train on CPU; `rdagent-ft doctor` shows what is visible",
        )
    named = request.benchmarks if request.benchmarks is not None else settings.benchmark_datasets
    reported, notices = check_benchmarks(named, settings.file_path)
    _refuse_unscorable((*reported, settings.target_benchmark), settings)
    source = resolve_dataset(request.dataset, settings.file_path)
    rows, read = read_rows(source, request.columns)
    model = resolve_model(
        request.model,
        settings.file_path,
        memory_gib=machine.memory_gib,
        device=machine.device,
        gpu_memory_gib=max((gpu.memory_gib for gpu in machine.gpus), default=None),
    )
    encoder = load_encoder(Path(model.path))
    prompt_format: PromptFormat = "chat" if model.has_chat_template else "plain"
    splits, clusters, n_contaminated = _split(rows, settings)
    reported_items = _reported_items(reported, settings)
    leaks = drop_leaks(splits, reported_items)
    splits["train"] = leaks.train
    preferences = (
        gather_preferences(request.preferences, settings, splits, reported_items)
        if request.preferences is not None
        else None
    )
    train_tokens = [sum(pair) for pair in encoder.rows_tokens(splits["train"], prompt_format)]
    if settings.target_benchmark == HELDOUT:
        scorer, reason = choose_scorer([row.completion for row in splits["train"]])
        golds = [encoder.count(row.completion) for row in splits["train"][:2000]]
        method, max_new_tokens = "generate", _generation_limit(golds, model.max_positions)
    else:
        found = find_benchmark(settings.target_benchmark, settings.file_path)
        assert found is not None, "checked by _split"
        scorer, reason = found.benchmark.scorer, f"declared by benchmark {settings.target_benchmark}"
        method = found.benchmark.method
        max_new_tokens = min(found.benchmark.max_new_tokens, model.max_positions // 2)
    return Gathered(
        machine=machine,
        source=source,
        read=read,
        model=model,
        encoder=encoder,
        prompt_format=prompt_format,
        splits=splits,
        clusters=clusters,
        train_tokens=train_tokens,
        scorer=scorer,
        scorer_reason=reason,
        method=method,
        max_new_tokens=max_new_tokens,
        reported=tuple(name for name in reported if name != settings.target_benchmark),
        notices=(*notices, *leaks.notices, *(preferences.notes if preferences is not None else ())),
        n_contaminated=n_contaminated + leaks.n_dropped,
        contamination=leaks.report,
        seconds=time.monotonic() - started,
        preferences=preferences,
    )


def prepare(ctx: RunContext, gathered: Gathered | None = None) -> PrepareOutput:
    """Write the splits into the run directory and return what the whole run rests on."""
    found = gathered or gather(ctx.request, ctx.settings, ctx.executor.gpus())
    infos: dict[SplitName, SplitInfo] = {}
    for name in SPLIT_NAMES:
        path = ctx.run_dir / "data" / f"{name}.jsonl"
        write_rows(path, found.splits[name])
        infos[name] = SplitInfo(n_items=len(found.splits[name]), sha256=sha256_file(path))
    write_json(ctx.run_dir / "data" / REPORT_NAME, found.contamination)
    pairs = None if found.preferences is None else _write_preferences(ctx, found.preferences)
    groups = Counter(found.clusters.values())
    percentiles = _percentiles(found.train_tokens)
    sources = Counter(row.source for row in found.splits["train"] if row.source is not None)
    return PrepareOutput(
        dataset=found.source,
        read=found.read,
        model=found.model,
        splits=infos,
        n_near_duplicate_groups=sum(1 for n in groups.values() if n > 1),
        target_benchmark=ctx.settings.target_benchmark,
        reported_benchmarks=found.reported,
        scorer=found.scorer,
        scorer_reason=found.scorer_reason,
        prompt_format=found.prompt_format,
        method=found.method,
        max_new_tokens=found.max_new_tokens,
        token_percentiles=percentiles,
        sources=dict(sources.most_common(50)),
        data_facts=_data_facts(found, percentiles),
        model_facts=_model_facts(found.model),
        machine_facts=machine_facts(found.machine),
        device=found.machine.device,
        memory_gib=found.machine.memory_gib,
        gpu_memory_gib=max((gpu.memory_gib for gpu in found.machine.gpus), default=None),
        notices=(*found.notices, *found.read.notes),
        n_gpus=len(found.machine.gpus),
        preferences=pairs,
        seconds=found.seconds,
    )


def _write_preferences(ctx: RunContext, found: Preferences) -> PreferenceInfo:
    path = ctx.run_dir / "data" / PREFERENCES_NAME
    write_preference_rows(path, found.rows)
    return PreferenceInfo(
        source=found.source, n_rows=len(found.rows), n_copies=found.n_copies, sha256=sha256_file(path)
    )


def _split(rows: list[Row], settings: Settings) -> tuple[dict[SplitName, list[Row]], dict[str, int], int]:
    """Return the splits, the near-duplicate clusters, and how many train rows touched eval items."""
    bounds = {
        "dev_items": settings.dev_items,
        "val_items": settings.val_items,
        "test_items": settings.test_items,
    }
    if settings.target_benchmark == HELDOUT:
        clusters = near_duplicate_clusters(rows)
        return split_rows(rows, clusters, seed=settings.seed, **bounds), clusters, 0
    found = find_benchmark(settings.target_benchmark, settings.file_path)
    if found is None:
        check_benchmarks((settings.target_benchmark,), settings.file_path)
        raise DataError(f"the target benchmark {settings.target_benchmark!r} has no items")
    items = load_items(found, None, settings.seed)
    clusters = near_duplicate_clusters([*rows, *items])
    splits = split_rows(items, clusters, seed=settings.seed, **bounds)
    touched = {clusters[item.item_id] for item in items}
    train = [row for row in rows if clusters[row.item_id] not in touched]
    if not train:
        raise DataError("every training row is a near-duplicate of a benchmark item")
    return {**splits, "train": train}, clusters, len(rows) - len(train)


def _reported_items(reported: tuple[str, ...], settings: Settings) -> dict[str, list[Row]]:
    """Return the items of every reported benchmark but the target, whose items are the splits."""
    items: dict[str, list[Row]] = {}
    for name in reported:
        found = find_benchmark(name, settings.file_path)
        if found is not None and name != settings.target_benchmark:
            items[name] = load_items(found, None, settings.seed)
    return items


def _refuse_unscorable(names: tuple[str, ...], settings: Settings) -> None:
    """Raise `UserError` when answers to a benchmark could not be scored here: all reasons together."""
    found = [find_benchmark(name, settings.file_path) for name in names if name != HELDOUT]
    wanted: list[tuple[str, ScorerName]] = [
        (hit.benchmark.name, hit.benchmark.scorer) for hit in found if hit is not None
    ]
    outside = Outside(
        run_code=_in_containers if settings.executor == "docker" else None,
        nltk_data=find_nltk_data(settings.file_path),
        grade=_by_judge if resolve_judge_endpoint(settings, os.environ) is not None else None,
    )
    problems = missing_for(wanted, outside)
    if problems:
        raise UserError("answers to these benchmarks could not be scored here", problems=tuple(problems))


def _in_containers(cases: Sequence[CodeCase]) -> list[CodeResult]:
    """Stand for the runner that the docker executor gives later; nothing is run while preparing."""
    return [CodeResult(case_id=case.case_id, outcome="not_run") for case in cases]


def _by_judge(cases: Sequence[GradeCase]) -> list[GradeResult]:
    """Stand for the judge that is asked later; nothing is asked while preparing."""
    return [GradeResult(case_id=case.case_id, score=None, reason="not asked") for case in cases]


def _generation_limit(gold_tokens: list[int], max_positions: int) -> int:
    """Return the generation limit: 1.5 x the longest gold of the sample, 16..1024, half the context."""
    longest = max(gold_tokens, default=16)
    return max(16, min(int(longest * 1.5) + 8, MAX_NEW_TOKENS, max_positions // 2))


def _percentiles(n_tokens: list[int]) -> dict[str, int]:
    ordered = sorted(n_tokens)
    at = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "max": 1.0}
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}


def _data_facts(found: Gathered, percentiles: dict[str, int]) -> tuple[str, ...]:
    train = found.splits["train"]
    n_exact = len(train) - len({row.item_id for row in train})
    facts = [
        f"{len(train)} training rows of format {found.read.format}, {n_exact} of them exact repeats",
        "tokens per training row: " + ", ".join(f"{name} {value}" for name, value in percentiles.items()),
        f"answers are scored by {found.scorer}: {found.scorer_reason}",
    ]
    for reason, n_rows in found.read.dropped.items():
        facts.append(f"{n_rows} records were dropped while reading: {reason}")
    if found.n_contaminated:
        facts.append(f"{found.n_contaminated} rows were left out: they repeat evaluation items")
    labels = Counter(row.completion for row in train)
    if len(labels) <= 200 and len(labels) * 5 <= len(train):
        top, n_top = labels.most_common(1)[0]
        facts.append(f"{len(labels)} distinct answers; the most frequent has {n_top} rows ({top[:40]!r})")
    return tuple(facts)


def _model_facts(model: ModelSource) -> tuple[str, ...]:
    return (
        f"{model.name}: {model.architecture}, {model.n_params / 1e6:.1f} M weights, vocabulary "
        f"{model.vocab_size}, context {model.max_positions} tokens",
        "it has a chat template" if model.has_chat_template else "it has no chat template: prompts are plain",
        *((model.choice_reason,) if model.choice_reason else ()),
    )
