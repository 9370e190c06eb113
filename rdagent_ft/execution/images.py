"""Our images on an engine: find them by label, build what is missing, remove what is superseded.

An image is found by the hashes in its labels. Building is the `docker build` command, since the SDK
cannot drive BuildKit; command and SDK find the engine through the same environment. Two controllers
that miss the same image may both build it: that costs time and ends in equal images. Pulling prebuilt
images from a registry is not covered.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdagent_ft.errors import EngineAwayError, PreflightError
from rdagent_ft.execution.image_build import BuildOptions, Progress, run_build
from rdagent_ft.execution.image_context import REPOSITORY, ImagePlan, ImageRequest, plan_image
from rdagent_ft.execution.image_labels import (
    LABEL_BUILD_STAGE,
    LABEL_IMAGE,
    ImageRef,
    ListedImage,
    created,
    labels_of,
    read_image,
)
from rdagent_ft.execution.image_pins import IMAGE_NAMES, ImageName

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image


def find_image(client: DockerClient, request: ImageRequest) -> ImageRef | None:
    """Return the image that a build of `request` would give, where the engine has it.

    Without `request.wheels` any image of the same pins, Dockerfile, variant and base will do, whatever
    wheels it was built from: a node that got its images from wheels need not keep them.
    """
    return _find(client, plan_image(request))


def newest_image(client: DockerClient, name: ImageName) -> ImageRef | None:
    """Return the newest image of this name that today's pins and Dockerfile would give again.

    Whatever its variant, base and wheels; None where there is none. For tests and diagnosis, which do
    not know how the machine's images were built. Jobs run in what `ensure_image` gives.
    """
    return next((i for i in _images(client, name) if i.recipe_hash == _recipe_today(i)), None)


def ensure_image(
    client: DockerClient,
    request: ImageRequest,
    log_folder: Path,
    progress: Progress,
    options: BuildOptions | None = None,
) -> ImageRef:
    """Return the image of `request`; it and its parent are built only where the engine lacks them.

    `options.no_cache` builds it again in any case. A build's log is `<log_folder>/<name>.log`; its lines
    go to `progress` too. Raises `PreflightError` when a build fails, `EngineAwayError` when no engine
    answers, `UserError` when the folder of wheels cannot be used.
    """
    options = options or BuildOptions()
    plan = plan_image(request)
    found = None if options.no_cache else _find(client, plan)
    return found or _build(client, plan, log_folder, progress, options)


def remove_superseded(client: DockerClient, keep: ImageRef) -> list[str]:
    """Remove other images of the same name, variant and base, and the build stages of finished builds.

    Only images with our tags or our build-stage label are looked at, and none that a container uses is
    removed. Returns what was removed: tags, or ids where there is no tag.
    """
    same = (keep.variant, keep.base_image)
    old = [image for image in _images(client, keep.name) if (image.variant, image.base_image) == same]
    removed = [i.tag for i in old if i.image_id != keep.image_id and _remove(client, i.tag)]
    filters = {"label": f"{LABEL_BUILD_STAGE}={keep.name}", "dangling": True}
    with _asking():
        stages = client.images.list(filters=filters)
    for stage in stages:
        # A younger one may belong to a build that is running now.
        if created(stage) <= keep.created and _remove(client, str(stage.id)):
            removed.append(str(stage.id))
    return removed


def list_images(client: DockerClient) -> list[ListedImage]:
    """Return all images of ours on this engine, by name, the newest first."""
    listed: list[ListedImage] = []
    for name in IMAGE_NAMES:
        seen: set[tuple[str, str]] = set()
        for image in _images(client, name):
            place = (image.variant, image.base_image)
            current = place not in seen and image.recipe_hash == _recipe_today(image)
            if current:
                seen.add(place)
            listed.append(ListedImage(image=image, state="current" if current else "superseded"))
    return listed


def _find(client: DockerClient, plan: ImagePlan) -> ImageRef | None:
    found = [i for i in _images(client, plan.request.name) if i.recipe_hash == plan.recipe_hash]
    if plan.request.wheels is not None:
        found = [image for image in found if image.context_hash == plan.context_hash]
    return found[0] if found else None


def _build(
    client: DockerClient, plan: ImagePlan, log_folder: Path, progress: Progress, options: BuildOptions
) -> ImageRef:
    base = plan.base_image
    if plan.parent is not None:
        parent_options = BuildOptions(network=options.network)
        base = ensure_image(client, plan.parent.request, log_folder, progress, parent_options).tag
    replaced = _tagged(client, plan.tag)
    progress(f"building {plan.tag} on {base}")
    run_build(plan, base, labels_of(plan), log_folder / f"{plan.request.name}.log", progress, options)
    image = _tagged(client, plan.tag)
    built = None if image is None else read_image(image)
    if built is None:
        raise PreflightError(
            f"`docker build` ended well and the engine does not hold {plan.tag}",
            hint="the builder may keep its results for itself: choose one that loads them into the engine "
            "(`docker buildx use default`)",
        )
    if replaced is not None and replaced.id != built.image_id:
        _remove(client, str(replaced.id))
    return built


def _images(client: DockerClient, name: ImageName) -> list[ImageRef]:
    """Return our images of this name, the newest first."""
    with _asking():
        found = client.images.list(name=f"{REPOSITORY}/{name}", filters={"label": f"{LABEL_IMAGE}={name}"})
    refs = [ref for image in found if (ref := read_image(image)) is not None]
    return sorted(refs, key=lambda ref: ref.created, reverse=True)


def _recipe_today(image: ImageRef) -> str:
    """Return the recipe hash that today's files give for an image like this one."""
    request = ImageRequest(name=image.name, variant=image.variant, base_image=image.base_image)
    if image.name == "llamafactory":
        # FT_UPDATE_LLAMA_FACTORY moves its version without a change of images.toml.
        request = request.with_version("llamafactory", image.versions.get("llamafactory", ""))
    return plan_image(request).recipe_hash


def _tagged(client: DockerClient, tag: str) -> Image | None:
    from docker.errors import ImageNotFound

    with _asking():
        try:
            return client.images.get(tag)
        except ImageNotFound:
            return None


def _remove(client: DockerClient, name: str) -> bool:
    """Remove an image and the untagged layers below it; False where it is in use or gone."""
    from docker.errors import APIError

    images: Any = client.images
    with _asking():
        try:
            images.remove(name)
        except APIError as error:
            if error.status_code in (404, 409):
                return False
            raise
    return True


@contextmanager
def _asking() -> Generator[None]:
    """Turn the SDK's and its HTTP library's exceptions into ours."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        raise EngineAwayError(
            f"the engine did not answer a question about images: {error}",
            hint="see `docker info`; DOCKER_HOST names the engine",
        ) from None
