"""One benchmark call from plan to result folders: ask, score, write; what is done is always kept.

The base is asked once for its folder of results: a later call with the same items and the same base
uses its result. Answers are scored here, whoever asked for them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rdagent_ft.engine.benchmark.ask_job import Answers, Asked, ask_in_job
from rdagent_ft.engine.benchmark.ask_server import ask_endpoint, ask_own_server
from rdagent_ft.engine.benchmark.subjects import WORK_NAME, Subject, Subjects, subjects_of
from rdagent_ft.engine.executors import OpenExecutor, open_executor
from rdagent_ft.errors import PreflightError, StateError, UserError
from rdagent_ft.evaluation.code.pass_at_k_report import pass_at_k_scores
from rdagent_ft.evaluation.code.run_code import code_runner
from rdagent_ft.evaluation.ifeval_answers import find_nltk_data
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.outside import Outside
from rdagent_ft.evaluation.port import EvalRequest, EvalTask
from rdagent_ft.evaluation.results.document import (
    BenchmarkEntry,
    EngineUse,
    GenerationUse,
    ResultDocument,
    SuiteUse,
    result_status,
)
from rdagent_ft.evaluation.results.folder import entry_of, read_document, write_result
from rdagent_ft.evaluation.results.plan import BenchmarkPlan
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.score import missing_outside, score_answers
from rdagent_ft.evaluation.suites import Suite, load_suite
from rdagent_ft.execution.machine import read_machine
from rdagent_ft.settings import Settings

Notice = Callable[[str], None]
CODE_LIMIT_S = 7200.0


def run_benchmark(plan: BenchmarkPlan, settings: Settings, notice: Notice) -> Path:
    """Score the plan's models and write their result folders; return the folder of results.

    Raises `UserError` or `PreflightError` before anything costs time: bad models, missing data, scorers
    that cannot work here. A model that could not be scored leaves a result that says so.
    """
    suite = load_suite(plan.suite)
    subjects = subjects_of(plan, suite, settings.file_path)
    opened = None if plan.endpoint is not None else open_executor(settings, notice)
    outside = _outside(plan, settings, opened)
    problems = missing_outside(subjects.tasks, outside)
    if problems:
        raise UserError("answers could not be scored here", problems=tuple(problems))
    models = [] if _base_is_known(plan, suite, subjects, notice) else [subjects.base]
    wanted = [subject for subject in (*models, subjects.tuned) if subject is not None]
    if opened is not None:
        opened.make_ready()
    started = time.monotonic()
    asked = _ask(plan, settings, opened, subjects, wanted, notice)
    if asked.failure is not None:
        notice(f"not everything was answered: {asked.failure}")
    for subject in wanted:
        _write(plan, suite, subjects, subject, asked, outside, time.monotonic() - started)
    return plan.out


def _outside(plan: BenchmarkPlan, settings: Settings, opened: OpenExecutor | None) -> Outside:
    run_code = None
    if settings.executor == "docker":
        # An endpoint's answers need containers too, and only for code.
        executor = (opened or open_executor(settings, lambda _line: None)).executor
        stamp = f"{plan.started:%Y%m%d%H%M%S}"
        run_code = code_runner(
            executor, (plan.out / WORK_NAME / "code").absolute(), name=f"benchmark-{stamp}-code",
            deadline_unix=time.time() + CODE_LIMIT_S + (plan.timeout_s or 0.0),
        )  # fmt: skip
    return Outside(run_code=run_code, nltk_data=find_nltk_data(settings.file_path))


def _ask(
    plan: BenchmarkPlan, settings: Settings, opened: OpenExecutor | None, subjects: Subjects,
    wanted: list[Subject], notice: Notice,
) -> Asked:  # fmt: skip
    work = (plan.out / WORK_NAME).absolute()
    if opened is None:
        return ask_endpoint(plan, subjects, wanted, work, settings.seed, notice)
    executor = opened.executor
    device = read_machine(settings.file_path, executor.gpus()).device
    if device == "cpu" and not settings.allow_cpu:
        raise PreflightError(
            f"the {settings.executor} executor has no GPU, and scoring on CPU was not allowed",
            hint="set FT_ALLOW_CPU=1 to score on CPU, or ask a server with --endpoint",
        )
    if plan.backend == "server":
        python = settings.serve_python if executor.name == "local" else None
        return ask_own_server(
            executor, plan, subjects, wanted, work, device=device, python=python, seed=settings.seed,
            notice=notice,
        )  # fmt: skip
    request = EvalRequest(
        models=tuple(subject.model for subject in wanted if subject.model is not None),
        tasks=subjects.tasks,
        prompt_format=subjects.prompt_format,
        batch_size=plan.batch_size,
        device=device,
    )
    name = f"benchmark-{plan.started:%Y%m%d-%H%M%S-%f}"
    return ask_in_job(
        executor, request, work / name, name, timeout_s=plan.timeout_s, needs_gpu=device == "cuda",
        notice=notice,
    )  # fmt: skip


def _base_is_known(plan: BenchmarkPlan, suite: Suite, subjects: Subjects, notice: Notice) -> bool:
    """Return whether the base's result is there already: same model, items, template and engine."""
    if subjects.base is None or not (plan.base_folder / "benchmark.json").is_file():
        return False
    try:
        known = read_document(plan.base_folder)
    except StateError:
        return False
    same = (
        known.status == "ok"
        and known.model.fingerprint is not None
        and known.model.fingerprint == subjects.base.identity.fingerprint
        and known.model.chat_template_sha == subjects.base.identity.chat_template_sha
        and known.suite == _suite_use(plan, suite)
        and known.engine == _engine(plan)
    )
    if same:
        notice(f"the base model's result of {known.created} is used again")
    return same


