"""What this machine has: cores, memory, disk, GPUs. Read without torch, which takes seconds to import.

GPUs are those that `nvidia-smi` lists and `CUDA_VISIBLE_DEVICES` leaves visible; other vendors are
not looked for.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Literal

from rdagent_ft.values import Frozen

_GIB = float(1 << 30)


class Gpu(Frozen):
    """One NVIDIA GPU. `memory_gib` is its whole memory."""

    name: str
    uuid: str
    memory_gib: float


class Machine(Frozen):
    """This machine as jobs will see it.

    Attributes:
        n_cpus: cores this process may use.
        memory_gib: main memory, or the control group's limit where that is lower.
        free_disk_gib: free space where the files will lie.
        device: what a training would run on.
        gpus: the visible GPUs.
    """

    n_cpus: int
    memory_gib: float
    free_disk_gib: float
    device: Literal["cpu", "cuda"]
    gpus: tuple[Gpu, ...] = ()


def read_machine(path: Path | None = None, gpus: tuple[Gpu, ...] | None = None) -> Machine:
    """Look at the machine. `path` chooses the disk; it need not exist yet (default: here).

    `gpus` are those that jobs will see, where that is known; None asks `nvidia-smi`.
    """
    import psutil

    folder = (path or Path.cwd()).absolute()
    while not folder.exists():
        folder = folder.parent
    if gpus is None:
        gpus = read_gpus()
    memory_bytes = min(psutil.virtual_memory().total, _control_group_limit())
    return Machine(
        n_cpus=len(os.sched_getaffinity(0)),
        memory_gib=round(memory_bytes / _GIB, 2),
        free_disk_gib=round(psutil.disk_usage(str(folder)).free / _GIB, 2),
        device="cuda" if gpus else "cpu",
        gpus=gpus,
    )


def read_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs of `nvidia-smi` that are visible; () where it is missing or fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs of an `index, uuid, MiB, name` listing that `CUDA_VISIBLE_DEVICES` shows.

    CUDA stops at the first entry that names no device, and so does this.
    """
    by_key: dict[str, Gpu] = {}
    in_order: list[Gpu] = []
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split(",", 3)]
        if len(parts) != 4 or not parts[2].replace(".", "", 1).isdigit():
            continue
        index, uuid, mebibytes, name = parts
        gpu = Gpu(name=name, uuid=uuid, memory_gib=round(float(mebibytes) / 1024, 2))
        by_key[index] = by_key[uuid] = gpu
        in_order.append(gpu)
    if visible is None:
        return tuple(in_order)
    shown: list[Gpu] = []
    for key in (part.strip() for part in visible.split(",")):
        matches = [gpu for name, gpu in by_key.items() if name == key]
        matches += [gpu for gpu in in_order if len(key) > 4 and gpu.uuid.startswith(key)]
        if not matches:
            break
        shown.append(matches[0])
    return tuple(shown)


def machine_facts(machine: Machine) -> tuple[str, ...]:
    """Return the machine as short sentences for planners and the report."""
    facts = [
        f"{machine.n_cpus} CPU cores, {machine.memory_gib:.0f} GiB memory, "
        f"{machine.free_disk_gib:.0f} GiB free disk."
    ]
    if not machine.gpus:
        facts.append("No GPU: training runs on the CPU.")
    facts += [f"GPU {gpu.name} with {gpu.memory_gib:.0f} GiB memory." for gpu in machine.gpus]
    return tuple(facts)


def _control_group_limit() -> float:
    """Return the memory limit of this control group in bytes; infinity where there is none."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return float(text)
    return float("inf")
