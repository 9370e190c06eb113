"""Opening the executor that the settings name: the engine, the limits, the images, the result cache.

The engine is asked before anything else happens, so that a run without one ends at once with the way
out; images are built after the input was found to be good, because that may take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from rdagent_ft.errors import PreflightError
from rdagent_ft.execution import image_releases
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import Limits, job_limits
from rdagent_ft.execution.docker_transfer import FarFiles
from rdagent_ft.execution.image_context import ImageRequest
from rdagent_ft.execution.image_pins import ImageName, Variant
from rdagent_ft.execution.images import ImageRef, ensure_image, remove_superseded
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import Executor, JobKind
from rdagent_ft.execution.result_cache import CachingExecutor
from rdagent_ft.execution.result_key import package_hash
from rdagent_ft.settings import Settings

IMAGE_OF: dict[JobKind, ImageName] = {
    "pretrain": "train",
    "train": "train",
    "train_llamafactory": "llamafactory",
    "merge": "train",
    "data": "train",
    "evaluate": "lm-eval",
    "serve": "serve",
}
"""Which image a kind of job runs in."""
AT_ONCE: tuple[ImageName, ...] = ("train", "lm-eval")
"""Images that every run needs; the others are built when they are first asked for."""

Notice = Callable[[str], None]


class OpenExecutor(NamedTuple):
    """An executor, and what makes it ready for jobs (images); both may be called again."""

    executor: Executor
    make_ready: Callable[[], None]


def open_executor(settings: Settings, notice: Notice) -> OpenExecutor:
    """Open the executor of `settings.executor`.

    Raises `EngineAwayError` (exit 3, naming `--executor local`) when no engine answers, and
    `PreflightError` when the engine lacks what the settings ask for.
    """
    if settings.executor == "local":
        local = LocalExecutor(settings.python, stall_timeout_s=settings.stall_timeout)
        return OpenExecutor(local, lambda: None)
    return _open_docker(settings, notice)


def build_executor(settings: Settings) -> Executor:
    """Return the executor for looking and cleaning up: nothing is built, nothing is said."""
    return open_executor(settings, lambda _text: None).executor


def _open_docker(settings: Settings, notice: Notice) -> OpenExecutor:
    engine = connect()
    if settings.docker_runtime is not None and settings.docker_runtime not in engine.info.runtimes:
        raise PreflightError(
            f"the engine at {engine.url} has no runtime {settings.docker_runtime!r}",
            hint=f"it has: {', '.join(engine.info.runtimes)}; see FT_DOCKER_RUNTIME",
        )
    images = Images(engine, settings, notice)
    executor: Executor = docker_executor(engine, settings, images.id_of)
    if settings.docker_enable_cache:
        store = settings.file_path.absolute() / "cache" / "jobs"
        executor = CachingExecutor(executor, store, images.id_of, package_hash())

    def make_ready() -> None:
        for name in AT_ONCE:
            images.ready(name)

    return OpenExecutor(executor, make_ready)


def docker_executor(
    engine: Engine,
    settings: Settings,
    image_of: Callable[[JobKind], str],
    *,
    engine_wait_s: float | None = None,
) -> DockerExecutor:
    """Return the executor of a run on an engine: its limits, its user, near or far files."""
    limits = limits_of(engine, settings)
    user = (os.getuid(), os.getgid())
    far = (
        FarFiles(engine, user, limits, keeps_inputs=settings.docker_enable_cache)
        if engine.is_remote
        else None
    )
    return DockerExecutor(
        engine,
        image_of,
        limits=limits,
        files=far,
        user=user,
        stall_timeout_s=settings.stall_timeout,
        engine_wait_s=settings.docker_engine_wait if engine_wait_s is None else engine_wait_s,
        runtime=settings.docker_runtime,
    )


def limits_of(engine: Engine, settings: Settings) -> Limits:
    """Return what one job may use on an engine."""
    return job_limits(
        engine.info,
        memory_gib=settings.docker_memory_gib,
        n_cpus=settings.docker_cpus,
        shm_gib=settings.docker_shm_gib,
        output_gib=settings.max_output_gib,
    )


class Images:
    """The images of one engine, each looked for (and built where it is missing) once."""

    def __init__(self, engine: Engine, settings: Settings, notice: Notice) -> None:
        self._engine, self._settings, self._notice = engine, settings, notice
        self._ready: dict[ImageName, ImageRef] = {}

    def id_of(self, kind: JobKind) -> str:
        """Return the id (`sha256:…`) of the image that a kind of job runs in."""
        return self.ready(IMAGE_OF[kind]).image_id

    def ready(self, name: ImageName) -> ImageRef:
        """Return the image, building it where the engine lacks it. Raises `PreflightError`."""
        found = self._ready.get(name)
        if found is None:
            request = image_request(self._engine, self._settings, name)
            log_folder = self._settings.file_path.absolute() / "cache" / "images"
            found = ensure_image(self._engine.client, request, log_folder, self._notice)
            if not self._settings.docker_enable_cache:
                remove_superseded(self._engine.client, found)
            self._ready[name] = found
        return found


def image_request(engine: Engine, settings: Settings, name: ImageName) -> ImageRequest:
    """Return which image of this name the settings and the engine's hardware ask for."""
    return image_releases.image_request(name, variant_of(engine), settings)


def variant_of(engine: Engine) -> Variant:
    """Return which variant of the images an engine runs: with CUDA where it can give GPUs to containers."""
    return "cuda" if "nvidia" in engine.info.runtimes else "cpu"
