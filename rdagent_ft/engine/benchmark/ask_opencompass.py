"""Asking through OpenCompass, by chat, each model in a run of its own.

With the protocol `own` our items go out word for word; with `opencompass` its documented dataset configs make
the prompts from the benchmarks' own records.

Scores stay ours. A comparison of two models counts only when OpenCompass sent both the same requests,
which its own record shows (`asked_sha256`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from rdagent_ft.engine.benchmark.asked import LIFE_S, Answers, Asked, Call
from rdagent_ft.engine.benchmark.subjects import KEY_VARIABLE, Subject, records_file
from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.endpoint.asking import describe_server
from rdagent_ft.evaluation.endpoint.ends import EndpointError
from rdagent_ft.evaluation.endpoint.request import EndpointTarget, RetryRules
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE
from rdagent_ft.evaluation.opencompass.harness import run_opencompass
from rdagent_ft.evaluation.opencompass.records import short_name
from rdagent_ft.evaluation.opencompass.spec import Endpoint, OpenCompassRequest, OpenCompassTask
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.execution.outputs import clean_text
from rdagent_ft.values import content_hash

_SPOILED = ("context", "tokenizer")
"""Ends after which no answer counts: OpenCompass asked otherwise than it was told to."""


def check_opencompass(python: Path | None, tasks: tuple[EvalTask, ...], *, has_tokenizer: bool) -> Path:
    """Return the Python to use. Raises `PreflightError` for everything that can be known before asking."""
    if python is None:
        raise PreflightError(
            "--harness opencompass needs an environment with OpenCompass, and none is named",
            hint="make one (scripts/opencompass-ci.sh) and set FT_OPENCOMPASS_PYTHON to its Python, "
            "or use --harness lm-eval",
        )
    if not has_tokenizer:
        raise PreflightError(
            "OpenCompass counts tokens by itself and needs the tokenizer of the endpoint's model",
            hint="name the folder with its tokenizer.json: --tokenizer DIR",
        )
    chosen = [task.benchmark for task in tasks if task.method != "generate"]
    if chosen:
        raise PreflightError(
            f"OpenCompass asks by chat here and cannot choose by log-probability: {', '.join(chosen)}",
            hint="use --harness lm-eval --backend hf, or another suite",
        )
    return python


def check_documented(names: Iterable[str]) -> None:
    """Raise `PreflightError` for benchmarks that OpenCompass has no documented config of here."""
    unknown = [name for name in names if short_name(name) is None]
    if unknown:
        raise PreflightError(
            f"OpenCompass has no documented config here of: {', '.join(unknown)}",
            hint=f"name those that have one with --benchmarks: {', '.join(sorted(CATALOGUE))}; or leave "
            "--protocol out",
        )


def ask_opencompass(
    call: Call, subject: Subject, target: EndpointTarget, identity: dict[str, str], context: int | None
) -> Asked:
    """Ask one model everything. `context` is the length of its context; None asks the server for it.

    Raises `PreflightError` when OpenCompass cannot be asked this way.
    """
    has_tokenizer = target.tokenizer is not None
    tasks = call.subjects.tasks
    python = check_opencompass(call.settings.opencompass_python, tasks, has_tokenizer=has_tokenizer)
    out_dir = call.work / "opencompass"
    if not call.plan.resume:
        for folder in out_dir.glob(f"opencompass-{subject.role}-*"):
            shutil.rmtree(folder)
    answers: Answers = {}
    shas: dict[str, str] = {}
    seconds, failures, timed_out = 0.0, list[str](), False
    try:
        context = context or _context_of(target)
    except EndpointError as error:
        return Asked(failures={subject.role: f"{error.kind}: {clean_text(error.message)}"})
    fitting = tuple(_fitting(task, context) for task in tasks)
    limits = {
        new.benchmark: new.max_new_tokens for old, new in zip(tasks, fitting, strict=True) if old != new
    }
    for name, limit in limits.items():
        call.notice(f"{name}: an answer may have {limit} tokens, half of the served context")
    requests = _requests(subject, target, identity, context, fitting, call)
    for request in requests:
        left_s = call.left_s()
        try:
            end = run_opencompass(
                request, out_dir, python, LIFE_S if left_s is None else left_s, call.notice, lambda: False,
                os.environ.get(KEY_VARIABLE) or "none",
            )  # fmt: skip
        except JobError as error:
            failures.append(clean_text(error.message)[:300])
            continue
        seconds += end.duration_s
        if end.failure_class != "ok":
            failures.append(f"OpenCompass: {end.failure_class}: {clean_text(end.message)[:300]}")
            timed_out = timed_out or end.reason == "timeout"
        if end.failure_class in _SPOILED:
            continue
        for task in request.tasks:
            found = end.answers[task.name]
            if found.answers:
                answers[subject.role, task.task.benchmark, task.task.split] = list(found.answers)
            if found.asked_sha256 is not None:
                shorter = limits.get(task.task.benchmark)
                sha = found.asked_sha256
                shas[task.task.benchmark] = sha if shorter is None else content_hash([sha, shorter], 64)
    return Asked(
        answers,
        seconds,
        failures={subject.role: "; ".join(failures)} if failures else {},
        timed_out=frozenset({subject.role}) if timed_out else frozenset(),
        asked_sha256={subject.role: shas},
        limits={subject.role: limits} if limits else {},
    )


def refuse_other_questions(asked: Asked, base: dict[str, str]) -> Asked:
    """Drop the tuned model's answers to questions that the base was asked otherwise.

    `base`: benchmark -> `asked_sha256` of the base's answers, of this call or a stored result.
    """
    tuned = asked.asked_sha256.get("tuned", {})
    other = sorted(name for name, sha in tuned.items() if name in base and base[name] != sha)
    if not other:
        return asked
    kept = {key: found for key, found in asked.answers.items() if key[0] != "tuned" or key[1] not in other}
    reason = f"OpenCompass sent base and tuned different requests: {', '.join(other)}"
    return asked._replace(answers=kept, failures=asked.failures | {"tuned": reason})


def _requests(
    subject: Subject, target: EndpointTarget, identity: dict[str, str], context: int,
    tasks: tuple[EvalTask, ...], call: Call,
) -> list[OpenCompassRequest]:  # fmt: skip
    """Return one request a temperature: OpenCompass has one temperature a model."""
    assert target.tokenizer is not None
    groups: dict[float, list[EvalTask]] = {}
    for task in tasks:
        groups.setdefault(task.temperature, []).append(task)
    try:
        endpoint = Endpoint(
            role=subject.role,
            served_name=target.model,
            fingerprint=content_hash({**identity, "model": target.model}, n_chars=32),
            base_url=target.base_url,
            tokenizer_dir=target.tokenizer.absolute(),
            context_tokens=context,
        )
        return [
            OpenCompassRequest(
                endpoint=endpoint,
                tasks=tuple(_task(task, call) for task in group),
                concurrency=min(call.plan.batch_size, 512),
            )
            for group in groups.values()
        ]
    except ValidationError as error:
        reasons = "; ".join(str(entry["msg"]) for entry in error.errors()[:5])
        raise PreflightError(f"OpenCompass cannot ask this: {clean_text(reasons)[:500]}") from None


def _fitting(task: EvalTask, context: int) -> EvalTask:
    """Return the task with at most half of the context for an answer: the prompt needs room too."""
    return task.model_copy(update={"max_new_tokens": min(task.max_new_tokens, context // 2)})


def _task(task: EvalTask, call: Call) -> OpenCompassTask:
    if call.plan.protocol == "own":
        return OpenCompassTask(task=task)
    return OpenCompassTask(
        task=task, documented=short_name(task.benchmark), records_file=records_file(task.items_file)
    )


def _context_of(target: EndpointTarget) -> int:
    key = None if target.api_key_env is None else os.environ.get(target.api_key_env)
    found = describe_server(target, RetryRules(), key).get("max_model_len")
    if type(found) is not int or found <= 0:
        raise PreflightError(
            f"{target.base_url} does not say how long the context of {target.model!r} is, and OpenCompass "
            "must know",
            hint="see its /v1/models; vLLM names max_model_len there. Or use --harness lm-eval",
        )
    return found
