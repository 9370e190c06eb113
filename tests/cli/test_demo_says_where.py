"""Where the demo's jobs run when nobody said so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("argv", "executor"),
    [((), "local"), (("--executor", "local"), "local"), (("--executor", "docker"), "docker")],
)
def test_the_demo_chooses_local_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], executor: str
) -> None:
    (tmp_path / "a-file").touch()  # where no folder can be made, the demo ends before its first job
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path / "a-file"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    command = [sys.executable, "-m", "rdagent_ft.cli.main", "demo", *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith(f"demo: jobs run with the {executor} executor")
