"""The job that `doctor` starts: it writes what a job sees of its sandbox to `probe.json`.

Standard library only. It runs where every other job runs, under the same profile; what it finds is
judged outside.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

PROBE_NAME = "probe.json"


def look() -> dict[str, int]:
    """Return uid and gid of this job, the size of /dev/shm and the free space below `/`, in bytes.

    A container's `/` lies on the disk of the engine, so its free space is that of the engine's root.
    """
    shm, root = os.statvfs("/dev/shm"), os.statvfs("/")
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "shm_bytes": shm.f_blocks * shm.f_frsize,
        "root_free_bytes": root.f_bavail * root.f_frsize,
    }


if __name__ == "__main__":
    Path(PROBE_NAME).write_text(json.dumps(look()), encoding="utf-8")
