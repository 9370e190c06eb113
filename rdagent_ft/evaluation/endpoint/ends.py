"""How an evaluation through an endpoint can end, as one list that the job and its watcher share.

The job's exit code carries the kind, because a job that cannot write has no other way to tell it.
An exit code is believed only when it is bad news: `ok` needs complete answers on disk.
"""

from __future__ import annotations

import errno
from typing import Literal

from rdagent_ft.errors import JobError

EndKind = Literal[
    "ok",
    "partial",
    "timeout",
    "hang",
    "crash",
    "stopped",
    "server_gone",
    "auth",
    "bad_request",
    "tokenizer",
    "unwritable",
    "disk_full",
]
"""`ok`: every question has an answer. `partial`: complete, but some questions could not be answered."""

EXIT_CODES: dict[EndKind, int] = {
    "server_gone": 81,
    "auth": 82,
    "bad_request": 83,
    "tokenizer": 84,
    "unwritable": 85,
    "disk_full": 86,
}
END_PREFIX = "evaluation ended: "
PARENT_VARIABLE = "RDAGENT_FT_PARENT_PID"
"""Tells the job who watches it, so that it ends when its watcher does."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNWRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.EEXIST}
)


class EndpointError(JobError):
    """The evaluation cannot go on: `kind` is the way it ends. One failed item never raises this."""

    def __init__(self, kind: EndKind, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind: EndKind = kind


def kind_of_os_error(error: OSError) -> EndKind | None:
    """Return `disk_full` or `unwritable`; None for an error that is about something else."""
    if error.errno in _FULL:
        return "disk_full"
    return "unwritable" if error.errno in _UNWRITABLE else None
