"""From settings to the image that is wanted, and the newest release of a package.

FT_UPDATE_LLAMA_FACTORY moves the llamafactory image to the newest release; which one that is, only
pip's index (or the folder of wheels) can tell. Where it cannot be learnt, that is an error: a run that
asked for the newest must not get an older one in silence.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.image_context import ImageRequest
from rdagent_ft.execution.image_pins import ImageName, Variant
from rdagent_ft.settings import Settings

LOOKUP_TIMEOUT_S = 180.0


def image_request(name: ImageName, variant: Variant, settings: Settings) -> ImageRequest:
    """Return the image that these settings ask for.

    For llamafactory with FT_UPDATE_LLAMA_FACTORY this asks pip for the newest release (seconds, network)
    and raises `PreflightError` when that fails.
    """
    wheels = None if settings.docker_wheels is None else settings.docker_wheels.absolute()
    request = ImageRequest(name=name, variant=variant, base_image=settings.docker_base_image, wheels=wheels)
    if name == "llamafactory" and settings.update_llama_factory:
        return request.with_version(name, newest_release(name, wheels))
    return request


def newest_release(package: str, wheels: Path | None = None) -> str:
    """Return the newest version of `package` that pip can find: on its index, or in `wheels` alone.

    Uses the running Python's pip and its configuration. Raises `PreflightError`.
    """
    argv = [sys.executable, "-m", "pip", "index", "versions", package]
    if wheels is not None:
        argv += ["--no-index", "--find-links", str(wheels)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=LOOKUP_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise _unknown(package, f"pip did not answer in {LOOKUP_TIMEOUT_S:.0f} s") from None
    found = re.search(rf"^{re.escape(package)} \(([^)\s]+)\)", done.stdout, flags=re.MULTILINE)
    if done.returncode != 0 or found is None:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise _unknown(package, errors[-1].strip() if errors else f"pip ended with {done.returncode}")
    return found.group(1)


def _unknown(package: str, reason: str) -> PreflightError:
    return PreflightError(
        f"the newest release of {package} cannot be learnt: {reason}",
        hint="give pip an index that answers, or set FT_UPDATE_LLAMA_FACTORY=False to keep the pinned one",
    )
