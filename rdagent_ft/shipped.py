"""Where prompts, templates, rubrics, suites and image pins lie: at the root, or inside the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped_folder(kind: Literal["prompts", "templates", "rubrics", "suites"]) -> Path:
    """Return the folder of that kind. Raises `FileNotFoundError` on a broken install."""
    return _find(kind)


def shipped_file(name: Literal["images.toml"]) -> Path:
    """Return the path of a shipped file. Raises `FileNotFoundError` on a broken install."""
    return _find(name)


def _find(name: str) -> Path:
    package = Path(__file__).resolve().parent
    for path in (package / "_shipped" / name, package.parent / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"no {name} beside {package} or in it: the installation is incomplete")
