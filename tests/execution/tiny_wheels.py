"""Wheels of a few bytes, and pins for them: images that build in seconds from the real Dockerfiles."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from rdagent_ft.execution import image_context
from rdagent_ft.execution.image_pins import IMAGE_NAMES, ImageName, ImagePins, Pins


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """Write an installable wheel with one module whose VERSION is its version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def tiny_pins(name: ImageName, packages: dict[str, str], *, parent: ImageName | None = None) -> Pins:
    """Pins of which one image asks for `packages` and the others for nothing."""
    images = {other: ImagePins() for other in IMAGE_NAMES}
    images[name] = ImagePins(parent=parent, packages=packages)
    return Pins.model_validate(
        {"base_image": "unused:1", "variants": {"cpu": {}, "cuda": {}}, "images": images}
    )


def use_pins(monkeypatch: pytest.MonkeyPatch, pins: Pins) -> None:
    """Let `pins` stand for the shipped ones."""
    monkeypatch.setattr(image_context, "shipped_pins", lambda: pins)
