"""The machine is read without torch, and GPUs as CUDA would see them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rdagent_ft.execution.machine import machine_facts, parse_gpus, read_machine

LISTING = """0, GPU-aaaa-1, 143771, NVIDIA H200
1, GPU-bbbb-2, 24564, NVIDIA GeForce RTX 4090
not a line
2, GPU-cccc-3, [N/A], broken
"""


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        ("1", ["GPU-bbbb-2"]),
        ("1,0", ["GPU-bbbb-2", "GPU-aaaa-1"]),
        ("GPU-bb", ["GPU-bbbb-2"]),
        ("0,7,1", ["GPU-aaaa-1"]),
        ("", []),
        ("-1", []),
    ],
)
def test_visible_gpus(visible: str | None, uuids: list[str]) -> None:
    assert [gpu.uuid for gpu in parse_gpus(LISTING, visible)] == uuids


def test_memory_is_in_gib() -> None:
    assert parse_gpus(LISTING, "0")[0].memory_gib == pytest.approx(140.4, abs=0.01)


def test_this_machine_is_described(tmp_path: Path) -> None:
    machine = read_machine(tmp_path / "not" / "there" / "yet")
    assert machine.n_cpus >= 1
    assert machine.memory_gib > 0
    assert machine.free_disk_gib > 0
    assert machine.device == ("cuda" if machine.gpus else "cpu")
    assert f"{machine.n_cpus} CPU cores" in machine_facts(machine)[0]


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from rdagent_ft.execution import local, machine; machine.read_machine(); "
        "from rdagent_ft.training import failures, monitor, plan, config_compat; "
        "raise SystemExit(bool({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
