"""Sheets from a folder of lm-eval: which metric leads, cross-check with its own means, groups pooled.

A metric leads; all other metrics and filters of the task come along as further measures, so that a
gap between strict and flexible extraction stays visible. Scores that are no shares (perplexity,
BLEU) are left out, with a note.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import StateError, UserError
from rdagent_ft.evaluation.results.lm_eval_files import HarnessRun, find_results, read_runs
from rdagent_ft.evaluation.results.lm_eval_samples import Key, Measured, TaskSamples, read_task_samples
from rdagent_ft.evaluation.results.sheet import Item, ModelResult, Sheet, measure_value
from rdagent_ft.execution.outputs import clean_text

AGREEMENT = 1e-6
"""Largest difference between a mean of the harness and ours: both are sums of the same numbers."""

LEADING: tuple[str, ...] = (
    "math_verify",
    "exact_match",
    "prompt_level_strict_acc",
    "pass_at_1",
    "pass@1",
    "pass_at_k",
    "acc",
    "acc_norm",
    "mc2",
    "em",
    "f1",
)
"""Metrics that lead a task, best first."""

LEADING_OF_TASK = {"hellaswag": "acc_norm", "arc_challenge": "acc_norm", "arc_easy": "acc_norm"}
"""Tasks whose published scores use the length-normalised likelihood."""

LEADING_FILTERS = ("flexible-extract", "none")
"""Filters that lead, best first; strict extraction measures the format as well."""


def read_lm_eval(root: Path, only: str | None = None) -> ModelResult:
    """Return the scores in a folder of lm-eval, or of the one results file `only` in it.

    Raises `UserError` when there is none, a task was run twice or nothing can be compared, and
    `StateError` for damage and for means that do not agree with the answers.
    """
    names = [only] if only is not None else find_results(root)
    if not names:
        raise UserError(f"{root} holds no results_<time>.json of lm-eval")
    sheets: dict[str, Sheet] = {}
    notes: list[str] = []
    runs = read_runs(root, names)
    for run in runs:
        for name, sheet in _sheets(run, notes).items():
            sheets[name] = sheet
    if not sheets:
        raise UserError(f"{root} holds no score that can be compared: {'; '.join(notes)}")
    return ModelResult(label=runs[0].label, source=root, kind="lm-eval", sheets=sheets, notes=tuple(notes))


def _sheets(run: HarnessRun, notes: list[str]) -> dict[str, Sheet]:
    single: dict[str, Sheet] = {}
    for task, n_docs in run.n_docs.items():
        if n_docs == 0:
            notes.append(f"{clean_text(task)}: no document was asked")
            continue
        samples = read_task_samples(run.root, run.samples_name(task), n_docs)
        usable = _checked(run, task, samples, notes)
        leader = leading_metric(task, usable)
        if leader is None:
            notes.append(f"{clean_text(task)}: no metric that is a share, not compared")
            continue
        single[task] = _sheet(run, task, samples, usable, leader)
    return _pooled(single, run.groups)


def leading_metric(task: str, scores: Mapping[Key, Measured]) -> Key | None:
    """Return the (metric, filter) that stands for a task: plain shares only, known ones first."""
    plain = [key for key, measured in scores.items() if _is_share(measured)]
    wanted = LEADING_OF_TASK.get(task)

    def rank(key: Key) -> tuple[int, int, int]:
        metric, filter_name = key
        known = LEADING.index(metric) if metric in LEADING else len(LEADING)
        at = LEADING_FILTERS.index(filter_name) if filter_name in LEADING_FILTERS else len(LEADING_FILTERS)
        return (-1 if metric == wanted else known, at, plain.index(key))

    return min(plain, key=rank, default=None)


def _checked(run: HarnessRun, task: str, samples: TaskSamples, notes: list[str]) -> dict[Key, Measured]:
    """Return the measures that agree with the harness's own means; notes say what was left out."""
    usable: dict[Key, Measured] = {}
    reported = run.results.get(task, {})
    for key, measured in samples.scores.items():
        metric, filter_name = key
        theirs, ours = reported.get(f"{metric},{filter_name}"), measure_value(measured)
        name = f"{clean_text(task)} {metric}, {filter_name}"
        if key in samples.unusable:
            notes.append(f"{name}: {samples.unusable[key]}, left out")
        elif isinstance(theirs, bool) or not isinstance(theirs, (int, float)) or ours is None:
            notes.append(f"{name}: the results file has no mean of it, left out")
        elif abs(theirs - ours) <= AGREEMENT and len(measured) == len(samples.docs):
            usable[key] = measured
        elif _aggregation(run, task, metric) not in (None, "mean"):
            notes.append(f"{name}: no mean over documents ({_aggregation(run, task, metric)}), left out")
        else:
            raise StateError(
                f"{run.root / run.name}: {name} is {theirs!r} there, but {ours!r} over "
                f"the {len(measured)} documents of {run.samples_name(task)}",
                hint="one of the two files was changed, or they are of different runs",
            )
    return usable


