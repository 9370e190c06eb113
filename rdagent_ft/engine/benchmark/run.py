"""One benchmark call from plan to result folders: ask, score, write; what is done is always kept.

The base is asked once for its folder of results: a later call with the same items and the same base
uses its result. Answers are scored here, whoever asked for them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.engine.benchmark.ask_job import ask_in_job
from rdagent_ft.engine.benchmark.ask_opencompass import (
    check_documented,
    check_opencompass,
    refuse_other_questions,
)
from rdagent_ft.engine.benchmark.ask_plan import AskPlan, whole_plan
from rdagent_ft.engine.benchmark.ask_server import ask_endpoint, ask_own_server
from rdagent_ft.engine.benchmark.ask_vllm import ask_in_vllm, check_vllm
from rdagent_ft.engine.benchmark.asked import RESUME, Asked, Call, Notice
from rdagent_ft.engine.benchmark.chosen import chosen_suite
from rdagent_ft.engine.benchmark.documents import (
    ASKED_SHA256,
    known_base,
    refuse_foreign_base,
    write_document,
    write_judged_base,
)
from rdagent_ft.engine.benchmark.subjects import WORK_NAME, Subject, Subjects, subjects_of
from rdagent_ft.engine.executors import OpenExecutor, open_executor
from rdagent_ft.engine.judged_results import JudgedRoles, RoleRows, judge_roles
from rdagent_ft.engine.judging import Judging, open_judging
from rdagent_ft.engine.lock import LOCK_NAME, hold_run
from rdagent_ft.errors import JobError, PreflightError, RunLockedError, UserError
from rdagent_ft.evaluation.code.run_code import code_runner
from rdagent_ft.evaluation.endpoint.ends import kind_of_os_error
from rdagent_ft.evaluation.ifeval_answers import find_nltk_data
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.outside import Outside
from rdagent_ft.evaluation.results.document import ResultDocument
from rdagent_ft.evaluation.results.plan import BenchmarkPlan
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.sample_files import read_samples
from rdagent_ft.evaluation.score import missing_outside, score_answers
from rdagent_ft.evaluation.suites import Suite, judge_wish, load_suite
from rdagent_ft.execution.machine import read_machine
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.settings import Settings

CODE_LIMIT_S = 7200.0
Device = Literal["cpu", "cuda", "endpoint"]


def run_benchmark(plan: BenchmarkPlan, settings: Settings, notice: Notice) -> Path:
    """Score the plan's models and write their result folders; return the folder of results.

    Raises `UserError` or `PreflightError` before anything costs time: bad models, missing data, scorers
    that cannot work here; `JobError` when the tuned model gave no answer or results cannot be written.
    A model that was answered for in part leaves a result that says so.
    """
    chosen = whole_plan(plan).benchmarks
    suite = chosen_suite(chosen, settings) if chosen else load_suite(plan.suite)
    return run_suite(plan, suite, settings, notice)


def run_suite(plan: BenchmarkPlan, suite: Suite, settings: Settings, notice: Notice) -> Path:
    """Do `run_benchmark` with a suite that is no shipped one."""
    work = (plan.out / WORK_NAME).absolute()
    with _telling(plan.out):
        work.mkdir(parents=True, exist_ok=True)
    with _alone(work), _telling(plan.out):
        return _run(whole_plan(plan), suite, settings, work, notice)


def _run(plan: AskPlan, suite: Suite, settings: Settings, work: Path, notice: Notice) -> Path:
    if plan.protocol == "opencompass":
        check_documented(suite.benchmarks)
    subjects = subjects_of(plan, suite, settings.file_path)
    refuse_foreign_base(plan, suite, subjects)
    opened = None if plan.endpoint is not None else open_executor(settings, notice)
    if opened is not None:
        opened.executor.reap(work)  # of a call that was killed: nobody waits for its jobs
    call = Call(plan, settings, subjects, work, None, notice)
    judging = open_judging(settings, MemoryLedger(), notice, lambda: call.left_s())
    outside = _outside(plan, settings, opened, work)._replace(grade=judging.grader if judging else None)
    problems = missing_outside(subjects.tasks, outside)
    if problems:
        raise UserError("answers could not be scored here", problems=tuple(problems))
    if plan.harness == "opencompass":
        is_known = plan.endpoint is None or plan.endpoint.tokenizer is not None
        check_opencompass(settings.opencompass_python, subjects.tasks, has_tokenizer=is_known)
    if opened is not None and plan.engine == "vllm":
        check_vllm(settings.serve_python, opened.executor.name)
    device = _device(settings, opened)
    known = known_base(plan, suite, subjects, device)
    if known is not None and judging is not None and not _is_judged(known, judging):
        # Grades of two judges are two scores: the base is asked anew then.
        known = None if any(e.metric == "rubric" for e in known.benchmarks.values()) else known
    if known is not None:
        notice(f"the base model's result of {known.created} is used again")
    models = [None if known is not None else subjects.base, subjects.tuned]
    wanted = [subject for subject in models if subject is not None]
    if opened is not None:
        opened.make_ready()
    started = time.monotonic()
    call = call._replace(ends=None if plan.timeout_s is None else started + plan.timeout_s)
    asked = _ask(call, opened, wanted, device)
    asked = refuse_other_questions(asked, asked.asked_sha256.get("base") or _stored_shas(known))
    _tell(asked, notice)
    scored: RoleRows = {
        subject.role: _rows(subjects, subject, asked, outside)
        for subject in wanted
        if _has_answered(subject, asked)
    }
    rejudged = known is not None and judging is not None and not _is_judged(known, judging)
    if known is not None and rejudged:
        scored["base"] = {
            name: read_samples(plan.base_folder / entry.samples) for name, entry in known.benchmarks.items()
        }
    judged = _judged(judging, suite, subjects, scored, settings)
    for subject in wanted:
        if rows := judged.rows.get(subject.role):
            write_document(
                plan, suite, subjects, subject, asked, rows, device=device,
                total_s=time.monotonic() - started, judged=judged.reports.get(subject.role),
            )  # fmt: skip
    if known is not None and rejudged:
        write_judged_base(plan, known, suite, subjects, judged.rows["base"], judged.reports.get("base"))
    _refuse_nothing(subjects.tuned, asked)
    if not asked.failures and all(a.unanswered is None for found in asked.answers.values() for a in found):
        _clear(work)
    return plan.out


def _is_judged(known: ResultDocument, judging: Judging) -> bool:
    """Return whether a stored result has all verdicts of this very judge."""
    return (
        known.judge.unscored == 0 and (known.judge.calibration or {}).get("key") == judging.calibration().key
    )


def _judged(
    judging: Judging | None, suite: Suite, subjects: Subjects, scored: RoleRows, settings: Settings
) -> JudgedRoles:
    """Return the rows with a judge's measures; as they are where no judge is configured."""
    if judging is None:
        return JudgedRoles(scored, {})
    wishes = {
        task.benchmark: judge_wish(suite.benchmarks[task.benchmark], task.scorer) for task in subjects.tasks
    }
    names = (subjects.tuned.identity.id,)
    try:
        return judge_roles(judging, subjects.tasks, wishes, scored, tuned_names=names, seed=settings.seed)
    finally:
        judging.close()


