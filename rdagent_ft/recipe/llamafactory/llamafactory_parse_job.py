# pyright: basic
"""Let LLaMA-Factory's own parser judge configs: `python llamafactory_parse_job.py CONFIG…`. V2 of the ladder.

Runs in its environment and prints one JSON line; a config with `export_dir` is read as an export.
CPU and offline: neither a GPU nor the model is needed. Imports nothing of this package.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from importlib import metadata
from typing import Any

UNKNOWN = re.compile(r"not used by the HfArgumentParser: (\[.*\])")


def parse(path: str) -> list[dict[str, str]]:
    """Return what the parser says of one config: an entry with key, rule and class a problem."""
    from llamafactory.hparams import (  # pyright: ignore[reportMissingImports]
        get_infer_args,
        get_train_args,
    )
    from omegaconf import OmegaConf  # pyright: ignore[reportMissingImports]

    config = OmegaConf.to_container(OmegaConf.load(path))  # as its own command reads a file
    if not isinstance(config, dict):
        return [{"key": "file", "rule": "must be a mapping", "class": "config.syntax"}]
    read: Any = get_infer_args if config.get("export_dir") else get_train_args
    # The device is not judged here: bf16 passes the parser on a CPU only when `use_cpu` is set.
    given = config if config.get("export_dir") else {**config, "use_cpu": True, "push_to_hub": False}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            read(given)
    except SystemExit:
        return [_entry(errors.getvalue().strip().splitlines()[-1])]
    except (ValueError, TypeError, ImportError, OSError, KeyError, AssertionError) as error:
        return _entries(str(error))
    return []


def _entries(message: str) -> list[dict[str, str]]:
    listed = UNKNOWN.search(message) or re.search(r"Some keys are not used[^:]*: (\[.*\])", message)
    if listed:
        return [
            {"key": key, "rule": "is unknown to the trainer", "class": "config.unknown_key"}
            for key in re.findall(r"'([^']+)'", listed.group(1))
        ]
    return [_entry(message)]


def _entry(message: str) -> dict[str, str]:
    named = re.search(r"`([a-z0-9_]{3,})`", message)
    key = named.group(1) if named else "config"
    return {"key": key, "rule": message[:400], "class": "config.bad_value"}


def main() -> int:
    """Print the verdicts as one JSON line; the exit code tells only whether the check itself ran."""
    if len(sys.argv) < 2:
        sys.stderr.write("usage: llamafactory_parse_job.py CONFIG…\n")
        return 2
    os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", LLAMAFACTORY_VERBOSITY="ERROR")
    verdicts = {path: parse(path) for path in sys.argv[1:]}
    version = metadata.version("llamafactory")
    sys.stdout.write(json.dumps({"problems": verdicts, "llamafactory": version}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