def _sheet(
    run: HarnessRun, task: str, samples: TaskSamples, usable: dict[Key, Measured], leader: Key
) -> Sheet:
    lead = usable[leader]
    repeated = {doc_hash for key, (doc_hash, _) in samples.docs.items() if "#" in key}
    items = {
        key: Item(lead[key][0], doc_hash if doc_hash in repeated else None, prompt_hash)
        for key, (doc_hash, prompt_hash) in samples.docs.items()
    }
    return Sheet(
        benchmark=clean_text(task),
        split="test",
        metric=leader[0],
        filter=leader[1],
        items=items,
        n_expected=run.n_docs[task],
        higher_is_better=run.higher_is_better.get(task, {}).get(leader[0]) is not False,
        measures={
            metric if filter_name == "none" else f"{metric}, {filter_name}": measured
            for (metric, filter_name), measured in usable.items()
            if (metric, filter_name) != leader
        },
        protocol=_protocol(run, task),
    )


def _pooled(single: dict[str, Sheet], groups: Mapping[str, list[str]]) -> dict[str, Sheet]:
    """Return the sheets with the tasks of a group (the 57 of MMLU) as one, where they share a metric."""
    tops: dict[str, set[str]] = {}
    for group in groups:
        if not any(group in members for members in groups.values()):
            for task in _leaves(group, groups, frozenset()):
                tops.setdefault(task, set()).add(group)
    result: dict[str, Sheet] = {}
    members: dict[str, list[str]] = {}
    for task in single:
        found = tops.get(task, set())
        if len(found) == 1:
            members.setdefault(next(iter(found)), []).append(task)
        else:
            result[task] = single[task]
    for group, tasks in members.items():
        first = single[tasks[0]]
        alike = (first.metric, first.filter, first.higher_is_better)
        if any((single[t].metric, single[t].filter, single[t].higher_is_better) != alike for t in tasks):
            result |= {task: single[task] for task in tasks}
        else:
            result[clean_text(group)] = _pool(clean_text(group), [single[task] for task in tasks])
    return result


def _pool(name: str, sheets: list[Sheet]) -> Sheet:
    first = sheets[0]
    return Sheet(
        benchmark=name,
        split="test",
        metric=first.metric,
        filter=first.filter,
        items={
            f"{sheet.benchmark}:{key}": item._replace(
                cluster=None if item.cluster is None else f"{sheet.benchmark}:{item.cluster}"
            )
            for sheet in sheets
            for key, item in sheet.items.items()
        },
        n_expected=sum(sheet.n_expected for sheet in sheets),
        higher_is_better=first.higher_is_better,
        measures={
            measure: {
                f"{sheet.benchmark}:{key}": part
                for sheet in sheets
                for key, part in sheet.measures[measure].items()
            }
            for measure in first.measures
            if all(measure in sheet.measures for sheet in sheets)
        },
        protocol=json.dumps(sorted({sheet.protocol for sheet in sheets if sheet.protocol is not None})),
    )


def _leaves(group: str, groups: Mapping[str, list[str]], above: frozenset[str]) -> list[str]:
    """Return the tasks below a group; a group inside itself ends there."""
    if group not in groups or group in above or not groups[group]:
        return [group]
    inner = above | {group}
    return [task for member in groups[group] for task in _leaves(member, groups, inner)]


def _aggregation(run: HarnessRun, task: str, metric: str) -> str | None:
    metric_list: Any = run.configs.get(task, {}).get("metric_list")
    if isinstance(metric_list, list):
        for entry in cast(list[Any], metric_list):
            if isinstance(entry, dict):
                found = cast(dict[str, Any], entry)
                if found.get("metric") == metric and isinstance(found.get("aggregation"), str):
                    return clean_text(found["aggregation"])[:80]
    return None


def _protocol(run: HarnessRun, task: str) -> str:
    config = run.configs.get(task, {})
    kept = {key: config.get(key) for key in ("num_fewshot", "generation_kwargs", "repeats", "output_type")}
    return json.dumps(kept, sort_keys=True)


def _is_share(measured: Measured) -> bool:
    return bool(measured) and all(below == 1.0 and 0.0 <= value <= 1.0 for value, below in measured.values())
