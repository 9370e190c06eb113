"""The pins of `images.toml`: which packages each image holds, on which base, in which variant.

One place reads the file, so that Dockerfiles, the validator and reports cannot disagree. Knows
nothing of an engine or of building.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError

from rdagent_ft.errors import UserError
from rdagent_ft.shipped import shipped_file
from rdagent_ft.values import Frozen

ImageName = Literal["train", "lm-eval", "serve", "opencompass", "llamafactory"]
Variant = Literal["cpu", "cuda"]
IMAGE_NAMES: tuple[ImageName, ...] = get_args(ImageName)
VARIANTS: tuple[Variant, ...] = get_args(Variant)

_EXACT_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]*")


def _exact(pins: dict[str, str]) -> dict[str, str]:
    for name, version in pins.items():
        if not _EXACT_VERSION.fullmatch(version):
            raise ValueError(f"{name} = {version!r} is not an exact version")
    return pins


PinTable = Annotated[dict[str, str], AfterValidator(_exact)]


class VariantPins(Frozen):
    """What one variant adds to an image."""

    packages: PinTable = {}


class VariantSource(Frozen):
    """Where packages of a variant come from besides pip's own index."""

    extra_index_url: str | None = None


class ImagePins(Frozen):
    """One image: package name -> exact version, asked for or only bounded.

    Attributes:
        parent: our image it is built on; None means the base image.
        packages: what is asked for in every variant; recorded in the label.
        constraints: exact versions of what those pull in, as far as they are fixed.
        cpu / cuda: what a variant adds.
    """

    parent: ImageName | None = None
    packages: PinTable = {}
    constraints: PinTable = {}
    cpu: VariantPins = VariantPins()
    cuda: VariantPins = VariantPins()

    def packages_of(self, variant: Variant) -> dict[str, str]:
        """Return the packages that are asked for in this variant, by name."""
        added = self.cpu if variant == "cpu" else self.cuda
        return self.packages | added.packages


class Pins(Frozen):
    """All of `images.toml`. `base_image` is what images stand on unless a setting names another."""

    base_image: str
    variants: dict[Variant, VariantSource]
    images: dict[ImageName, ImagePins] = Field(min_length=len(IMAGE_NAMES))


def read_pins(path: Path) -> Pins:
    """Read an `images.toml`. Raises `UserError` that names the file and the key."""
    try:
        value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Pins.model_validate(value)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UserError(f"{path} is not a valid list of image pins: {error}") from None


@cache
def shipped_pins() -> Pins:
    """Return the pins that came with this installation; read once."""
    return read_pins(shipped_file("images.toml"))
