"""A running server of one base model: load adapters, watch it, restart it once, leave nothing behind.

The server is a job of the executor port, so that its log, its deadline and its clean-up are those of
every job. It has no network: it listens on a unix socket in its folder, and `Bridge` gives clients a
loopback URL. Which items are asked, and what their answers are worth, is not decided here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.serving.adapter_form import serving_form
from rdagent_ft.evaluation.serving.bridge import Bridge
from rdagent_ft.evaluation.serving.canary import CanaryResult, refuse_unapplied, run_canary
from rdagent_ft.evaluation.serving.failures import ServerError, ServerFailure
from rdagent_ft.evaluation.serving.launch import (
    CALL_TIMEOUT_S,
    HEALTH_TIMEOUT_S,
    Running,
    ServerPlan,
    call,
    failure_of,
    is_healthy,
    model_names,
    stop_server,
    submit_server,
    wait_until_ready,
)
from rdagent_ft.evaluation.serving.lease import Lease
from rdagent_ft.evaluation.serving.preflight import serving_problems
from rdagent_ft.evaluation.serving.progress import generated_tokens
from rdagent_ft.evaluation.serving.serve_job import VERSIONS_NAME
from rdagent_ft.evaluation.serving.spec import LEASE_NAME, ServerSpec, memory_ladder
from rdagent_ft.evaluation.serving.spool import SpooledAdapter, spool_adapter
from rdagent_ft.evaluation.serving.unix_http import Reply
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.execution.port import Executor
from rdagent_ft.values import Frozen

LOAD_TIMEOUT_S = 300.0
PROBE_TIMEOUT_S = 300.0
SLEEP_TIMEOUT_S = 120.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CHANGES_ON_RESTART = {"max_num_seqs", "gpu_memory_utilization", "enforce_eager", "cpu_kv_cache_gib"}


class LoadedAdapter(Frozen):
    """An adapter that the server applies.

    Attributes:
        name: what clients call it.
        sha256: of its config and weights.
        canary: how its answers differ from the base's.
        probes: the prompts of the canary.
    """

    name: str
    sha256: str
    canary: CanaryResult
    probes: tuple[str, ...]


class _Loaded(Frozen):
    adapter: LoadedAdapter
    spooled: SpooledAdapter


class ModelServer:
    """A server that answers. Made by `start_server`; close it, or use it as a context manager.

    `base_url` stays the same over restarts. One thread at a time; clients may use the URL from anywhere.
    """

    def __init__(self, executor: Executor, plan: ServerPlan, spec: ServerSpec, max_restarts: int) -> None:
        self.spec = spec
        self.restarts: list[ServerFailure] = []
        self._executor = executor
        self._plan = plan
        self._max_restarts = max_restarts
        self._loaded: dict[str, _Loaded] = {}
        self._lease = Lease(plan.out_dir / LEASE_NAME, plan.lease_s / 10)
        self._bridge: Bridge | None = None
        self._running: Running | None = None
        self._is_asleep = False

    @property
    def base_url(self) -> str:
        """The URL of the OpenAI protocol for clients on this machine."""
        if self._bridge is None:
            raise ServerError("the server is closed", kind="stopped")
        return f"http://127.0.0.1:{self._bridge.port}/v1"

    @property
    def served_name(self) -> str:
        """What clients call the model without an adapter."""
        return self.spec.served_name

    @property
    def adapters(self) -> tuple[LoadedAdapter, ...]:
        """The loaded adapters."""
        return tuple(entry.adapter for entry in self._loaded.values())

    def versions(self) -> dict[str, str]:
        """Return package -> version of the server's environment, as it noted them itself."""
        noted = read_json_file(self._plan.out_dir, VERSIONS_NAME)
        return {str(name): str(value) for name, value in noted.items()}

    def load(self, name: str, adapter_dir: Path, probes: Sequence[str]) -> LoadedAdapter:
        """Load an adapter and prove that it is applied.

        Args:
            name: what clients call it; not a name that is served already.
            adapter_dir: a checked LoRA folder (`weight_files.check_weights`).
            probes: prompts of the canary, about eight, like those that will be asked.

        Raises `ServerError`: `adapter` when it must be merged or is refused, `inert` when no probe's
        answer differs from the base's, `nan` when one holds no numbers. It is not loaded then.
        """
        self._check_loadable(name, adapter_dir, probes)
        spooled = spool_adapter(self._plan.adapters_dir, name, adapter_dir)
        try:
            canary = self._install(name, spooled, probes)
        except BaseException:
            shutil.rmtree(spooled.folder, ignore_errors=True)
            raise
        adapter = LoadedAdapter(name=name, sha256=spooled.sha256, canary=canary, probes=tuple(probes))
        self._loaded[name] = _Loaded(adapter=adapter, spooled=spooled)
        return adapter

    def unload(self, name: str) -> None:
        """Take an adapter out of the server. Raises `ServerError` when it is not loaded."""
        entry = self._loaded.get(name)
        if entry is None:
            raise ServerError(f"adapter {name!r} is not loaded", kind="adapter")
        self._remove(name)
        del self._loaded[name]
        shutil.rmtree(entry.spooled.folder, ignore_errors=True)

    def alive(self) -> bool:
        """Return whether the job runs and the server says that it is healthy."""
        running = self._running
        if running is None or self._executor.poll(running.handle).state == "ended":
            return False
        return is_healthy(running.socket)

    def generated_tokens(self) -> int | None:
        """Return the tokens generated since the last start; None when the server does not say."""
        try:
            return generated_tokens(self._call("GET", "/metrics", timeout_s=HEALTH_TIMEOUT_S))
        except ServerError:
            return None

    def sleep(self) -> None:
        """Give the GPU's memory back until `wake`; weights wait in the machine's memory.

        On CPU there is nothing to give back. A server that refuses to sleep is closed: the caller needs
        the memory more than the warm start.
        """
        if self.spec.device == "cpu" or self._is_asleep or self._running is None:
            return
        try:
            reply = self._call("POST", "/sleep?level=1", timeout_s=SLEEP_TIMEOUT_S)
        except ServerError:
            self.close()
            return
        if reply.status != 200:
            self.close()
            return
        self._is_asleep = True

    def wake(self) -> None:
        """Undo `sleep`. Raises `ServerError` when the server does not come back; it is closed then."""
        if not self._is_asleep:
            return
        self._is_asleep = False
        try:
            reply = self._call("POST", "/wake_up", timeout_s=SLEEP_TIMEOUT_S)
        except ServerError:
            self.close()
            raise
        if reply.status != 200:
            self.close()
            raise ServerError(f"the server does not wake up: {reply.text()}", kind="away")

    @property
    def is_closed(self) -> bool:
        """Whether the server was ended, by `close` or because it could not go on."""
        return self._running is None

    def restart(self, spec: ServerSpec | None = None) -> None:
        """Start the server again, and load its adapters again with their canaries.

        Args:
            spec: how; None is as before, or with less memory when it had run out of it. Only the use of
                memory may differ (`memory_ladder`), because answers of both starts are compared.

        Raises `ServerError` with the class of the failure that made it necessary when it was restarted
        `max_restarts` times before, and of the new failure when it does not come back. The server is
        closed then.
        """
        running = self._must_run()
        wanted = self._checked_change(spec)
        try:
            kind, cause = failure_of(self._executor, running)
            stop_server(self._executor, running)
            if len(self.restarts) >= self._max_restarts:
                raise ServerError(
                    f"the server failed again after {len(self.restarts)} restart(s): {cause}", kind=kind
                )
            self.restarts.append(kind)
            smaller = memory_ladder(wanted) if kind == "oom" and spec is None else ()
            self.spec = smaller[0] if smaller else wanted
            self.start()
            for entry in self._loaded.values():
                self._install(entry.adapter.name, entry.spooled, entry.adapter.probes)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start the job and wait until it answers; called by `start_server` and `restart`."""
        self._running = submit_server(self._executor, self._plan, self.spec, len(self.restarts))
        wait_until_ready(self._executor, self._plan, self.spec, self._running)
        if self._bridge is None:
            self._bridge = Bridge(self._running.socket)
        self._bridge.retarget(self._running.socket)

    def close(self) -> None:
        """End the server and everything it started, and remove what it was given; idempotent."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()
        self._lease.close()
        for entry in self._loaded.values():
            shutil.rmtree(entry.spooled.folder, ignore_errors=True)
        self._loaded.clear()
        running = self._running
        if running is not None:
            stop_server(self._executor, running)
            self._running = None

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_loadable(self, name: str, adapter_dir: Path, probes: Sequence[str]) -> None:
        if not _NAME.fullmatch(name) or name == self.spec.served_name or name in self._loaded:
            raise ServerError(f"{name!r} cannot name an adapter: it is taken or malformed", kind="adapter")
        if not probes:
            raise ServerError("an adapter cannot be proved without probe prompts", kind="adapter")
        if self.spec.max_lora_rank is None:
            raise ServerError("this server was started without adapters (max_lora_rank)", kind="adapter")
        form = serving_form(adapter_dir, self.spec.model_dir, self.spec.max_lora_rank)
        if form.form == "merged":
            raise ServerError(
                f"adapter {name!r} must be merged to be served: {'; '.join(form.reasons)}", kind="adapter"
            )

    def _install(self, name: str, spooled: SpooledAdapter, probes: Sequence[str]) -> CanaryResult:
        """Load a spooled adapter and run its canary; unload it again when that fails."""
        body = {"lora_name": name, "lora_path": str(spooled.folder)}
        reply = self._call("POST", "/v1/load_lora_adapter", body, timeout_s=LOAD_TIMEOUT_S)
        if reply.status != 200 or name not in model_names(self._must_run().socket):
            raise ServerError(f"the server refused adapter {name!r}: {reply.text()}", kind="adapter")
        try:
            canary = run_canary(self._ask, self.spec.served_name, name, probes)
            refuse_unapplied(name, canary)
        except ServerError as error:
            if error.kind in {"inert", "nan"}:
                self._remove(name)
            raise
        return canary

    def _remove(self, name: str) -> None:
        reply = self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, timeout_s=CALL_TIMEOUT_S)
        if reply.status != 200 or name in model_names(self._must_run().socket):
            raise ServerError(f"the server kept adapter {name!r}: {reply.text()}", kind="adapter")

    def _ask(self, body: dict[str, Any]) -> Any:
        reply = self._call("POST", "/v1/completions", body, timeout_s=PROBE_TIMEOUT_S)
        if reply.status != 200:
            # vLLM cannot write NaN as JSON and answers 400 or 500 with these words.
            kind: Literal["nan", "away"] = "nan" if "JSON compliant" in reply.text(2000) else "away"
            raise ServerError(f"a probe of {body['model']!r} failed: {reply.text()}", kind=kind)
        return reply.json()

    def _call(self, method: str, target: str, body: Any = None, *, timeout_s: float) -> Reply:
        return call(self._must_run().socket, method, target, body, timeout_s=timeout_s)

    def _must_run(self) -> Running:
        if self._running is None:
            raise ServerError("the server is closed", kind="stopped")
        return self._running

    def _checked_change(self, spec: ServerSpec | None) -> ServerSpec:
        if spec is None:
            return self.spec
        old, new = self.spec.model_dump(), spec.model_dump()
        changed = {key for key in old if old[key] != new[key]} - _CHANGES_ON_RESTART
        if changed:
            raise ServerError(f"a restart must not change {', '.join(sorted(changed))}", kind="stopped")
        return spec


