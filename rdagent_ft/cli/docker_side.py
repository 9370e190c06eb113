"""One Docker engine as `doctor` sees it: connected, asked and probed once for all checks.

Nothing is built here: what can only be known inside a container is asked by a small job of the real
executor, which leaves nothing behind (on a remote engine, the volume with our package).
"""

from __future__ import annotations

from functools import cached_property

from rdagent_ft.engine.executors import docker_executor, image_request, limits_of
from rdagent_ft.errors import JobError, PreflightError, RdagentFtError
from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_facts import EngineFacts, engine_facts
from rdagent_ft.execution.docker_probe import Sandbox, how_it_ended, probe_sandbox, run_small_job
from rdagent_ft.execution.docker_profile import Limits
from rdagent_ft.execution.image_labels import ImageRef
from rdagent_ft.execution.image_pins import ImageName
from rdagent_ft.execution.images import find_image
from rdagent_ft.execution.machine import Gpu, parse_gpus, read_gpus
from rdagent_ft.settings import Settings

BUILD = "rdagent-ft images build"
TOOLKIT = "install the NVIDIA container toolkit, `nvidia-ctk runtime configure`, restart the engine"
LIST_GPUS = ("nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits")


class NotCheckedError(PreflightError):
    """A check that needs a container cannot look yet: a warning, because a run builds its images."""


class DockerSide:
    """One engine as the checks see it. Each thing is asked once, and only when a check wants it.

    Everything raises `RdagentFtError`, which `docker_checks` turns into a result.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def engine(self) -> Engine:
        """The connection."""
        if isinstance(self._connection, RdagentFtError):
            raise self._connection
        return self._connection

    @cached_property
    def facts(self) -> EngineFacts:
        """What people want to know of the engine."""
        return engine_facts(self.engine)

    @cached_property
    def train_image(self) -> ImageRef | None:
        """The image of training jobs, as a run would find it."""
        return self.image("train")

    @cached_property
    def limits(self) -> Limits:
        """What a job of a run may use."""
        return limits_of(self.engine, self.settings)

    @cached_property
    def executor(self) -> DockerExecutor:
        """The executor of a run, but for what would change something: it builds no image."""
        image = self.train_image
        if image is None:
            raise NotCheckedError("not checked: the image `train` is not built yet", hint=BUILD)
        return docker_executor(self.engine, self.settings, lambda _kind: image.image_id, engine_wait_s=0.0)

    @property
    def sandbox(self) -> Sandbox:
        """What a job of the launch profile found inside."""
        if isinstance(self._sandbox, RdagentFtError):
            raise self._sandbox
        return self._sandbox

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """What a job that asks for a GPU is given. Raises `JobError` where that ought to work and does not.

        `nvidia-smi` inside a container is asked: only that shows a working toolkit.
        """
        on_host = () if self.engine.is_remote else read_gpus()
        if not on_host and "nvidia" not in self.engine.info.runtimes:
            return ()
        small = run_small_job(self.executor, self.settings.file_path, LIST_GPUS, needs_gpu=True)
        inside = parse_gpus(small.output, None) if small.result.failure_class == "ok" else ()
        if inside:
            return inside
        seen = f"this machine has {gpu_names(on_host)}" if on_host else "the engine has a GPU runtime"
        raise JobError(f"{seen}, and a container gets no GPU: {how_it_ended(small)}", hint=TOOLKIT)

    def image(self, name: ImageName) -> ImageRef | None:
        """The image as a run would find it; None where a run would build it."""
        return find_image(self.engine.client, image_request(self.engine, self.settings, name))

    def close(self) -> None:
        """Close the connection, if there is one."""
        if isinstance(self.__dict__.get("_connection"), Engine):
            self.engine.close()

    @cached_property
    def _connection(self) -> Engine | RdagentFtError:
        try:
            return connect()
        except RdagentFtError as error:  # kept: five checks must not wait for it five times
            return error

    @cached_property
    def _sandbox(self) -> Sandbox | RdagentFtError:
        try:
            return probe_sandbox(self.executor, self.settings.file_path)
        except RdagentFtError as error:
            return error


def gpu_names(gpus: tuple[Gpu, ...]) -> str:
    """Return GPUs as a person would name them."""
    return ", ".join(f"{gpu.name} ({gpu.memory_gib:.0f} GiB)" for gpu in gpus)
