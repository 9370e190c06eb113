"""The command of the data-script job, and why it failed: the core's side.

Its log and its files are written by foreign code. So the log decides no class here: text in it that looks
like a full disk or a broken driver would put the blame elsewhere. What counts is how the executor saw
the job end; the log only gives the last traceback as evidence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import clean_text, read_json_file
from rdagent_ft.execution.port import JobResult
from rdagent_ft.recipe.data_script import SCRIPT_NAME
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.training.failures import classify, error_messages
from rdagent_ft.training.plan import read_failure
from rdagent_ft.values import Frozen

DATA_PLACE = "/data"
OUT_PLACE = "/out"
INPUT_NAME = "train.jsonl"
OUTPUT_NAME = "data.jsonl"
_EXIT_FAILED_CHECK = 3
_MAX_EVIDENCE_CHARS = 480
_N_LINES = 6
_SCRIPT_FRAME = re.compile(rf'^\s*File ".*{re.escape(SCRIPT_NAME)}", line (\d+)', re.MULTILINE)


class DataScriptResult(Frozen):
    """What the job reports of itself (`result.json`): lines written, seconds of the script."""

    n_rows: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]


def data_script_argv(script: Path) -> tuple[str, ...]:
    """Return the job's command; only right in a container that has `/data` and `/out`."""
    module = "rdagent_ft.training.data_script_job"
    return ("python", "-m", module, "--script", str(script), "--out", OUT_PLACE)


def script_failure(result: JobResult, out_dir: Path, limit_s: float) -> Failure | None:
    """Return why the job failed, or None when it ran to its end.

    Args:
        result: how the executor saw it end.
        out_dir: the attempt's folder.
        limit_s: seconds that it had.
    """
    if result.failure_class == "ok":
        return _unfinished(out_dir)
    own = None
    if result.failure_class == "candidate":
        own = {"class": "data.script_failed", "message": last_traceback(result.log_tail)}
        told = read_failure(out_dir) if result.exit_code == _EXIT_FAILED_CHECK else None
        if told is not None and told.get("class") == "data.script_output":
            own = told
    failure = classify("", result=result, failure_json=own)
    assert failure is not None
    if failure.failure_class.startswith("resource."):
        fix = f"make the script cheaper: it has {limit_s:.0f} s; read one row at a time"
        return failure.model_copy(update={"fix": fix})
    if result.failure_class == "infra" and failure.blame == "candidate":
        message = f"the job was not run to its end: {result.reason}"
        return Failure(failure_class="env.lost", blame="environment", message=message, fix="try again")
    return failure


def last_traceback(log_tail: str) -> str:
    """Return the last exception in a log and its line in the script, at most 480 characters.

    Without a traceback: the last lines of the log.
    """
    text = clean_text(log_tail).strip()
    messages = error_messages(text)
    if messages:
        numbers = _SCRIPT_FRAME.findall(text)
        place = f"{SCRIPT_NAME}, line {numbers[-1]}: " if numbers else ""
        return (place + messages[-1])[:_MAX_EVIDENCE_CHARS]
    lines = [line.strip() for line in text.splitlines()[-_N_LINES:] if line.strip()]
    return "\n".join(lines)[-_MAX_EVIDENCE_CHARS:] or "the script ended with an error and wrote nothing"


def _unfinished(out_dir: Path) -> Failure | None:
    """Return a failure when a job that ended well left no result: the script ended the process itself."""
    try:
        DataScriptResult.model_validate(read_json_file(out_dir, "result.json", 1 << 16))
    except (JobError, ValidationError):
        message = "the script ended the process before its output was checked"
        fix = "end the script by reaching its last line"
        return Failure(failure_class="data.script_failed", blame="candidate", message=message, fix=fix)
    return None