def _ask(call: Call, opened: OpenExecutor | None, wanted: list[Subject], device: Device) -> Asked:
    if opened is None:
        return ask_endpoint(call, wanted)
    if call.plan.backend == "server":
        return ask_own_server(opened.executor, call, wanted, device)
    if call.plan.engine == "vllm":
        return ask_in_vllm(opened.executor, call, wanted, device)
    return ask_in_job(opened.executor, call, wanted, device)


def _device(settings: Settings, opened: OpenExecutor | None) -> Device:
    if opened is None:
        return "endpoint"
    device = read_machine(settings.file_path, opened.executor.gpus()).device
    if device == "cpu" and not settings.allow_cpu:
        raise PreflightError(
            f"the {settings.executor} executor has no GPU, and scoring on CPU was not allowed",
            hint="set FT_ALLOW_CPU=1 to score on CPU, or ask a server with --endpoint",
        )
    return device


def _outside(plan: BenchmarkPlan, settings: Settings, opened: OpenExecutor | None, work: Path) -> Outside:
    run_code = None
    if settings.executor == "docker":
        # An endpoint's answers need containers too, and only for code.
        executor = (opened or open_executor(settings, lambda _line: None)).executor
        stamp = f"{plan.started:%Y%m%d%H%M%S}"
        run_code = code_runner(
            executor, work / "code", name=f"benchmark-{stamp}-code",
            deadline_unix=time.time() + CODE_LIMIT_S + (plan.timeout_s or 0.0),
        )  # fmt: skip
    return Outside(run_code=run_code, nltk_data=find_nltk_data(settings.file_path))


