"""What our images say of themselves: labels written at the build and read back from the engine.

An image counts as ours only when it also carries the tag that its labels name: an image that somebody
built on top of ours inherits every label, and is theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pydantic import Json, ValidationError

from rdagent_ft.execution.image_context import REPOSITORY, ImagePlan
from rdagent_ft.execution.image_pins import ImageName, Variant
from rdagent_ft.values import Frozen, canonical_json

if TYPE_CHECKING:
    from docker.models.images import Image

LABEL_IMAGE = "io.rdagent-ft.image"
LABEL_CONTEXT = "io.rdagent-ft.context"
LABEL_RECIPE = "io.rdagent-ft.recipe"
LABEL_VARIANT = "io.rdagent-ft.variant"
LABEL_BASE = "io.rdagent-ft.base"
LABEL_VERSIONS = "io.rdagent-ft.versions"
LABEL_BUILD_STAGE = "io.rdagent-ft.build-stage"
"""Written by each Dockerfile into its first stage, which the final image does not stand on."""


class ImageRef(Frozen):
    """One built image of ours.

    Attributes:
        name: which one of images.toml.
        tag: `rdagent-ft/<name>:<first 12 digits of context_hash>`.
        image_id: `sha256:…`, the engine's own digest; it names the content.
        context_hash: hash of everything it was built from.
        versions: the packages that were asked for, the parent's too; name -> version.
        recipe_hash: as context_hash, without the wheels.
        variant: with or without CUDA.
        base_image: what it stands on in the end.
        created: ISO time of the build, in UTC.
        size_bytes: all layers together, shared ones too.
    """

    name: ImageName
    tag: str
    image_id: str
    context_hash: str
    versions: dict[str, str]
    recipe_hash: str
    variant: Variant
    base_image: str
    created: str
    size_bytes: int


class ListedImage(Frozen):
    """An image and whether today's pins and Dockerfile would give it again."""

    image: ImageRef
    state: Literal["current", "superseded"]


def labels_of(plan: ImagePlan) -> dict[str, str]:
    """Return the labels of the image that `plan` gives."""
    return {
        LABEL_IMAGE: plan.request.name,
        LABEL_CONTEXT: plan.context_hash,
        LABEL_RECIPE: plan.recipe_hash,
        LABEL_VARIANT: plan.request.variant,
        LABEL_BASE: plan.base_image,
        LABEL_VERSIONS: canonical_json(plan.versions),
    }


def read_image(image: Image) -> ImageRef | None:
    """Return an engine's image as ours; None for one that is not, or whose labels are damaged."""
    labels = cast("dict[str, str]", image.labels)
    tag = f"{REPOSITORY}/{labels.get(LABEL_IMAGE)}:{labels.get(LABEL_CONTEXT, '')[:12]}"
    if tag not in image.tags:
        return None
    try:
        said = _Labels.model_validate({key: labels.get(label) for key, label in _FIELDS.items()})
    except ValidationError:
        return None
    return ImageRef(
        **said.model_dump(),
        tag=tag,
        image_id=str(image.id),
        created=created(image),
        size_bytes=int(image.attrs["Size"]),
    )


def created(image: Image) -> str:
    """Return when the image was built, as text that sorts by time."""
    return str(image.attrs["Created"])


class _Labels(Frozen):
    name: ImageName
    context_hash: str
    recipe_hash: str
    variant: Variant
    base_image: str
    versions: Json[dict[str, str]]


_FIELDS = {
    "name": LABEL_IMAGE,
    "context_hash": LABEL_CONTEXT,
    "recipe_hash": LABEL_RECIPE,
    "variant": LABEL_VARIANT,
    "base_image": LABEL_BASE,
    "versions": LABEL_VERSIONS,
}
