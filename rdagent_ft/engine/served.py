"""Scoring through the warm server: the same request as a job's, asked over HTTP.

Adapters are loaded beside the base; what cannot be served as an adapter is merged first and served as a
model of its own. An interrupted scoring is resumed from the answers that were stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.bounds import StopRun
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobRequest, run_job
from rdagent_ft.engine.warm_server import MAX_LORA_RANK
from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.endpoint.harness import Answers, EndpointHarness
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget
from rdagent_ft.evaluation.endpoint.watch import ClientEnd, run_client
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.port import EvalModel, EvalRequest
from rdagent_ft.evaluation.serving.adapter_form import serving_form
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.serving.server import ModelServer
from rdagent_ft.execution.outputs import clean_text, read_log
from rdagent_ft.reporting.records import StepName
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.training.failures import MAX_MESSAGE_CHARS, classify
from rdagent_ft.training.plan import merge_argv, read_failure, read_merge_result
from rdagent_ft.values import content_hash

MERGED = "merged"
N_PROBES = 8
MAX_UNANSWERED = 0.02
"""Share of questions without an answer above which a scoring counts as failed."""


class Asked(NamedTuple):
    """What the server's models answered, or why there is nothing to score."""

    answers: Answers
    seconds: float
    failure: Failure | None


class _Served(NamedTuple):
    """A model of the request and the folder that a server of it loads."""

    model: EvalModel
    folder: Path
    adapter: Path | None


def ask_served(
    ctx: RunContext, loop: int, step: StepName, request: EvalRequest, out_root: Path, part: str
) -> Asked:
    """Ask all models of the request; return their answers.

    Raises `StopRun` when the run has to stop meanwhile: what was answered stays stored.
    """
    assert ctx.warm is not None
    answers: Answers = {}
    seconds = 0.0
    try:
        served = [_served(ctx, loop, step, model, out_root, part) for model in request.models]
        for folder in dict.fromkeys(entry.folder for entry in served):
            server = ctx.warm.of(
                folder, max_positions=ctx.prepared.model.max_positions, device=ctx.prepared.device
            )
            group = [entry for entry in served if entry.folder == folder]
            found, end = _ask_group(ctx, server, request, group, out_root / "served")
            answers |= found
            seconds += end.seconds
    except ServerError as error:
        return Asked({}, seconds, _failure(error))
    except (JobError, PreflightError) as error:
        message = clean_text(error.message)[:MAX_MESSAGE_CHARS]
        failure = Failure(
            failure_class="eval.incomplete", blame="environment", message=message, fix=error.hint
        )
        return Asked({}, seconds, failure)
    return Asked(answers, seconds, None)


def _served(
    ctx: RunContext, loop: int, step: StepName, model: EvalModel, out_root: Path, part: str
) -> _Served:
    """Return how a model is served; an adapter that no server applies is merged first."""
    if model.adapter is None:
        return _Served(model, model.path, None)
    form = serving_form(model.adapter, model.path, MAX_LORA_RANK)
    if form.form == "adapter":
        return _Served(model, model.path, model.adapter)
    adapter, job_part = model.adapter, f"{part}merge-{model.role}"
    if not ctx.journal.attempts(loop, step, job_part):
        ctx.progress.notice(f"{model.role} is merged to be served: {'; '.join(form.reasons)}")
    outcome = run_job(
        ctx,
        loop,
        step,
        JobRequest(
            kind="merge",
            out_root=out_root / f"merge-{model.role}",
            part=job_part,
            inputs={"base": model.path, "weights": adapter},
            limit_s=ctx.settings.full_timeout,
        ),
        lambda _out_dir, _previous: merge_argv(model.path, Path(MERGED), adapter=adapter),
    )
    failure = classify(
        read_log(outcome.log), result=outcome.result, failure_json=read_failure(outcome.out_dir)
    )
    if failure is not None:
        raise JobError(f"{model.role} could not be merged: {failure.message} [{failure.failure_class}]")
    merged = read_merge_result(outcome.out_dir)
    if not merged.is_equal:
        raise JobError(f"{model.role} is another model once merged: {merged.words}")
    return _Served(model, outcome.out_dir / MERGED, None)


def _ask_group(
    ctx: RunContext, server: ModelServer, request: EvalRequest, group: Sequence[_Served], out_dir: Path
) -> tuple[Answers, ClientEnd]:
    probes = [
        item.prompt for task in request.tasks[:1] for item in read_items(task.items_file, task.n_items)
    ][:N_PROBES]
    loaded: list[str] = []
    identity: dict[str, str] = {"folder": str(group[0].folder), **server.versions()}
    targets: list[EndpointTarget] = []
    try:
        for entry in group:
            name = server.served_name
            if entry.adapter is not None:
                name = f"{entry.model.role}-{len(loaded)}"
                identity[name] = server.load(name, entry.adapter, probes).sha256
                loaded.append(name)
            targets.append(_target(server, name, entry.model, request))
        asked = EndpointRequest(
            targets=tuple(targets),
            tasks=request.tasks,
            prompt_format=request.prompt_format,
            fingerprint=content_hash(identity, n_chars=32),
            seed=ctx.settings.seed,
        )
        folder = out_dir / content_hash(asked.model_dump(mode="json", exclude={"targets"}), n_chars=12)
        folder.mkdir(parents=True, exist_ok=True)
        end = _run(ctx, server, asked, folder)
        return EndpointHarness().parse(asked, folder), end
    finally:
        for name in loaded:
            _unload(ctx, server, name)


def _target(server: ModelServer, name: str, model: EvalModel, request: EvalRequest) -> EndpointTarget:
    penalty = model.repetition_penalty
    return EndpointTarget(
        role=model.role,
        base_url=server.base_url,
        model=name,
        tokenizer=model.path,
        concurrency=model.batch_size or request.batch_size,
        only=model.only,
        extra_body={} if penalty is None else {"repetition_penalty": penalty},
    )


def _run(ctx: RunContext, server: ModelServer, asked: EndpointRequest, folder: Path) -> ClientEnd:
    left = ctx.clock.left_s()
    limit_s = ctx.settings.benchmark_timeout
    end = run_client(
        asked,
        folder,
        timeout_s=limit_s if left is None else min(limit_s, max(0.5, left - ctx.reserve_s)),
        notice=ctx.progress.notice,
        server=server,
        should_stop=lambda: ctx.stop.number is not None or ctx.clock.expired(ctx.reserve_s),
    )
    if end.status == "stopped" or (end.status == "timeout" and ctx.clock.expired(ctx.reserve_s)):
        raise StopRun("interrupted" if ctx.stop.number is not None else "timeout")
    if not end.is_complete or end.n_unanswered > MAX_UNANSWERED * end.n_expected:
        raise JobError(
            f"the evaluation ended as {end.status} with {end.n_answered} of {end.n_expected} answers: "
            f"{end.message}"
        )
    return end


def _unload(ctx: RunContext, server: ModelServer, name: str) -> None:
    try:
        server.unload(name)
    except ServerError as error:
        ctx.progress.notice(f"adapter {name} stays loaded: {error.message}")


def _failure(error: ServerError) -> Failure:
    """Return a server's error as a step's failure; a bad adapter is the candidate's."""
    message = clean_text(error.message)[:MAX_MESSAGE_CHARS]
    if error.kind in ("inert", "nan"):
        kind = "eval.adapter_no_effect" if error.kind == "inert" else "eval.adapter_nan"
        return Failure(failure_class=kind, blame="candidate", message=message, fix=error.hint)
    return Failure(failure_class=f"serve.{error.kind}", blame="environment", message=message, fix=error.hint)
