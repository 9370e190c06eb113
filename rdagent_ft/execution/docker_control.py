"""Where the controller keeps its own files of a docker attempt: beside the job's folder, out of its reach."""

from __future__ import annotations

import json
from pathlib import Path

from rdagent_ft.execution.port import JobResult

RESULT_NAME = "result.json"


def control_folder(out_dir: Path, attempt_id: str) -> Path:
    """Return the folder of the controller's files of an attempt."""
    out_dir = out_dir.absolute()
    return out_dir.with_name("." + out_dir.name) / attempt_id


def read_result(control: Path) -> JobResult | None:
    """Return the recorded end of an attempt; None when there is none yet."""
    try:
        return JobResult.model_validate(json.loads((control / RESULT_NAME).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
