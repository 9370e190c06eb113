"""Progress: a live line on a terminal, one line a step elsewhere, never anything on stdout."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

SCRIPT = r"""
from rdagent_ft.cli.progress_view import open_progress
with open_progress() as progress:
    progress.notice("[hello] <world>")
    progress.step_started(0, "train")
    progress.scores(0.125, 0.5)
    progress.metrics({"step": 7, "max_steps": 90, "loss": 1.25, "eta_s": 42.0})
    for bad in ("\x1b]0;owned\x07", 10**4000, float("inf"), float("nan"), True, [1], None, {"a": 1}):
        progress.metrics({"step": 7, "max_steps": bad, "loss": bad, "eta_s": bad, "total": bad})
        progress.metrics({"step": bad, "done": bad, "max_steps": bad})
    progress.metrics({"step": 7, "max_steps": 90, "loss": 1.25, "eta_s": 42.0})
    import time; time.sleep(0.4)
    progress.step_ended(0, "train", "90 steps", 3.0)
"""


def test_elsewhere_there_is_one_line_a_step(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=repository, check=True
    )
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["[hello] <world>", "[loop 0 train] 90 steps (3.0 s)"]


def test_on_a_terminal_step_loss_eta_and_scores_are_live(repository: Path) -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=follower,
        cwd=repository,
        env=environment,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the terminal is gone: the process has ended
            break
        if not piece:
            break
        shown += piece
    out, _ = process.communicate(timeout=30)
    os.close(leader)
    assert process.returncode == 0
    assert out == b""
    for text in (
        b"loop 0 train",
        b"step 7/90",
        b"loss 1.250",
        b"42 s left",
        b"base 12.5%, best 50.0%",
        b"[hello]",
    ):
        assert text in shown, text
    assert b"owned" not in shown
