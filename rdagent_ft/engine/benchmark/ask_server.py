"""Asking models over HTTP: a server that this call starts, or an endpoint that the user has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from rdagent_ft.engine.benchmark.ask_job import Answers, Asked
from rdagent_ft.engine.benchmark.subjects import Subject, Subjects
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness, parse_partial
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget
from rdagent_ft.evaluation.endpoint.watch import ServerProbe, run_client
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.results.plan import BenchmarkPlan
from rdagent_ft.evaluation.serving.server import ModelServer, start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.port import Executor
from rdagent_ft.values import content_hash

KEY_VARIABLE = "FT_ENDPOINT_API_KEY"
N_PROBES = 8
LIFE_S = 30 * 86_400.0

Notice = Callable[[str], None]


def ask_endpoint(
    plan: BenchmarkPlan, subjects: Subjects, models: list[Subject], out_dir: Path, seed: int, notice: Notice
) -> Asked:
    """Ask models behind the user's own endpoint, by chat."""
    assert plan.endpoint is not None
    url = plan.endpoint.url
    targets = [
        EndpointTarget(
            role=subject.role,
            base_url=url,
            model=subject.served_name or "",
            protocol="chat",
            api_key_env=KEY_VARIABLE if KEY_VARIABLE in os.environ else None,
            concurrency=plan.batch_size,
        )
        for subject in models
    ]
    identity = {"url": url, **{target.role: target.model for target in targets}}
    return _ask(plan, subjects, targets, identity, out_dir, seed, None, notice)


def ask_own_server(
    executor: Executor, plan: BenchmarkPlan, subjects: Subjects, models: list[Subject], out_dir: Path, *,
    device: str, python: Path | None, seed: int, notice: Notice,
) -> Asked:  # fmt: skip
    """Serve each model folder in turn, adapters beside their base, and ask them."""
    answers: Answers = {}
    seconds, failures, timed_out = 0.0, list[str](), False
    for folder in dict.fromkeys(subject.model.path for subject in models if subject.model is not None):
        group = [subject for subject in models if subject.model is not None and subject.model.path == folder]
        assert subjects.source is not None
        spec = ServerSpec(
            model_dir=folder,
            max_model_len=min(subjects.source.max_positions, 16_384),
            device="cuda" if device == "cuda" else "cpu",
            seed=seed,
        )
        name = f"benchmark-{int(time.time() * 1000)}"
        adapters = out_dir / name / "adapters"
        adapters.mkdir(parents=True)
        notice(f"starting a server of {folder.name}")
        with start_server(
            executor, spec, out_dir / name / "job", adapters, attempt_id=name,
            deadline_unix=time.time() + (plan.timeout_s or LIFE_S),
            labels={"stage": "benchmark", "run_dir": str(plan.out.absolute())}, python=python,
        ) as server:  # fmt: skip
            found = _ask_served(plan, subjects, group, server, out_dir, seed, notice)
        answers |= found.answers
        seconds += found.seconds
        timed_out = timed_out or found.timed_out
        failures += [found.failure] if found.failure else []
    return Asked(answers, seconds, "; ".join(failures) or None, timed_out)


def _ask_served(
    plan: BenchmarkPlan, subjects: Subjects, group: list[Subject], server: ModelServer, out_dir: Path,
    seed: int, notice: Notice,
) -> Asked:  # fmt: skip
    task = subjects.tasks[0]
    probes = [item.prompt for item in read_items(task.items_file, task.n_items)][:N_PROBES]
    targets: list[EndpointTarget] = []
    identity = dict(server.versions())
    for subject in group:
        assert subject.model is not None
        name = server.served_name
        if subject.model.adapter is not None:
            name = subject.role
            server.load(name, subject.model.adapter, probes)
        identity[subject.role] = subject.identity.fingerprint or ""
        targets.append(
            EndpointTarget(
                role=subject.role,
                base_url=server.base_url,
                model=name,
                tokenizer=subject.model.path,
                concurrency=plan.batch_size,
            )
        )
    return _ask(plan, subjects, targets, identity, out_dir, seed, server, notice)


def _ask(
    plan: BenchmarkPlan, subjects: Subjects, targets: list[EndpointTarget], identity: dict[str, str],
    out_dir: Path, seed: int, server: ServerProbe | None, notice: Notice,
) -> Asked:  # fmt: skip
    request = EndpointRequest(
        targets=tuple(targets),
        tasks=subjects.tasks,
        prompt_format=subjects.prompt_format,
        fingerprint=content_hash(identity, n_chars=32),
        seed=seed,
    )
    folder = out_dir / "-".join(("client", *(target.role for target in targets)))
    folder.mkdir(parents=True, exist_ok=True)
    end = run_client(
        request, folder, timeout_s=plan.timeout_s, notice=notice, server=server, should_stop=lambda: False
    )
    timed_out = end.status == "timeout"
    if not end.is_complete:
        return Asked(parse_partial(request, folder), end.seconds, f"{end.status}: {end.message}", timed_out)
    try:
        return Asked(EndpointHarness().parse(request, folder), end.seconds)
    except JobError as error:
        return Asked(parse_partial(request, folder), end.seconds, error.message)
