"""Asking models in a job with lm-eval's hf or vllm backend, watched as the benchmarking guide says.

Silence for a minute is told once, progress every half minute, and at the end of the time the job is
stopped; tasks that were finished by then are kept, and a resumed call asks only the others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.benchmark.asked import (
    LIFE_S,
    Answers,
    Asked,
    Call,
    HarnessFiles,
    Notice,
    together,
)
from rdagent_ft.engine.benchmark.attempts import (
    finished_before,
    harness_files,
    identities_of,
    new_attempt,
    without,
)
from rdagent_ft.engine.benchmark.subjects import Subject
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.lm_eval_harness import (
    JobBackend,
    LmEvalHarness,
    adapters_without_effect,
    parse_finished,
)
from rdagent_ft.evaluation.lm_eval_job import FILES_FLAG
from rdagent_ft.evaluation.port import EvalRequest
from rdagent_ft.execution.outputs import clean_text, read_log
from rdagent_ft.execution.port import Executor, JobHandle, JobResult, JobSpec
from rdagent_ft.execution.tail import JsonLinesTail
from rdagent_ft.training.failures import classify
from rdagent_ft.training.plan import read_failure

WARN_AFTER_S = 60.0
PROGRESS_EVERY_S = 30.0
POLL_S = 0.2


class JobWay(NamedTuple):
    """How a job loads its models.

    Attributes:
        backend: lm-eval's backend.
        name: tells several jobs of one call apart.
        python: as `JobSpec.argv` takes it; another one than `python` is an environment of its own.
        env: variables of the job.
        versions: of what answers, where the job's environment is not this one.
    """

    backend: JobBackend = "hf"
    name: str = ""
    python: str = "python"
    env: dict[str, str] = {}
    versions: dict[str, str] = {}


TRANSFORMERS = JobWay()


def ask_in_job(
    executor: Executor, call: Call, models: list[Subject], device: str, way: JobWay = TRANSFORMERS
) -> Asked:
    """Ask in a job what earlier calls left unasked; never raises for what the job did.

    Raises `JobError` when the job cannot be started, and whatever interrupts it, after cancelling it.
    """
    request = EvalRequest(
        models=tuple(subject.model for subject in models if subject.model is not None),
        tasks=call.subjects.tasks,
        prompt_format=call.subjects.prompt_format,
        batch_size=call.plan.batch_size,
        device=device,
    )
    fingerprints = {subject.role: subject.identity.fingerprint or "" for subject in models}
    identities = identities_of(request, fingerprints, way.versions)
    answers: Answers = {}
    files: dict[str, tuple[HarnessFiles, ...]] = {}
    if call.plan.resume:
        answers, files = finished_before(call.work, request, identities)
        call.notice(f"{len(answers)} of {len(request.pairs())} tasks were finished by an earlier call")
    rest = without(request, answers)
    if not rest.models:
        return Asked(answers=answers, files=files)
    name = f"{call.plan.started:%Y%m%d-%H%M%S-%f}" + (f"-{way.name}" if way.name else "")
    out_dir = new_attempt(call.work, name, identities)
    found = _run(executor, call, rest, out_dir, f"benchmark-{name}", way)
    for role in dict.fromkeys(role for role, _, _ in found.answers):
        files[role] = (*files.get(role, ()), harness_files(out_dir, role, found.answers))
    return together([Asked(answers=answers), found._replace(files=files)])


def _run(
    executor: Executor, call: Call, request: EvalRequest, out_dir: Path, name: str, way: JobWay
) -> Asked:
    inputs = {f"model-{n}": model.path for n, model in enumerate(request.models)}
    inputs |= {f"adapter-{n}": m.adapter for n, m in enumerate(request.models) if m.adapter is not None}
    needs_gpu = request.device == "cuda"
    left_s = call.left_s()
    spec = JobSpec(
        attempt_id=name,
        kind="evaluate",
        argv=(way.python, *LmEvalHarness(way.backend).prepare(request, out_dir)[1:], FILES_FLAG),
        out_dir=out_dir,
        inputs=inputs | {"items": request.tasks[0].items_file.parent},
        labels={"stage": "benchmark", "run_dir": str(call.work)},
        env=way.env | ({"RDAGENT_FT_NEEDS_GPU": "1"} if needs_gpu else {}),
        deadline_unix=time.time() + (LIFE_S if left_s is None else left_s),
        needs_gpu=needs_gpu,
    )
    handle = executor.submit(spec)
    try:
        _follow(executor, handle, out_dir, left_s, call.notice)
    except BaseException:
        executor.cancel(handle)
        raise
    return _ended(executor, handle, request, out_dir, executor.collect(handle))


def _ended(
    executor: Executor, handle: JobHandle, request: EvalRequest, out_dir: Path, result: JobResult
) -> Asked:
    """Return what an ended job left. Answers through an adapter that changes nothing do not count."""
    seconds = result.ended_unix - result.started_unix
    failed = classify(read_log(executor.log_path(handle)), result=result, failure_json=read_failure(out_dir))
    reason: str | None = None
    if failed is None:
        try:
            answers = LmEvalHarness().parse(request, out_dir)
        except JobError as error:
            reason = clean_text(error.message)[:300]
            answers = parse_finished(request, out_dir)
    else:
        reason = f"{clean_text(failed.message)[:300]} [{failed.failure_class}]"
        answers = parse_finished(request, out_dir)
    try:
        inert = adapters_without_effect(out_dir)
    except JobError:
        inert = ()
    short = {
        model.role
        for model, task in request.pairs()
        if (model.role, task.benchmark, task.split) not in answers
    }
    failures = dict.fromkeys(sorted(short), reason or "no answers") | dict.fromkeys(
        inert, "the adapter changes no output"
    )
    return Asked(
        answers={key: found for key, found in answers.items() if key[0] not in inert},
        seconds=seconds,
        failures=failures,
        timed_out=frozenset(short) if result.reason == "deadline" else frozenset(),
    )


def _follow(
    executor: Executor, handle: JobHandle, out_dir: Path, left_s: float | None, notice: Notice
) -> None:
    tail = JsonLinesTail(out_dir / "progress.jsonl")
    started = last_sign = last_told = time.monotonic()
    warned, done = False, "no answers yet"
    while executor.poll(handle).state == "running":
        time.sleep(POLL_S)
        now = time.monotonic()
        for line in tail.read_new()[-1:]:
            place = f"{line.get('role')}, {line.get('benchmark')}"
            done = f"{line.get('done')}/{line.get('total')} answers ({place})"
            last_sign, warned = now, False
        if now - last_sign > WARN_AFTER_S and not warned:
            notice(f"warning: no new answers for {now - last_sign:.0f} s")
            warned = True
        if now - last_told >= PROGRESS_EVERY_S:
            left = "" if left_s is None else f", {max(0.0, left_s - (now - started)):.0f} s left"
            notice(f"{done}, {now - started:.0f} s elapsed{left}")
            last_told = now
