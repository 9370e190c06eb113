"""Variables that every job gets, wherever it runs, and those that none may get."""

from __future__ import annotations

import re

from rdagent_ft.errors import JobError

_SECRET_NAME = re.compile(r"API_?KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY$|_TOKEN$|^TOKEN$", re.IGNORECASE)


def check_extra(extra: dict[str, str]) -> None:
    """Refuse variables that a job must never get. Raises `JobError` that names all of them."""
    refused = sorted(name for name in extra if name.startswith("FT_") or _SECRET_NAME.search(name))
    if refused:
        raise JobError(f"a job must not get the variables {', '.join(refused)}: they may carry a secret")


def common_variables(caches: str) -> dict[str, str]:
    """Return the variables of every job: caches below the folder `caches`, no network, no guessing."""
    return {
        "XDG_CACHE_HOME": caches,
        "HF_HOME": f"{caches}/huggingface",
        "HF_DATASETS_CACHE": f"{caches}/datasets",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "MPLCONFIGDIR": f"{caches}/matplotlib",
        # Spinning OpenMP threads starve each other once cores are shared: a tiny model's training
        # took 42 s instead of 1.7 s on two busy cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # a file of the job named torch.py must not shadow torch
    }