def _write(
    plan: BenchmarkPlan, suite: Suite, subjects: Subjects, subject: Subject, asked: Asked, outside: Outside,
    seconds: float,
) -> None:  # fmt: skip
    folder = plan.base_folder if subject.role == "base" else plan.tuned_folder
    samples: dict[str, list[SampleRow]] = {}
    entries: dict[str, BenchmarkEntry] = {}
    for task in subjects.tasks:
        rows = _rows(task, subject.role, asked.answers, outside)
        if rows:
            samples[task.benchmark] = rows
            entries[task.benchmark] = _entry(suite, task, rows)
    complete = subject.role not in _unfinished(subjects, asked)
    document = ResultDocument(
        run_id=f"benchmark-{plan.started:%Y%m%d-%H%M%S}",
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        status=result_status(
            entries,
            n_planned=len(subjects.tasks),
            timed_out=asked.timed_out and not complete,
            failed=asked.failure is not None and not complete,
        ),
        failure=None if complete else asked.failure,
        model=subject.identity,
        suite=_suite_use(plan, suite),
        engine=_engine(plan),
        generation=GenerationUse(
            protocol=subjects.prompt_format, max_tokens=max(task.max_new_tokens for task in subjects.tasks)
        ),
        benchmarks=entries,
        timings={"asked_s": round(asked.seconds, 3), "total_s": round(seconds, 3)},
    )
    write_result(folder, document, samples)
    _keep_harness_files(plan, subject, folder)


def _rows(task: EvalTask, role: str, answers: Answers, outside: Outside) -> list[SampleRow]:
    found = answers.get((role, task.benchmark, task.split), [])
    return score_answers(task, read_items(task.items_file, task.n_items), found, outside) if found else []


def _unfinished(subjects: Subjects, asked: Asked) -> set[str]:
    """Return the roles that lack an answer to some question."""
    wanted = {task.benchmark: task.n_items * task.repeats for task in subjects.tasks}
    roles = {subject.role for subject in (subjects.base, subjects.tuned) if subject is not None}
    return {
        role
        for role in roles
        for benchmark, n in wanted.items()
        if len(asked.answers.get((role, benchmark, "test"), [])) < n
    }


def _entry(suite: Suite, task: EvalTask, rows: list[SampleRow]) -> BenchmarkEntry:
    used = suite.benchmarks[task.benchmark]
    extra: dict[str, float | None] = {}
    if task.repeats > 1 and task.scorer == "code_pass":
        found = pass_at_k_scores(rows, scorer=task.scorer, n_expected=task.n_items)
        extra = {f"pass@{k}": None if score is None else score.value for k, score in found.items()}
    return entry_of(
        rows, scorer=task.scorer, n_expected=task.n_items, metric=_metric(task), role=used.role, extra=extra
    )


def _metric(task: EvalTask) -> str:
    return {"ifeval": "prompt_strict", "code_pass": "pass@1"}.get(task.scorer, task.scorer)


def _suite_use(plan: BenchmarkPlan, suite: Suite) -> SuiteUse:
    seeds = {used.seed for used in suite.benchmarks.values()}
    return SuiteUse(
        name=suite.name,
        version=suite.version,
        items_sha=suite.items_sha,
        seed=min(seeds, default=None),
        limit=plan.limit,
    )


def _engine(plan: BenchmarkPlan) -> EngineUse:
    if plan.endpoint is not None:
        return EngineUse(server=plan.endpoint.url, client=f"lm-eval {version('lm-eval')}")
    server = "vllm" if plan.backend == "server" else "lm-eval hf"
    return EngineUse(
        server=server, client=f"lm-eval {version('lm-eval')}", args={"batch_size": plan.batch_size}
    )


def _keep_harness_files(plan: BenchmarkPlan, subject: Subject, folder: Path) -> None:
    """Copy lm-eval's own result files of this role beside ours."""
    found = sorted((plan.out / WORK_NAME).glob(f"*/lm-eval/{subject.role}"), key=lambda p: p.stat().st_mtime)
    if found:
        shutil.copytree(found[-1], folder / "lm-eval", dirs_exist_ok=True, symlinks=False)
