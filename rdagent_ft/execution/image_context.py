"""What an image is built from: its Dockerfile, pip's requirements, the base and the wheels, as hashes.

Two hashes, because wheels only say where packages come from: `recipe_hash` leaves them out,
`context_hash` holds everything and names the tag. A moved tag of the base image is not noticed:
name the base by digest where that matters. Nothing here talks to an engine.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rdagent_ft.errors import UserError
from rdagent_ft.execution.image_pins import ImageName, ImagePins, Pins, Variant, shipped_pins
from rdagent_ft.shipped import shipped_folder
from rdagent_ft.values import Frozen, content_hash, sha256_file, sha256_text

REPOSITORY = "rdagent-ft"
_HASH_CHARS = 64


class ImageRequest(Frozen):
    """Which image is wanted.

    Attributes:
        name: one of images.toml.
        variant: with or without CUDA.
        base_image: what it stands on in the end; None means that of images.toml.
        wheels: folder of wheels that pip installs from, without any index.
        versions: package name -> version that replaces the pinned one.
    """

    name: ImageName
    variant: Variant
    base_image: str | None = None
    wheels: Path | None = None
    versions: dict[str, str] = {}

    def with_version(self, package: str, version: str) -> ImageRequest:
        """Return the request with another version of one package; the pinned one changes nothing."""
        pinned = shipped_pins().images[self.name].packages_of(self.variant).get(package)
        if version == pinned:
            return self
        return self.model_copy(update={"versions": self.versions | {package: version}})


class ImagePlan(Frozen):
    """One image as it would be built now.

    Attributes:
        request: what was asked for.
        base_image: the image at the bottom, ours or not.
        parent: the plan of our own image it is built on.
        dockerfile / requirements / constraints: the texts of the context.
        packages: what is asked for, name -> version.
        versions: the same together with the parent's.
        recipe_hash: hex SHA-256 of everything but the wheels.
        context_hash: hex SHA-256 of everything.
    """

    request: ImageRequest
    base_image: str
    parent: ImagePlan | None
    dockerfile: str
    requirements: str
    constraints: str
    packages: dict[str, str]
    versions: dict[str, str]
    recipe_hash: str
    context_hash: str

    @property
    def tag(self) -> str:
        """Return the name that the built image gets."""
        return f"{REPOSITORY}/{self.request.name}:{self.context_hash[:12]}"

    def pin_lines(self) -> list[str]:
        """Return all that is installed at a fixed version, as `name==version`."""
        return [*_pin_lines(self.packages), *self.constraints.splitlines()]


def plan_image(request: ImageRequest, pins: Pins | None = None, templates: Path | None = None) -> ImagePlan:
    """Return what would be built. `pins` and `templates` replace the shipped ones.

    Raises `UserError` when the folder of wheels is missing or empty.
    """
    pins = pins or shipped_pins()
    image = pins.images[request.name]
    parent = None
    if image.parent:
        above = request.model_copy(update={"name": image.parent, "versions": {}})
        parent = plan_image(above, pins, templates)
    base_image = request.base_image or pins.base_image
    folder = (templates or shipped_folder("templates")) / "docker"
    dockerfile = (folder / f"{request.name}.Dockerfile").read_text(encoding="utf-8")
    packages = image.packages_of(request.variant) | request.versions
    constraints = _constraints(image, parent, request)
    recipe = {
        "dockerfile": sha256_text(dockerfile),
        "packages": packages,
        "constraints": constraints,
        "index": pins.variants[request.variant].extra_index_url,
        "variant": request.variant,
        "base": parent.recipe_hash if parent else base_image,
    }
    whole = {
        "recipe": recipe,
        "parent": parent.context_hash if parent else None,
        "wheels": None if request.wheels is None else wheel_hashes(request.wheels),
    }
    return ImagePlan(
        request=request,
        base_image=base_image,
        parent=parent,
        dockerfile=dockerfile,
        requirements=_requirements(packages, pins, request),
        constraints=constraints,
        packages=packages,
        versions=(parent.versions if parent else {}) | packages,
        recipe_hash=content_hash(recipe, _HASH_CHARS),
        context_hash=content_hash(whole, _HASH_CHARS),
    )


def write_context(plan: ImagePlan, folder: Path) -> None:
    """Fill `folder` with what the engine is sent: Dockerfile, requirements, constraints and wheels/."""
    (folder / "Dockerfile").write_text(plan.dockerfile, encoding="utf-8")
    (folder / "requirements.txt").write_text(plan.requirements, encoding="utf-8")
    (folder / "constraints.txt").write_text(plan.constraints, encoding="utf-8")
    wheels = folder / "wheels"
    wheels.mkdir()
    # COPY refuses an empty folder under some builders.
    (wheels / ".keep").write_text("", encoding="utf-8")
    if plan.request.wheels is not None:
        for wheel in wheel_files(plan.request.wheels):
            _link_or_copy(wheel, wheels / wheel.name)


def wheel_files(folder: Path) -> list[Path]:
    """Return the wheels in `folder`, sorted by name. Raises `UserError` when there is none."""
    found = sorted(path for path in folder.glob("*.whl") if path.is_file())
    if not found:
        raise UserError(
            f"{folder} holds no wheel, and FT_DOCKER_WHEELS names it",
            hint="fill it with `pip wheel -w FOLDER -r FILE`, FILE written by `rdagent-ft images pins`, "
            "or unset FT_DOCKER_WHEELS so that images install from pip's index",
        )
    return found


def wheel_hashes(folder: Path) -> dict[str, str]:
    """Return file name -> hex SHA-256 of the wheels in `folder`."""
    return {path.name: sha256_file(path) for path in wheel_files(folder)}


def _requirements(packages: dict[str, str], pins: Pins, request: ImageRequest) -> str:
    lines: list[str] = []
    extra = pins.variants[request.variant].extra_index_url
    if request.wheels is not None:
        lines += ["--no-index", "--find-links /wheels"]
    elif extra:
        lines.append(f"--extra-index-url {extra}")
    return "\n".join([*lines, *_pin_lines(packages)]) + "\n"


def _constraints(image: ImagePins, parent: ImagePlan | None, request: ImageRequest) -> str:
    # With another version than the pinned one, what was resolved for the pinned one no longer binds.
    own = {} if request.versions else image.constraints
    # What the parent holds must stay as it is: this image only adds to it.
    above = parent.pin_lines() if parent else []
    return "".join(f"{line}\n" for line in sorted({*above, *_pin_lines(own)}))


def _pin_lines(pins: dict[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def _link_or_copy(source: Path, target: Path) -> None:
    """Give `target` the content of `source` without copying gigabytes where that is possible."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
