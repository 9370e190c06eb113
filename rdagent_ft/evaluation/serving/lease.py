"""The controller's side of a lease: a file that is touched as long as this process lives.

The server's job ends itself when the touching stops (`serve_job`), which also covers a controller that
was killed. It also keeps an idle server from looking stalled to its executor, which watches the folder.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


class Lease:
    """A running lease on `path`, whose folder must exist. Close it to let go."""

    def __init__(self, path: Path, every_s: float) -> None:
        self._path = path
        self._every_s = every_s
        self._over = threading.Event()
        path.unlink(missing_ok=True)
        path.touch()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop touching; idempotent."""
        self._over.set()
        self._thread.join(5)

    def _keep(self) -> None:
        while not self._over.wait(self._every_s):
            # The folder is the job's: what it may put in the file's place is not followed.
            with contextlib.suppress(OSError):
                os.utime(self._path, follow_symlinks=False)
