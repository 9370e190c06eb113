"""Where the shipped prompts and templates lie: at the repository's root, or inside the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped_folder(kind: Literal["prompts", "templates"]) -> Path:
    """Return the folder of prompts or templates. Raises `FileNotFoundError` on a broken install."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_shipped" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no {kind}/ beside {package} or in it: the installation is incomplete")
