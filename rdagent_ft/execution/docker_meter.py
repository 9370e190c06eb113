"""How much a running job has written on a remote engine, measured from outside of its container.

The job's own processes could stop or deceive a command that runs beside them, so the measuring is a
container of its own that sees the job's folder read-only. It is started at one look and read at a
later one: nobody waits for it. An engine that cannot measure leaves the bound to the fetching.
"""

from __future__ import annotations

import time

from rdagent_ft.errors import EngineRefusedError
from rdagent_ft.execution import docker_labels
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_parcels import output_volume
from rdagent_ft.execution.docker_profile import Limits
from rdagent_ft.execution.docker_short import read_output, short_options

MEASURE_EVERY_S = 20.0
_PLACE = "/measured"
_MEASURE = ["timeout", "300", "sh", "-c", f"du -sk {_PLACE} && du -s --inodes {_PLACE}"]


class Meter:
    """Measures the folders of attempts, each at most every `every_s` seconds."""

    def __init__(self, engine: Engine, limits: Limits, *, every_s: float = MEASURE_EVERY_S) -> None:
        self._engine = engine
        self._limits = limits
        self._every_s = every_s
        self._next: dict[str, float] = {}

    def is_over(self, attempt_id: str, image: str) -> bool:
        """Return whether the newest measure is over the limits of bytes on disk or of files."""
        name = _name(attempt_id)
        try:
            found = self._engine.inspect(name)
            if found is None:
                self._start(attempt_id, image)
                return False
            if found["State"].get("Running"):
                return False
            output = read_output(self._engine, name)
            self._engine.remove(name)
        except EngineRefusedError:
            return False
        return self._reads_over(output)

    def remove(self, attempt_id: str) -> None:
        """End the measuring of an attempt."""
        self._next.pop(attempt_id, None)
        self._engine.remove(_name(attempt_id))

    def _start(self, attempt_id: str, image: str) -> None:
        now = time.monotonic()
        if now < self._next.get(attempt_id, 0.0):
            return
        self._next[attempt_id] = now + self._every_s
        labels = {**docker_labels.own_labels(), docker_labels.ATTEMPT: attempt_id}
        mount = {
            "Type": "volume", "Source": output_volume(attempt_id), "Target": _PLACE, "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True, "Labels": labels},
        }  # fmt: skip
        # A job may take all rights off its own folders; whoever measures must still see into them.
        options = short_options("meter", mounts=[mount], cap_add=["DAC_READ_SEARCH"])
        self._engine.create(_name(attempt_id), image, _MEASURE, options)
        self._engine.start(_name(attempt_id))

    def _reads_over(self, output: str) -> bool:
        numbers = [line.split("\t")[0] for line in output.splitlines() if line.endswith(f"\t{_PLACE}")]
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            return False
        kibibytes, n_files = map(int, numbers)
        return kibibytes * 1024 > self._limits.output_bytes or n_files > self._limits.n_output_files


def _name(attempt_id: str) -> str:
    return f"ft-meter-{attempt_id}"