def _rows(subjects: Subjects, subject: Subject, asked: Asked, outside: Outside) -> dict[str, list[SampleRow]]:
    """Return benchmark -> scored answers, for benchmarks that have any."""
    rows: dict[str, list[SampleRow]] = {}
    for task in subjects.tasks:
        found = asked.answers.get((subject.role, task.benchmark, task.split))
        if found:
            rows[task.benchmark] = score_answers(
                task, read_items(task.items_file, task.n_items), found, outside
            )
    return rows


def _stored_shas(known: ResultDocument | None) -> dict[str, str]:
    found: Any = None if known is None else known.engine.args.get(ASKED_SHA256)
    stored = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {name: str(sha) for name, sha in stored.items()}


def _tell(asked: Asked, notice: Notice) -> None:
    for role, reason in asked.failures.items():
        notice(f"{role}: not everything was answered: {reason}")
    if asked.failures:
        notice(RESUME)


def _refuse_nothing(tuned: Subject, asked: Asked) -> None:
    """Raise `JobError` when the tuned model gave no answer: there is no result to show."""
    if not _has_answered(tuned, asked):
        said = [a.unanswered for key, found in asked.answers.items() if key[0] == tuned.role for a in found]
        reason = asked.failures.get(tuned.role) or next(filter(None, said), "no reason is known")
        raise JobError(f"{tuned.identity.id} gave no answer: {reason}", hint=RESUME)


def _has_answered(subject: Subject, asked: Asked) -> bool:
    """Return whether there is an answer of the model; a question that got none is no answer."""
    return any(
        answer.unanswered is None
        for (role, _, _), found in asked.answers.items()
        for answer in found
        if role == subject.role
    )


def _clear(work: Path) -> None:
    """Remove what only an unfinished call needs."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _alone(work: Path) -> Generator[None]:
    """Hold the work folder. Raises `RunLockedError` when another call writes there."""
    with _as_call(work), hold_run(work):
        yield


@contextmanager
def _as_call(work: Path) -> Generator[None]:
    try:
        yield
    except RunLockedError:
        owner = (work / LOCK_NAME).read_text(encoding="utf-8").strip()
        raise RunLockedError(
            f"another benchmark call writes to {work.parent}: {owner}",
            hint="wait for it to end, or name another folder: --out DIR",
        ) from None


@contextmanager
def _telling(out: Path) -> Generator[None]:
    """Turn a full disk or a folder that cannot be written into a `JobError` that names it."""
    try:
        yield
    except OSError as error:
        kind = kind_of_os_error(error)
        place = str(error.filename or out)
        if kind is None or (kind == "unwritable" and not place.startswith(str(out))):
            raise
        raise JobError(f"results cannot be written: {place}: {error.strerror}", hint=RESUME) from None
