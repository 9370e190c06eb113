"""What OpenCompass's logs say: the cause of a failure, and changes that it makes without failing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from rdagent_ft.execution.outputs import read_log
from rdagent_ft.values import Frozen

FailureClass = Literal[
    "ok", "server", "context", "tokenizer", "data", "crash", "incomplete", "timeout", "stopped"
]
"""`server`: requests failed for good. `context`: a prompt does not fit, or the generation limit was
lowered. `tokenizer`: lengths were not counted with the model's own. `data`: a file OpenCompass wanted.
`crash`: another exception. `incomplete`: no sign why answers are missing."""

MAX_LOGS, MAX_TRACEBACKS = 200, 10
_ALTERED: tuple[tuple[str, FailureClass, str], ...] = (
    ("Failed to load hf tokenizer", "tokenizer", "it could not load the model's tokenizer"),
    ("max_out_len was truncated", "context", "it lowered the generation limit of a long prompt"),
)
_CAUSES: tuple[tuple[str, FailureClass, str], ...] = (
    ("exceeds max_seq_len", "context", "a prompt is longer than the context"),
    ("is less than or equal to 0", "context", "a prompt leaves no room for an answer"),
    ("Calling OpenAI API failed", "server", "the server did not answer a question after all retries"),
    ("does not exist!Start Download", "data", "a data file was not where it looks"),
    ("FileNotFoundError", "data", "a data file was not where it looks"),
    ("Traceback (most recent call last)", "crash", "it raised an exception"),
)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(?P<end>\S.*)")


class LogFindings(Frozen):
    """What stands in the logs.

    Attributes:
        altered: it asked otherwise than it was told to, so that no answer counts; None when not.
        cause: why a task failed, as far as the logs say.
        tracebacks: where and how exceptions ended.
    """

    altered: FailureClass | None
    cause: FailureClass | None
    message: str
    tracebacks: tuple[str, ...]


def read_logs(main_log: Path, run_dir: Path | None) -> LogFindings:
    """Read the main log and the tasks' own below `logs/infer`; exit codes are 0 even after exceptions."""
    paths = [main_log]
    if run_dir is not None:
        paths += sorted((run_dir / "logs" / "infer").rglob("*.out"))[:MAX_LOGS]
    texts = [read_log(path) for path in paths]
    altered = _first(texts, _ALTERED)
    cause = _first(texts, _CAUSES)
    found = altered or cause
    ends = [
        f"{path.name}: {match['end'][:300]}"
        for path, text in zip(paths, texts, strict=True)
        for match in _TRACEBACK.finditer(text)
    ]
    return LogFindings(
        altered=None if altered is None else altered[1],
        cause=None if cause is None else cause[1],
        message="" if found is None else found[2],
        tracebacks=tuple(ends[:MAX_TRACEBACKS]),
    )


def _first(
    texts: list[str], signs: tuple[tuple[str, FailureClass, str], ...]
) -> tuple[str, FailureClass, str] | None:
    return next((sign for sign in signs if any(sign[0] in text for text in texts)), None)