def start_server(
    executor: Executor,
    spec: ServerSpec,
    out_dir: Path,
    adapters_dir: Path,
    *,
    attempt_id: str,
    deadline_unix: float,
    labels: Mapping[str, str] | None = None,
    python: Path | None = None,
    load_timeout_s: float = 600.0,
    lease_s: float = 120.0,
    max_restarts: int = 1,
    cache_dir: Path | None = None,
) -> ModelServer:
    """Start a server and return it once it answers.

    Args:
        executor: where it runs; its jobs must write where we read (`Executor.shares_files`).
        out_dir: the job's folder. adapters_dir: an existing empty folder beside it.
        attempt_id: unique; restarts append to it.
        deadline_unix: when the server is stopped in any case.
        labels: as `JobSpec.labels`, so that `reap` finds it by its run.
        python: the serve environment's Python, for the executor `local`; an image has its own.
        load_timeout_s: how long the start may take.
        lease_s: how long it lives on when this process is killed.
        cache_dir: vLLM's cache, shared by servers (10 s less for each start): for the executor `local`,
            whose jobs have the user's rights anyway. What a container wrote is never shared.

    A start that runs out of memory is tried again with less of it (`memory_ladder`); `server.spec` says how
    it runs. Raises `PreflightError` with all problems together before anything starts, and `ServerError`
    with the class of the failure. Nothing runs then.
    """
    if not executor.shares_files:
        raise ServerError("a server on a remote engine cannot be reached from here", kind="remote")
    problems = serving_problems(spec, out_dir, adapters_dir)
    if problems:
        raise PreflightError(f"{spec.model_dir} cannot be served", problems=problems)
    if python is not None and executor.name != "local":
        raise PreflightError(f"executor {executor.name!r} takes the image's Python, not {python}")
    if cache_dir is not None:
        if executor.name != "local":
            raise PreflightError(f"executor {executor.name!r} shares no cache between its jobs")
        cache_dir.mkdir(parents=True, exist_ok=True)
    plan = ServerPlan(
        attempt_id=attempt_id, out_dir=out_dir.absolute(), adapters_dir=adapters_dir.absolute(),
        deadline_unix=deadline_unix, labels=dict(labels or {}),
        python="python" if python is None else str(python.absolute()),
        load_timeout_s=load_timeout_s, lease_s=lease_s,
        cache_dir=None if cache_dir is None else cache_dir.absolute(),
    )  # fmt: skip
    plan.out_dir.mkdir(parents=True, exist_ok=True)
    return _started(executor, plan, (spec, *memory_ladder(spec)), max_restarts)


def _started(
    executor: Executor, plan: ServerPlan, ladder: tuple[ServerSpec, ...], max_restarts: int
) -> ModelServer:
    """Start with the first spec; after running out of memory with the next one, which needs less."""
    for number, spec in enumerate(ladder):
        # A job's name is taken for good: the executor would adopt the dead one.
        attempt_id = plan.attempt_id if number == 0 else f"{plan.attempt_id}-m{number}"
        own = plan.model_copy(update={"attempt_id": attempt_id})
        server = ModelServer(executor, own, spec, max_restarts)
        try:
            server.start()
        except ServerError as error:
            server.close()
            if error.kind != "oom" or spec is ladder[-1]:
                raise
        except BaseException:
            server.close()
            raise
        else:
            return server
    raise ServerError("no way to start the server was given", kind="stopped")
