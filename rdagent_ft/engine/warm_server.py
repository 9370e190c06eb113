"""The run's one model server: started when first needed, kept warm, asleep while a training needs its GPU.

At most one server runs at a time, of the folder that was asked for last. Whether a run scores through a
server at all is decided once (`choose_serving`) and stays so: answers of two engines are never compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.serving.server import ModelServer, start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.port import Executor
from rdagent_ft.settings import Settings

MAX_LORA_RANK = 64
"""Ranks above it are merged and served as a model of their own."""
MAX_MODEL_LEN = 16_384
"""Longer contexts cost cache that the items of a run hardly need."""
SERVER_LIFE_S = 30 * 86_400.0
"""A server ends with its run; this only bounds one that nothing else ended."""

Device = Literal["cpu", "cuda"]


class Serving(NamedTuple):
    """Whether scores come from a warm server, and why, in words for the user."""

    is_warm: bool
    reason: str


def choose_serving(settings: Settings, executor: Executor, device: Device) -> Serving:
    """Return what FT_SERVING means here. Raises `PreflightError` when `vllm` cannot be had."""
    if settings.serving == "off":
        return Serving(False, "scores come from a job for each model (FT_SERVING=off)")
    missing = _missing(settings, executor)
    if settings.serving == "vllm":
        if missing is not None:
            raise PreflightError(f"FT_SERVING=vllm: {missing[0]}", hint=missing[1])
        return Serving(True, "scores come from one warm vLLM server")
    if device == "cpu":
        return Serving(False, "scores come from a job for each model: no GPU (FT_SERVING=vllm serves on CPU)")
    if missing is not None:
        return Serving(False, f"scores come from a job for each model: {missing[0]}; {missing[1]}")
    return Serving(True, "scores come from one warm vLLM server")


def _missing(settings: Settings, executor: Executor) -> tuple[str, str] | None:
    """Return what a server lacks here, and the way out."""
    if not executor.shares_files:
        return "a server on a remote engine cannot be reached", "use an engine on this machine"
    if executor.name == "local" and settings.serve_python is None:
        return "no environment with vLLM is named", "set FT_SERVE_PYTHON, or use the docker executor"
    return None


class WarmServer:
    """The server of one invocation. `close` it when the invocation ends."""

    def __init__(
        self,
        executor: Executor,
        settings: Settings,
        run_dir: Path,
        run_id: str,
        notice: Callable[[str], None],
    ) -> None:
        self._executor = executor
        self._settings = settings
        self._run_dir = run_dir
        self._run_id = run_id
        self._notice = notice
        self._server: ModelServer | None = None

    def of(self, model_dir: Path, *, max_positions: int, device: Device) -> ModelServer:
        """Return a server of `model_dir`: the one that runs, woken up, or a new one in its place.

        Raises `ServerError` and `PreflightError` as `start_server` does.
        """
        spec = ServerSpec(
            model_dir=model_dir,
            max_model_len=min(max_positions, MAX_MODEL_LEN),
            max_lora_rank=MAX_LORA_RANK,
            device=device,
            seed=self._settings.seed,
        )
        known = self._server
        if known is not None and not known.is_closed and known.spec.model_dir == spec.model_dir:
            known.wake()
            return known
        self.close()
        is_local = self._executor.name == "local"
        started = time.monotonic()
        name = f"{self._run_id}-serve-{int(time.time() * 1000)}"
        folder = self._run_dir / "serving" / name.rpartition("-")[2]
        adapters = folder / "adapters"
        adapters.mkdir(parents=True)
        self._server = start_server(
            self._executor,
            spec,
            folder / "job",
            adapters,
            attempt_id=name,
            deadline_unix=time.time() + SERVER_LIFE_S,
            labels={"run": self._run_id, "run_dir": str(self._run_dir), "stage": "serve"},
            python=self._settings.serve_python if is_local else None,
            cache_dir=self._settings.file_path / "cache" / "vllm" if is_local else None,
        )
        if self._server.spec != spec:
            self._notice(f"the model server runs with less memory: {_less(spec, self._server.spec)}")
        self._notice(f"model server ready after {time.monotonic() - started:.0f} s")
        return self._server

    def rest(self) -> None:
        """Give the GPU's memory back while a training needs it; nothing is lost."""
        if self._server is not None:
            self._server.sleep()

    def close(self) -> None:
        """End the server; idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


def _less(wanted: ServerSpec, found: ServerSpec) -> str:
    """Return what differs, as `max_num_seqs 128 -> 64`."""
    old, new = wanted.model_dump(mode="json"), found.model_dump(mode="json")
    return ", ".join(f"{name} {old[name]} -> {new[name]}" for name in old if old[name] != new[name])
