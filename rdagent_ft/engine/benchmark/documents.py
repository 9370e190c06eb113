"""Result folders of a benchmark call: what is written of one model, and when a stored base result counts."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from rdagent_ft.engine.benchmark.ask_plan import CHOSEN, AskPlan
from rdagent_ft.engine.benchmark.asked import Asked, HarnessFiles
from rdagent_ft.engine.benchmark.subjects import Subject, Subjects
from rdagent_ft.engine.judged_results import report_warnings
from rdagent_ft.errors import JobError, StateError, UserError
from rdagent_ft.evaluation.code.pass_at_k_report import pass_at_k_scores
from rdagent_ft.evaluation.judge.status import JudgeReport
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE
from rdagent_ft.evaluation.opencompass.records import short_name
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.results.document import (
    BenchmarkEntry,
    EngineUse,
    GenerationUse,
    JudgeUse,
    ResultDocument,
    SuiteUse,
    result_status,
)
from rdagent_ft.evaluation.results.folder import DOCUMENT_NAME, entry_of, read_folder, write_result
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.suites import Suite
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import write_json

MAX_RESULTS_BYTES = 128 << 20
ASKED_SHA256 = "asked_sha256"
"""Key of `EngineUse.args`: benchmark -> hash of the requests that OpenCompass sent."""
SHORTER_ANSWERS = "max_new_tokens"
"""Key of `EngineUse.args`: benchmark -> tokens an answer could have, where the context took some away."""


def known_base(plan: AskPlan, suite: Suite, subjects: Subjects, device: str) -> ResultDocument | None:
    """Return the stored result of this very base: same weights, items, template, engine and protocol.

    None when there is none, when it is damaged or not complete. A complete result that cannot decide
    (answers cut by the limit) counts: asking again would give the same.
    """
    if subjects.base is None or not (plan.base_folder / DOCUMENT_NAME).is_file():
        return None
    try:
        known = read_folder(plan.base_folder).document
    except StateError:
        return None
    if known is None or known.model.fingerprint is None:
        return None
    whole = all(entry.complete and entry.unscored == 0 for entry in known.benchmarks.values())
    args = {
        key: value for key, value in known.engine.args.items() if key not in (ASKED_SHA256, SHORTER_ANSWERS)
    }
    same = (
        (known.status == "ok" or (known.status == "invalid" and whole))
        and known.model.fingerprint == subjects.base.identity.fingerprint
        and known.model.chat_template_sha == subjects.base.identity.chat_template_sha
        and known.suite == _suite_use(plan, suite)
        and known.engine.model_copy(update={"args": args}) == _engine(plan, device)
        and known.generation == _generation(plan, subjects)
    )
    return known if same else None


def refuse_foreign_base(plan: AskPlan, suite: Suite, subjects: Subjects) -> None:
    """Raise `UserError` when the summary would compare with a stored base that does not belong here.

    Only where this call does not score the base itself, so that what is stored would be taken.
    """
    if plan.has_base or not (plan.base_folder / DOCUMENT_NAME).is_file():
        return
    known = read_folder(plan.base_folder).document
    if known is None:
        return
    parent = subjects.tuned.identity.parent
    reason = None
    if parent is not None and known.model.fingerprint not in (None, parent):
        reason = "of another model than the one that was tuned"
    elif known.suite != _suite_use(plan, suite):
        reason = "on other items"
    elif (known.generation.protocol == "opencompass") != (plan.protocol == "opencompass"):
        reason = f"by another protocol ({known.generation.protocol})"
    if reason is not None:
        raise UserError(
            f"{plan.base_folder} holds a base result {reason}; the summary would compare with it",
            hint="score the base too (--base DIR), or name another folder of results (--out DIR)",
        )


def write_document(
    plan: AskPlan, suite: Suite, subjects: Subjects, subject: Subject, asked: Asked,
    rows: dict[str, list[SampleRow]], *, device: str, total_s: float, judged: JudgeReport | None = None,
) -> None:  # fmt: skip
    """Write the result folder of one model: document, answers, lm-eval's own files.

    `rows`: benchmark -> scored answers; not empty. `judged`: what a judge's measures in them are worth.
    Raises `OSError` when it cannot be written.
    """
    folder = plan.base_folder if subject.role == "base" else plan.tuned_folder
    tasks = {task.benchmark: task for task in subjects.tasks}
    entries = {name: _entry(plan, suite, tasks[name], found) for name, found in rows.items()}
    failure = asked.failures.get(subject.role)
    timed_out = failure is not None and subject.role in asked.timed_out
    document = ResultDocument(
        run_id=f"benchmark-{plan.started:%Y%m%d-%H%M%S}",
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        status=result_status(
            entries, n_planned=len(tasks), timed_out=timed_out, failed=failure is not None and not timed_out
        ),
        failure=failure,
        model=subject.identity,
        suite=_suite_use(plan, suite),
        engine=_engine(plan, device, asked.asked_sha256.get(subject.role), asked.limits.get(subject.role)),
        generation=_generation(plan, subjects),
        judge=_judge_use(judged),
        benchmarks=entries,
        timings={"asked_s": round(asked.seconds, 3), "total_s": round(total_s, 3)},
        warnings=() if judged is None else report_warnings(judged),
    )
    write_result(folder, document, rows)
    _keep_harness_files(asked.files.get(subject.role, ()), folder / "lm-eval")


def write_judged_base(
    plan: AskPlan, known: ResultDocument, suite: Suite, subjects: Subjects,
    rows: dict[str, list[SampleRow]], judged: JudgeReport | None,
) -> None:  # fmt: skip
    """Write a stored base result again, with the measures of another judge than it was judged by."""
    tasks = {task.benchmark: task for task in subjects.tasks}
    entries = {name: _entry(plan, suite, tasks[name], found) for name, found in rows.items()}
    update = {
        "benchmarks": entries,
        "judge": _judge_use(judged),
        "warnings": () if judged is None else report_warnings(judged),
    }
    write_result(plan.base_folder, known.model_copy(update=update), rows)


def _judge_use(judged: JudgeReport | None) -> JudgeUse:
    if judged is None:
        return JudgeUse()
    found = judged.calibration
    shown = None if found is None else {"status": found.status, "key": found.key, "kappa": found.kappa}
    return JudgeUse(
        status=judged.status,
        model=judged.model,
        rubric=judged.rubric,
        calibration=shown,
        unscored=0 if judged.health is None else judged.health.n_unscored,
        cost_usd=judged.cost_usd,
    )


def _entry(plan: AskPlan, suite: Suite, task: EvalTask, rows: list[SampleRow]) -> BenchmarkEntry:
    extra: dict[str, float | None] = {}
    if task.repeats > 1 and task.scorer == "code_pass":
        found = pass_at_k_scores(rows, scorer=task.scorer, n_expected=task.n_items)
        extra = {f"pass@{k}": None if score is None else score.value for k, score in found.items()}
    metric = {"ifeval": "prompt_strict", "code_pass": "pass@1"}.get(task.scorer, task.scorer)
    role = suite.benchmarks[task.benchmark].role
    # Part of the metric's name, so that a comparison with answers to other words is refused.
    short = short_name(task.benchmark) if plan.protocol == "opencompass" else None
    asked = None if short is None else f"asked as {CATALOGUE[short].full_name}"
    return entry_of(
        rows, scorer=task.scorer, n_expected=task.n_items, metric=metric, role=role, extra=extra,
        filter_name=asked,
    )  # fmt: skip


def _suite_use(plan: AskPlan, suite: Suite) -> SuiteUse:
    seeds = {used.seed for used in suite.benchmarks.values()}
    return SuiteUse(
        name=CHOSEN if plan.benchmarks else suite.name,
        version=suite.version,
        items_sha=suite.items_sha,
        seed=min(seeds, default=None),
        limit=plan.limit,
    )


def _engine(
    plan: AskPlan, device: str, shas: dict[str, str] | None = None, limits: dict[str, int] | None = None
) -> EngineUse:
    client = plan.harness if plan.harness == "opencompass" else f"lm-eval {version('lm-eval')}"
    found = {ASKED_SHA256: shas, SHORTER_ANSWERS: limits}
    more = {key: value for key, value in found.items() if value}
    if plan.endpoint is not None:
        return EngineUse(server=plan.endpoint.url, client=client, args={**more})
    server = "vllm" if plan.backend == "server" else f"lm-eval {plan.engine}"
    args = {"batch_size": plan.batch_size, "device": device, **more}
    return EngineUse(server=server, client=client, args=args)


def _generation(plan: AskPlan, subjects: Subjects) -> GenerationUse:
    protocol = "opencompass" if plan.protocol == "opencompass" else subjects.prompt_format
    return GenerationUse(protocol=protocol, max_tokens=max(task.max_new_tokens for task in subjects.tasks))


def _keep_harness_files(found: tuple[HarnessFiles, ...], place: Path) -> None:
    """Copy lm-eval's own files of this role beside ours; those of an older result do not stay.

    Of a job that was cut off, only the tasks that count are copied: the others were asked again.
    """
    shutil.rmtree(place, ignore_errors=True)
    for folder, tasks in found:
        for results in sorted(folder.glob("results_*.json")):
            try:
                document = read_json_file(folder, results.name, MAX_RESULTS_BYTES)
            except JobError:
                continue  # cut off while it was written: our own answers are whole
            stamp = results.stem.removeprefix("results_")
            for task in sorted(tasks):
                samples = folder / f"samples_{task}_{stamp}.jsonl"
                if samples.is_file() and not samples.is_symlink():
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(samples, place / samples.name)
            write_json(place / results.name, _only(document, tasks))


def _only(document: dict[str, Any], tasks: frozenset[str]) -> dict[str, Any]:
    """Return lm-eval's results without the tasks that do not count."""
    named: Any = document.get("n-samples")
    others = {name for name in cast("dict[str, Any]", named) if name not in tasks} if named else set[str]()
    return {
        key: {name: part for name, part in cast("dict[str, Any]", value).items() if name not in others}
        if isinstance(value, dict)
        else value
        for key, value in document.items()
    }
