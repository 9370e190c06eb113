"""`rdagent-ft images` where no engine is needed, and what it says where none answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rdagent_ft.cli.main import app
from rdagent_ft.errors import UserError
from rdagent_ft.execution.image_pins import shipped_pins


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


def test_pins_are_lines_for_pip() -> None:
    done = CliRunner().invoke(app, ["images", "pins", "train", "lm-eval", "--variant", "cpu"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for name in ("train", "lm-eval"):
        image = shipped_pins().images[name]
        wanted = {f"{key}=={value}" for key, value in (image.packages | image.constraints).items()}
        assert wanted <= set(lines)
    assert len(lines) == len(set(lines))


def test_pins_can_be_had_while_the_folder_of_wheels_is_still_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FT_DOCKER_WHEELS", str(tmp_path / "not-yet"))
    assert "torch==" in CliRunner().invoke(app, ["images", "pins"]).stdout


@pytest.mark.parametrize("verb", ["build", "pins"])
def test_an_unknown_image_is_a_mistake_of_the_user(verb: str) -> None:
    error = CliRunner().invoke(app, ["images", verb, "trian"]).exception
    assert isinstance(error, UserError)
    assert "lm-eval" in str(error.hint)


@pytest.mark.parametrize("arguments", [["build"], ["list", "--json"]])
def test_without_an_engine(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rdagent_ft.cli.main", "images", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "no-engine.sock" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
