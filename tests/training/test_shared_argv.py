"""The command of a training that several GPUs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdagent_ft.training.plan import shared_argv, stage_argv


def test_accelerate_starts_the_same_module_with_the_same_arguments() -> None:
    alone = stage_argv("dpo", Path("c.yaml"))
    shared = shared_argv(alone, Path("ddp.yaml"))
    assert shared[:5] == ("python", "-m", "accelerate.commands.launch", "--config_file", "ddp.yaml")
    assert shared[5:] == ("--module", *alone[2:])


def test_only_modules_are_shared() -> None:
    with pytest.raises(ValueError, match="module"):
        shared_argv(("sh", "-c", "true"), Path("ddp.yaml"))
