"""Asking models over HTTP: a server that this call starts, or an endpoint that the user has.

One client a model, so that a model that was answered for stays answered whatever the next one meets.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.benchmark.ask_opencompass import ask_opencompass
from rdagent_ft.engine.benchmark.asked import LIFE_S, Answers, Asked, Call, not_asked, together
from rdagent_ft.engine.benchmark.attempts import harness_files, lm_eval_folder
from rdagent_ft.engine.benchmark.subjects import KEY_VARIABLE, Subject
from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness, parse_partial
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget, RetryRules, problems_of
from rdagent_ft.evaluation.endpoint.watch import ServerProbe, run_client
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.serving.adapter_form import serving_form
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.serving.server import ModelServer, start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.outputs import clean_text
from rdagent_ft.execution.port import Executor
from rdagent_ft.values import content_hash

N_PROBES = 8
MAX_LORA_RANK = 64
MAX_MODEL_LEN = 16_384
RETRY = RetryRules()
_HINTS = {
    "auth": f"the key belongs into the environment variable {KEY_VARIABLE}",
    "bad_request": "see the names under its /v1/models",
    "server_gone": "is a server running at this address?",
}


class _Address(NamedTuple):
    """Where and how one model is asked. `identity` pins what an address cannot: weights and versions."""

    target: EndpointTarget
    identity: dict[str, str]
    server: ServerProbe | None = None
    context_tokens: int | None = None


def ask_endpoint(call: Call, models: list[Subject]) -> Asked:
    """Ask models behind the user's own endpoint, by chat.

    Raises `PreflightError` for benchmarks that cannot be asked there, before anything is sent.
    """
    endpoint = call.plan.endpoint
    assert endpoint is not None
    targets = {
        subject.role: EndpointTarget(
            role=subject.role,
            base_url=endpoint.url,
            model=subject.served_name or "",
            protocol="chat",
            api_key_env=KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else None,
            tokenizer=endpoint.tokenizer,
            concurrency=call.plan.batch_size,
        )
        for subject in models
    }
    _refuse(_request(call, tuple(targets.values()), {"url": endpoint.url}))
    parts: list[Asked] = []
    for subject in models:
        address = _Address(targets[subject.role], {"url": endpoint.url})
        parts.append(_ask(call, subject, address))
    return together(parts)


def ask_own_server(executor: Executor, call: Call, models: list[Subject], device: str) -> Asked:
    """Serve each model folder in turn, adapters beside their base, and ask them.

    Raises `PreflightError` when a server cannot be had here or an adapter cannot be served.
    """
    refuse_merged(models)
    python = call.settings.serve_python if executor.name == "local" else None
    if executor.name == "local" and python is None:
        raise PreflightError(
            "no environment with vLLM is named", hint="set FT_SERVE_PYTHON, or use --backend hf"
        )
    parts: list[Asked] = []
    for folder in dict.fromkeys(subject.model.path for subject in models if subject.model is not None):
        group = [subject for subject in models if subject.model is not None and subject.model.path == folder]
        left_s = call.left_s()
        if left_s == 0.0:
            parts.append(not_asked(group, "the time was up before it was asked", timed_out=True))
            continue
        spec = ServerSpec(
            model_dir=folder,
            max_model_len=min(group[0].max_positions or MAX_MODEL_LEN, MAX_MODEL_LEN),
            max_lora_rank=MAX_LORA_RANK,
            device="cuda" if device == "cuda" else "cpu",
            seed=call.settings.seed,
        )
        try:
            with _served(executor, call, spec, left_s, python) as server:
                parts += [_ask_served(call, subject, server, spec) for subject in group]
        except ServerError as error:
            said = f"server: {clean_text(error.message)}" + (f" ({error.hint})" if error.hint else "")
            asked = {role for part in parts for role in (*(k[0] for k in part.answers), *part.failures)}
            left = [subject for subject in group if subject.role not in asked]
            parts.append(not_asked(left, said, timed_out=error.kind == "deadline"))
    return together(parts)


def _served(
    executor: Executor, call: Call, spec: ServerSpec, left_s: float | None, python: Path | None
) -> ModelServer:
    name = f"benchmark-{time.time_ns() // 1000}"
    # Short names: the path of the socket in it has only about 100 characters.
    out_dir, adapters = call.work / f"s{name[-6:]}" / "job", call.work / f"s{name[-6:]}" / "adapters"
    adapters.mkdir(parents=True)
    call.notice(f"starting a server of {spec.model_dir.name}")
    return start_server(
        executor, spec, out_dir, adapters, attempt_id=name,
        deadline_unix=time.time() + (LIFE_S if left_s is None else left_s),
        labels={"stage": "benchmark", "run_dir": str(call.work)}, python=python,
        cache_dir=call.work / "vllm-cache" if executor.name == "local" else None,
    )  # fmt: skip


def _ask_served(call: Call, subject: Subject, server: ModelServer, spec: ServerSpec) -> Asked:
    assert subject.model is not None
    task = call.subjects.tasks[0]
    name = server.served_name
    if subject.model.adapter is not None:
        name = subject.role
        probes = [item.prompt for item in read_items(task.items_file, task.n_items)][:N_PROBES]
        try:
            server.load(name, subject.model.adapter, probes)
        except ServerError as error:
            if error.kind not in ("inert", "nan", "adapter"):
                raise
            return not_asked([subject], clean_text(error.message))
    target = EndpointTarget(
        role=subject.role,
        base_url=server.base_url,
        model=name,
        protocol="chat" if call.plan.harness == "opencompass" else "completions",
        tokenizer=subject.model.path,
        concurrency=call.plan.batch_size,
    )
    identity = {"weights": subject.identity.fingerprint or "", **server.versions()}
    return _ask(call, subject, _Address(target, identity, server, spec.max_model_len))


def _ask(call: Call, subject: Subject, address: _Address) -> Asked:
    left_s = call.left_s()
    if call.plan.harness == "opencompass":
        return ask_opencompass(call, subject, address.target, address.identity, address.context_tokens)
    request = _request(call, (address.target,), address.identity)
    folder = call.work / f"client-{subject.role}"
    # Without --resume everything is asked anew; lm-eval's files of an earlier end would stand beside ours.
    shutil.rmtree(lm_eval_folder(folder, subject.role) if call.plan.resume else folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if left_s == 0.0:
        late = not_asked([subject], "the time was up before it was asked", timed_out=True)
        return late._replace(answers=_some(parse_partial(request, folder)))
    call.notice(f"asking {subject.identity.id} ({subject.role})")
    end = run_client(
        request, folder, timeout_s=left_s, notice=call.notice, server=address.server,
        should_stop=lambda: False,
    )  # fmt: skip
    message = end.message
    if end.is_complete:
        if message:
            call.notice(f"{subject.role}: {clean_text(message)}")
        try:
            answers = EndpointHarness().parse(request, folder)
            files = {subject.role: (harness_files(folder, subject.role, answers),)}
            return Asked(answers, end.seconds, files=files)
        except JobError as error:
            message = error.message
    hint = _HINTS.get(end.status)
    reason = f"{end.status}: {message}" + (f" ({hint})" if hint else "")
    return Asked(
        _some(parse_partial(request, folder)),
        end.seconds,
        failures={subject.role: clean_text(reason)[:600]},
        timed_out=frozenset({subject.role}) if end.status == "timeout" else frozenset(),
    )


def _request(call: Call, targets: tuple[EndpointTarget, ...], identity: dict[str, str]) -> EndpointRequest:
    return EndpointRequest(
        targets=targets,
        tasks=call.subjects.tasks,
        prompt_format=call.subjects.prompt_format,
        fingerprint=content_hash(identity, n_chars=32),
        seed=call.settings.seed,
        retry=RETRY,
    )


def _refuse(request: EndpointRequest) -> None:
    problems = problems_of(request)
    if problems:
        raise PreflightError("this suite cannot be asked at this endpoint", problems=problems)


def refuse_merged(models: list[Subject]) -> None:
    """Raise `PreflightError` for an adapter that vLLM cannot apply beside its base."""
    for subject in models:
        if subject.model is None or subject.model.adapter is None:
            continue
        form = serving_form(subject.model.adapter, subject.model.path, MAX_LORA_RANK)
        if form.form == "merged":
            raise PreflightError(
                f"{subject.model.adapter} cannot be served beside its base: {'; '.join(form.reasons)}",
                hint="use --backend hf, or name the merged model (a run leaves it in export/merged) "
                "with --base",
            )


def _some(answers: Answers) -> Answers:
    return {key: found for key, found in answers.items() if found}
