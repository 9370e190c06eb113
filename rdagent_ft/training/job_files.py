"""What job scripts read and write beside their trainer: JSON, failures, versions.

Job scripts run in the train environment, which may lack this package's dependencies: standard
library only.
"""

from __future__ import annotations

import json
import math
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, cast

EXIT_FAILED_CHECK = 3
"""Exit code of a job that found its own failure and wrote `failure.json`."""


def write_json_file(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity become null."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(_finite(value), stream, indent=2, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_rows(path: Path, columns: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file with only the named columns; no name keeps all of them.

    Raises `ValueError`.
    """
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number} holds no JSON object")
            values = cast("dict[str, Any]", row)
            rows.append({name: value for name, value in values.items() if not columns or name in columns})
    return rows


def fail(path: Path, failure_class: str, message: str, **evidence: Any) -> NoReturn:
    """Write `failure.json` and end the job with exit code 3."""
    write_json_file(path, {"class": failure_class, "message": message, "evidence": evidence})
    sys.stdout.flush()
    print(f"{failure_class}: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the job's log
    raise SystemExit(EXIT_FAILED_CHECK)


def package_versions(*names: str) -> dict[str, str]:
    """Return name -> installed version, and Python's own; a package that is absent is left out."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]  # pyright: ignore
    return value
