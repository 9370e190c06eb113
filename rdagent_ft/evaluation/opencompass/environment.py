"""What an OpenCompass process may see: its own folders, one server, and a tokenizer without code.

`OpenAISDK` loads the tokenizer with `trust_remote_code=True` and, when that fails, downloads one of
OpenAI's and counts with that. So it is given a copy that holds no code and names none, and proxies
that lead nowhere for every host but the server.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.outputs import open_inside, read_json_file
from rdagent_ft.values import write_json

TOKENIZER_MAX_BYTES = 256 << 20
NOWHERE = "http://127.0.0.1:9"
"""The discard port: refused at once, where a firewalled address would hang."""


def place_tokenizer(source: Path, folder: Path) -> None:
    """Copy `tokenizer.json` and what is harmless of `tokenizer_config.json`.

    Raises `PreflightError` without a readable `tokenizer.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (source / "tokenizer.json").is_file():
        raise PreflightError(
            f"{source} holds no tokenizer.json, with which OpenCompass counts prompts",
            hint="save the tokenizer in the fast format beside the model",
        )
    target = folder / "tokenizer.json"
    with (
        os.fdopen(open_inside(source.resolve(), "tokenizer.json"), "rb") as stream,
        target.open("wb") as copy,
    ):
        shutil.copyfileobj(stream, copy)
    settings: dict[str, Any] = {}
    if (source / "tokenizer_config.json").is_file():
        settings = read_json_file(source.resolve(), "tokenizer_config.json", TOKENIZER_MAX_BYTES)
    kept = {
        name: settings[name]
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if name in settings
    }
    write_json(folder / "tokenizer_config.json", {**kept, "tokenizer_class": "PreTrainedTokenizerFast"})


def child_environment(folder: Path, cwd: Path, base_url: str, api_key: str) -> dict[str, str]:
    """Return the whole environment of an OpenCompass process; nothing of ours but PATH is in it.

    A private HOME keeps it from `~/.cache/opencompass`, which it would silently take data from.
    """
    host = urlsplit(base_url).hostname or ""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    return {
        **proxies,
        "no_proxy": host,
        "NO_PROXY": host,
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(cwd),
        "TMPDIR": str(cwd),
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "COMPASS_DATA_CACHE": str(folder / "data-cache"),
        "TIKTOKEN_CACHE_DIR": str(cwd / "tiktoken"),
        "HF_HOME": str(cwd / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "OPENAI_API_KEY": api_key,
    }
