"""One server process as a job: submit it, wait until it answers, know why it ended, stop it.

A server that passes its health check may still die at its first token (an unsupported attention head on
CPU does that), so that ready means: one token was generated, with its log-probability. vLLM exits with
0 also when its engine died, so that only the log tells why.
"""

from __future__ import annotations

import contextlib
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.serving.failures import ServerError, ServerFailure, classify_end, exception_lines
from rdagent_ft.evaluation.serving.spec import ServerSpec, job_command, server_variables
from rdagent_ft.evaluation.serving.unix_http import Reply, request
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.execution.port import Executor, JobHandle, JobSpec
from rdagent_ft.values import Frozen

LOOK_S = 0.25
CALL_TIMEOUT_S = 60.0
FIRST_TOKEN_TIMEOUT_S = 300.0
"""The first forward pass may compile kernels."""
HEALTH_TIMEOUT_S = 10.0
LATE_LINES_S = 1.0
END_GRACE_S = 20.0
"""How long a server whose engine died may take to end: vLLM took 3 s."""


class ServerPlan(Frozen):
    """What stays the same over restarts of one server.

    Attributes:
        attempt_id: of the first job; a restart appends `-r1`, ….
        out_dir: the job's one writable folder; its socket lies there.
        adapters_dir: the spool, read-only for the job.
        deadline_unix: when the job is stopped in any case.
        labels: as `JobSpec.labels`.
        python: the serve environment's Python, as the job names it.
        load_timeout_s: how long a start may take.
        lease_s: how long the job lives on without its controller.
        cache_dir: where vLLM keeps what it found out about architectures; None is the job's own folder.
    """

    attempt_id: str
    out_dir: Path
    adapters_dir: Path
    deadline_unix: float
    labels: dict[str, str] = {}
    python: str = "python"
    load_timeout_s: float = 600.0
    lease_s: float = 120.0
    cache_dir: Path | None = None


class Running(NamedTuple):
    """A started job and where it listens."""

    handle: JobHandle
    socket: Path


def submit_server(executor: Executor, plan: ServerPlan, spec: ServerSpec, number: int) -> Running:
    """Start the job of the `number`-th start (0 is the first). Raises what `submit` raises."""
    socket_name = f"server-{number}.sock"
    path = plan.out_dir / socket_name
    path.unlink(missing_ok=True)  # an address that is there cannot be bound
    job = JobSpec(
        attempt_id=plan.attempt_id if number == 0 else f"{plan.attempt_id}-r{number}",
        kind="serve",
        argv=job_command(spec, socket_name, plan.lease_s, plan.python),
        out_dir=plan.out_dir,
        inputs={"model": spec.model_dir, "adapters": plan.adapters_dir},
        labels=plan.labels,
        env=server_variables(spec) | _cache_variables(plan),
        deadline_unix=plan.deadline_unix,
        needs_gpu=spec.device == "cuda",
    )
    return Running(executor.submit(job), path)


def _cache_variables(plan: ServerPlan) -> dict[str, str]:
    return {} if plan.cache_dir is None else {"VLLM_CACHE_ROOT": str(plan.cache_dir)}


def wait_until_ready(executor: Executor, plan: ServerPlan, spec: ServerSpec, running: Running) -> None:
    """Return once the server has generated a token. Raises `ServerError` when it ends or takes too long.

    The job may still run when this raises.
    """
    give_up_at = time.monotonic() + plan.load_timeout_s
    while not _lists(running.socket, spec.served_name):
        if executor.poll(running.handle).state == "ended":
            raise end_of(executor, running, "the server ended before it was ready")
        if time.monotonic() >= give_up_at:
            raise ServerError(
                f"the server was not ready after {plan.load_timeout_s:g} s",
                kind="hang",
                hint=_last_line(executor, running),
            )
        time.sleep(LOOK_S)
    body = {"model": spec.served_name, "prompt": "1", "max_tokens": 1, "temperature": 0, "logprobs": 1}
    try:
        first = call(running.socket, "POST", "/v1/completions", body, timeout_s=FIRST_TOKEN_TIMEOUT_S)
    except ServerError as error:
        raise _first_token_failure(executor, running, error.message) from error
    if first.status != 200:
        raise _first_token_failure(executor, running, first.text())


def call(socket: Path, method: str, target: str, body: Any = None, *, timeout_s: float) -> Reply:
    """Send one request to the server's socket. Raises `ServerError` of the kind `away`."""
    return request(socket, method, target, body, timeout_s=timeout_s)


def is_healthy(socket: Path) -> bool:
    """Return whether the server says that it is well."""
    try:
        return call(socket, "GET", "/health", timeout_s=HEALTH_TIMEOUT_S).status == 200
    except ServerError:
        return False


def model_names(socket: Path) -> set[str]:
    """Return the names that the server lists. Raises `ServerError`."""
    reply = call(socket, "GET", "/v1/models", timeout_s=CALL_TIMEOUT_S)
    try:
        return {str(entry["id"]) for entry in reply.json()["data"]}
    except (KeyError, TypeError) as error:
        raise ServerError(f"the server's list of models is malformed: {reply.text()}", kind="away") from error


def end_of(executor: Executor, running: Running, message: str) -> ServerError:
    """Return the typed error of an ended server, its cause read from the log."""
    result = executor.collect(running.handle)
    log = executor.log_path(running.handle)
    kind, cause = classify_end(result, read_log(log))
    if kind == "crash" and not exception_lines(read_log(log)):
        # On a busy machine the last lines may arrive after the end.
        time.sleep(LATE_LINES_S)
        kind, cause = classify_end(result, read_log(log))
    return ServerError(f"{message}: {cause}", kind=kind)


def failure_of(executor: Executor, running: Running) -> tuple[ServerFailure, str]:
    """Return why a server is of no use: how it ended, or `hang` while it still runs.

    One that does not say that it is healthy is given a moment to end: its log then has the cause.
    """
    if is_healthy(running.socket) or not _ends_soon(executor, running):
        return "hang", "it runs, and does not answer or makes no progress"
    error = end_of(executor, running, "it ended")
    return error.kind, error.message


def stop_server(executor: Executor, running: Running) -> None:
    """End the job and everything it started, take its result in, and remove its sockets. Idempotent."""
    executor.cancel(running.handle)
    give_up_at = time.monotonic() + 60.0
    while executor.poll(running.handle).state != "ended":
        if time.monotonic() >= give_up_at:
            raise JobError(f"the server's job {running.handle.attempt_id!r} does not end")
        time.sleep(LOOK_S)
    executor.collect(running.handle)
    with contextlib.suppress(FileNotFoundError):
        for entry in running.handle.out_dir.iterdir():
            if stat.S_ISSOCK(entry.lstat().st_mode):
                entry.unlink()


def _lists(socket: Path, served_name: str) -> bool:
    """Return whether the server is healthy and lists its model."""
    try:
        return is_healthy(socket) and served_name in model_names(socket)
    except ServerError:
        return False


def _ends_soon(executor: Executor, running: Running) -> bool:
    give_up_at = time.monotonic() + END_GRACE_S
    while executor.poll(running.handle).state != "ended":
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(LOOK_S)
    return True


def _first_token_failure(executor: Executor, running: Running, answer: str) -> ServerError:
    if _ends_soon(executor, running):
        return end_of(executor, running, "the server died at its first token")
    return ServerError(f"the server cannot generate: {answer:.300}", kind="crash")


def _last_line(executor: Executor, running: Running) -> str:
    lines = read_log(executor.log_path(running.handle), 4000).strip().splitlines()
    return f"the end of its log: {lines[-1][:300]}" if lines else "its log is empty"
