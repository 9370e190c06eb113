"""Why a server is not there: the typed error, and the class of an end read from log and result.

A server dies in a traceback of a child process, repeated by its parents, so that the first exception
in the log is the cause and the last one only says that some engine died.
"""

from __future__ import annotations

import re
from typing import Literal

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.serving.serve_job import LEASE_EXIT, READER_EXIT
from rdagent_ft.execution.port import JobResult

ServerFailure = Literal[
    "oom",  # memory of the GPU or the machine
    "hang",  # not ready in time, or no progress
    "crash",  # any other end
    "socket",  # its address is taken or too long
    "package",  # its environment lacks something
    "model",  # it cannot serve this folder
    "context",  # the cache cannot hold one sequence of max_model_len
    "deadline",  # the job's time is over
    "stopped",  # somebody ended the job
    "lease",  # the job found no controller that wants it
    "remote",  # the executor's jobs cannot be reached from here
    "away",  # one request got no answer
    "adapter",  # it refused an adapter
    "inert",  # an adapter changes nothing
    "nan",  # an adapter answers with NaN
]
"""Classes of `ServerError.kind`."""
_FIXES: dict[ServerFailure, str] = {
    "oom": "serve fewer sequences at once or less cache (see memory_ladder), or a smaller model",
    "package": "install the serve environment (scripts/serve-ci.sh) or build the image `serve`",
    "model": "score it in a job instead (lm-eval's hf backend)",
    "context": "ask for a smaller max_model_len, or give the cache more memory",
    "remote": "score in a job instead, or use an engine on this machine",
}
_PREFIX = re.compile(r"^\([\w-]+ pid=\d+\) (?:(?:ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[[^\]]*\] )?")
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)\b"
    r"|^\S+: (?:Error while finding module specification|No module named)"
)
_STARTED = "Application startup complete."
_MISSING = re.compile(r"ImportError\('([^'\n]{1,300})'\)")
"""vLLM only warns that its compiled part cannot be loaded, and fails later on what is not there."""
_SIGNS: tuple[tuple[ServerFailure, re.Pattern[str]], ...] = (
    (
        "context",
        re.compile(r"KV cache is needed, which is larger|larger than the maximum number of tokens that can"),
    ),
    (
        "oom",
        re.compile(
            r"out of memory|OutOfMemoryError|MemoryError|can't allocate memory|Cannot allocate memory"
            r"|No available memory for the cache blocks|Free memory on device|insufficient memory",
            re.IGNORECASE,
        ),
    ),
    ("socket", re.compile(r"Address already in use|AF_UNIX path too long")),
    (
        "package",
        re.compile(
            r"ModuleNotFoundError|No module named|ImportError|undefined symbol"
            r"|_OpNamespace|InvalidCxxCompiler"
        ),
    ),
    (
        "model",
        re.compile(
            r"not supported for now|Unsupported CPU attention|does not recognize this architecture"
            r"|does not appear to have a file|Tokenizer class .* does not exist|Can't load tokenizer"
            r"|max_model_len .* is greater than|SafetensorError|HeaderTooLarge|Head size .* is not supported"
            r"|no module or parameter named|trust_remote_code|rope_theta",
            re.IGNORECASE,
        ),
    ),
)


class ServerError(JobError):
    """A server could not be started, kept or used. `kind` is the class of the failure."""

    def __init__(self, message: str, *, kind: ServerFailure, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or _FIXES.get(kind))
        self.kind: ServerFailure = kind


def classify_end(result: JobResult, log: str) -> tuple[ServerFailure, str]:
    """Return the class of a server's end, and the line of its log (or a reason) that says so."""
    if result.reason == "deadline":
        return "deadline", "the job's deadline passed"
    if result.reason in {"cancelled", "reaped"}:
        return "stopped", f"the job was {result.reason}"
    if result.exit_code == LEASE_EXIT:
        return "lease", "the job found no controller that wants it"
    _, is_up, after = log.rpartition(_STARTED)
    causes = exception_lines(after)
    if result.exit_code == READER_EXIT:
        return "model", causes[0] if causes else "its reader would misread the checkpoint"
    for cause in causes:
        for kind, sign in _SIGNS:
            if sign.search(cause):
                missing = _MISSING.search(log) if kind == "package" else None
                return kind, missing[1] if missing else cause
    if result.reason in {"out_of_memory", "killed, memory suspected"}:
        return "oom", result.reason
    if result.reason == "start_failed":
        return "package", result.log_tail.strip()[-300:] or "the job could not be started"
    # Once it is up, earlier exceptions are those of requests that it survived.
    which = -1 if is_up else 0
    return "crash", causes[which] if causes else f"{result.reason}, exit code {result.exit_code}"


def exception_lines(log: str) -> list[str]:
    """Return the lines of a log that name an exception, first to last, without the server's prefix."""
    lines = (_PREFIX.sub("", line, count=1) for line in log.splitlines())
    return [line[:400] for line in lines if _EXCEPTION.match(line)]
