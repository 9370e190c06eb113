"""Giving the caller back the rights on an ended job's folder, and taking away those that it must not give.

A job owns its files as the caller does: it may leave folders that nobody can list or remove, and a
copy of a shell that runs as the caller for whoever starts it. Files keep their other rights: one that
cannot be read is refused by name (`outputs`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def settle_rights(folder: Path, max_entries: int) -> None:
    """Let the owner list and enter every folder, and clear set-user-id and set-group-id bits.

    Only for a job that has ended: paths are looked at and then changed. Follows no link. Stops after
    `max_entries`; what is not ours to change, or deeper than any path reaches, stays as it is.
    """
    pending, n_left = [str(folder)], max_entries
    while pending:
        place = pending.pop()
        with contextlib.suppress(OSError):
            _change(place, os.lstat(place), wanted=stat.S_IRWXU, unwanted=0)
            with os.scandir(place) as entries:
                for entry in entries:
                    n_left -= 1
                    if n_left < 0:
                        return
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
                    elif stat.S_ISREG(status.st_mode):
                        _change(entry.path, status, wanted=0, unwanted=stat.S_ISUID | stat.S_ISGID)


def _change(path: str, status: os.stat_result, *, wanted: int, unwanted: int) -> None:
    before = stat.S_IMODE(status.st_mode)
    after = (before | wanted) & ~unwanted
    if after != before:
        Path(path).chmod(after)
