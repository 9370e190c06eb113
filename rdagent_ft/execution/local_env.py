"""The environment of local jobs: an allow-list of the caller's, caches inside the job's folder.

Keys, tokens and FT_ settings never reach a job, because it may run code that an LLM wrote and its
log is shown to an LLM.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from rdagent_ft.execution.job_environment import common_variables
from rdagent_ft.execution.processes import MARKER

ALLOWED = frozenset(
    {
        "PATH",
        "LANG",
        "TZ",
        "TMPDIR",
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "LD_LIBRARY_PATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    }
)


def job_environment(extra: dict[str, str], *, marker: str, control: Path, out_dir: Path) -> dict[str, str]:
    """Return the whole environment of a job; `extra` wins over everything but the marker.

    `PYTHONPATH` is a folder that holds a link to this package and nothing else, so a job in another
    environment gets our job scripts without this environment's packages.
    """
    caches = out_dir / ".cache"
    return {
        **_allowed(),
        "HOME": str(caches / "home"),
        **common_variables(str(caches)),
        "PYTHONPATH": str(_package_link(control)),
        **extra,
        MARKER: marker,
    }


def supervisor_environment() -> dict[str, str]:
    """Return the environment of the supervisor: the allow-list and the path of this package."""
    return {**_allowed(), "PYTHONPATH": str(_package_folder().parent)}


def _allowed() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in ALLOWED or name.startswith("LC_")}


def _package_folder() -> Path:
    return Path(__file__).resolve().parent.parent


def _package_link(control: Path) -> Path:
    folder = control / "path"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / _package_folder().name
    # Renamed into place: two controllers may submit the same attempt at the same moment.
    temporary = folder / f".{link.name}.{os.getpid()}.{threading.get_ident()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(_package_folder(), target_is_directory=True)
    temporary.replace(link)
    return folder
