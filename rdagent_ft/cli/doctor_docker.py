"""The checks of `doctor` for the docker executor: the engine, its images, and what a job really gets.

What was found is judged here; `docker_side` finds it. With the executor `local` one line says that no
engine is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable

from rdagent_ft.cli.check import Check
from rdagent_ft.cli.docker_side import BUILD, DockerSide, NotCheckedError, gpu_names
from rdagent_ft.engine.executors import AT_ONCE, image_request
from rdagent_ft.errors import JobError, RdagentFtError
from rdagent_ft.execution.docker_profile import GIB
from rdagent_ft.execution.docker_reaper import held_containers
from rdagent_ft.execution.image_context import plan_image
from rdagent_ft.execution.image_labels import ListedImage
from rdagent_ft.execution.image_pins import ImageName
from rdagent_ft.execution.images import list_images
from rdagent_ft.reporting.read import is_locked

MIN_ROOT_FREE_GIB = 20.0
LOCAL = "`--executor local` (FT_EXECUTOR=local) runs jobs as plain subprocesses"


def docker_checks(side: DockerSide, wanted: set[str] | None) -> dict[str, Callable[[], list[Check]]]:
    """Return id -> check. For the executor `local`, one line, or one for each id that is wanted."""
    checks: dict[str, Callable[[DockerSide], Iterable[Check]]] = {
        "docker": _engine,
        "docker-images": _images,
        "docker-gpu": _gpu,
        "docker-shm": _shm,
        "docker-user": _user,
        "docker-orphans": _orphans,
        "docker-disk": _disk,
    }
    if side.settings.executor == "local":
        return {name: _unused(name, wanted) for name in checks}
    return {name: _guarded(name, check, side) for name, check in checks.items()}


def _unused(name: str, wanted: set[str] | None) -> Callable[[], list[Check]]:
    found = Check(id=name, status="ok", found="not used: the executor is `local`")
    return lambda: [found] if name in (wanted or {"docker"}) else []


def _guarded(
    name: str, check: Callable[[DockerSide], Iterable[Check]], side: DockerSide
) -> Callable[[], list[Check]]:
    """Return the check with every error of ours as its result.

    Without an engine the check `docker` says why; the others only say that they could not look.
    """

    def run() -> list[Check]:
        try:
            side.engine  # noqa: B018 - connects
        except RdagentFtError as error:
            if name == "docker":
                return [Check(id=name, status="fail", found=error.message, fix=error.hint)]
            return [Check(id=name, status="warn", found="not checked: no engine answers")]
        try:
            return list(check(side))
        except NotCheckedError as error:
            return [Check(id=name, status="warn", found=error.message, fix=error.hint)]
        except RdagentFtError as error:
            return [Check(id=name, status="fail", found=error.message, fix=error.hint)]

    return run


def _engine(side: DockerSide) -> Iterable[Check]:
    info, facts = side.engine.info, side.facts
    how = f"{'rootless' if info.is_rootless else 'rootful'}, cgroup v{facts.cgroup_version}"
    found = (
        f"{info.version} (API {info.api_version}) at {side.engine.url}: {how}, "
        f"{facts.storage_driver}, {info.n_cpus} CPUs, {info.memory_bytes / GIB:.0f} GiB"
    )
    wanted = side.settings.docker_runtime
    if wanted is not None and wanted not in info.runtimes:
        yield Check(
            id="docker", status="fail", found=f"{found}; no runtime {wanted!r}",
            fix=f"it has {', '.join(info.runtimes)}: set FT_DOCKER_RUNTIME or install that one",
        )  # fmt: skip
        return
    yield Check(id="docker", status="ok", found=found)


def _images(side: DockerSide) -> Iterable[Check]:
    listed = list_images(side.engine.client)
    for name in AT_ONCE:
        image = side.image(name)
        if image is not None:
            found = f"{image.tag} {image.image_id} built from {image.context_hash[:12]}, current"
            yield Check(id="docker-images", status="ok", found=found)
            continue
        yield Check(
            id="docker-images", status="warn",
            found=f"{name}: {_state(side, name, listed)}; a run builds it first (minutes)",
            fix=f"{BUILD} {name}",
        )  # fmt: skip


def _state(side: DockerSide, name: ImageName, listed: list[ListedImage]) -> str:
    """Say what the engine has in the place of an image that it lacks."""
    plan = plan_image(image_request(side.engine, side.settings, name))
    others = [entry.image for entry in listed if entry.image.name == name]
    for image in others:
        if (image.variant, image.base_image) == (plan.request.variant, plan.base_image):
            return f"superseded ({image.tag} {image.image_id})"
    instead = f" (there is one on {others[0].base_image})" if others else ""
    return f"missing for {plan.request.variant} on {plan.base_image}{instead}"


def _gpu(side: DockerSide) -> Iterable[Check]:
    if side.gpus:
        yield Check(id="docker-gpu", status="ok", found=f"a job sees {gpu_names(side.gpus)}")
        return
    found = "no GPU here and no GPU runtime in the engine: jobs train on the CPU"
    if side.settings.allow_cpu:
        yield Check(id="docker-gpu", status="ok", found=f"{found} (FT_ALLOW_CPU)")
    else:
        fix = "set FT_ALLOW_CPU=1 to train tiny models on the CPU; real ones need a GPU"
        yield Check(id="docker-gpu", status="warn", found=found, fix=fix)


def _shm(side: DockerSide) -> Iterable[Check]:
    asked, got = side.limits.shm_bytes, side.sandbox.shm_bytes
    found = f"{got / GIB:.1f} GiB in /dev/shm, {asked / GIB:.1f} GiB asked for"
    if got < asked * 0.99:
        fix = "the runtime ignores the size: try another FT_DOCKER_RUNTIME; data loaders and NCCL need it"
        yield Check(id="docker-shm", status="fail", found=found, fix=fix)
        return
    if asked < side.settings.docker_shm_gib * GIB * 0.99:
        found += " (half of a job's memory, less than FT_DOCKER_SHM_GIB)"
    yield Check(id="docker-shm", status="ok", found=found)


def _user(side: DockerSide) -> Iterable[Check]:
    try:
        sandbox = side.sandbox
    except JobError as error:
        fix = "turn off the engine's `userns-remap` for these jobs; " if side.facts.maps_users else ""
        yield Check(id="docker-user", status="fail", found=error.message, fix=error.hint or f"{fix}{LOCAL}")
        return
    inside, outside = f"{sandbox.uid}:{sandbox.gid}", f"{sandbox.owner_uid}:{sandbox.owner_gid}"
    found = f"a job runs as {inside} and its file belongs to {outside}"
    if sandbox.owner_uid != os.getuid():
        fix = "turn off the engine's `userns-remap`" if side.facts.maps_users else LOCAL
        yield Check(
            id="docker-user", status="fail", found=f"{found}, you are {os.getuid()}:{os.getgid()}", fix=fix
        )
    elif sandbox.uid == 0 and not side.engine.info.is_rootless:
        fix = "run as an ordinary user: then a job is nobody special inside"
        yield Check(id="docker-user", status="warn", found=f"{found}: root, without capabilities", fix=fix)
    else:
        yield Check(id="docker-user", status="ok", found=found)


def _orphans(side: DockerSide) -> Iterable[Check]:
    held = held_containers(side.engine)
    orphans = [one for one in held if not one.owner_lives and not is_locked(one.run_dir)]
    if not orphans:
        yield Check(id="docker-orphans", status="ok", found=f"none ({len(held)} containers of live runs)")
        return
    names = ", ".join(one.name for one in orphans[:5]) + (", …" if len(orphans) > 5 else "")
    found = f"{len(orphans)} containers whose run nobody works on: {names}"
    yield Check(id="docker-orphans", status="warn", found=found, fix="rdagent-ft gc")


def _disk(side: DockerSide) -> Iterable[Check]:
    """Look at the engine's disk from here, or, where that cannot be, from inside a container."""
    root = side.engine.info.root_dir
    try:
        if side.engine.is_remote:
            raise FileNotFoundError
        free_gib = shutil.disk_usage(root).free / GIB
    except OSError:
        free_gib = side.sandbox.root_free_bytes / GIB
    found = f"{free_gib:.0f} GiB free for {root}"
    if free_gib < MIN_ROOT_FREE_GIB:
        fix = "free some space: `rdagent-ft gc --images`, `docker system df` shows what is large"
        yield Check(id="docker-disk", status="warn", found=found, fix=fix)
        return
    yield Check(id="docker-disk", status="ok", found=found)
