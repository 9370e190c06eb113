"""How progress is shown: a live line on a terminal, one line a step elsewhere. Always on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rdagent_ft.engine.progress import Progress
from rdagent_ft.reporting.records import CLOSING_STEPS, SETUP_LOOP, StepName


def place(loop: int, step: StepName) -> str:
    """Return how a step is called on screen, e.g. `loop 2 train` or `set-up baseline`."""
    if loop == SETUP_LOOP:
        return f"set-up {step}"
    return f"closing {step}" if step in CLOSING_STEPS else f"loop {loop} {step}"


class LineProgress:
    """One line a step."""

    def notice(self, text: str) -> None:
        """Print the line."""
        print(text, file=sys.stderr, flush=True)

    def step_started(self, loop: int, step: StepName) -> None:
        """Nothing: the end of the step says it all."""

    def metrics(self, line: dict[str, Any]) -> None:
        """Nothing: a log is no place for a progress bar."""

    def step_ended(self, loop: int, step: StepName, summary: str, wall_s: float) -> None:
        """Print what came out, and in which time."""
        print(f"[{place(loop, step)}] {summary} ({wall_s:.1f} s)", file=sys.stderr, flush=True)

    def scores(self, base: float, best: float | None) -> None:
        """Nothing: the steps' lines hold the scores."""


class LiveProgress(LineProgress):
    """Finished steps scroll by; the running one is a live line with loss and ETA."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        self._console = Console(stderr=True, highlight=False)
        self._status = Status("starting", console=self._console)
        self._at = "starting"
        self._scores = ""
        self._status.start()

    def close(self) -> None:
        """Remove the live line."""
        self._status.stop()

    def notice(self, text: str) -> None:
        """Print the line above the live one."""
        self._console.print(text, markup=False)

    def step_started(self, loop: int, step: StepName) -> None:
        """Show the step as the live line."""
        self._at = place(loop, step)
        self._show(self._at)

    def metrics(self, line: dict[str, Any]) -> None:
        """Show loss, step and ETA of the running job."""
        parts = [self._at]
        if _is_number(line.get("step")):
            parts.append(f"step {line['step']:.0f}/{_count(line.get('max_steps'))}")
        if _is_number(line.get("done")):
            parts.append(f"{line['done']:.0f}/{_count(line.get('total'))} answers")
        if _is_number(line.get("loss")):
            parts.append(f"loss {line['loss']:.3f}")
        if _is_number(line.get("eta_s")):
            parts.append(f"{line['eta_s']:.0f} s left")
        self._show("  ".join(parts))

    def step_ended(self, loop: int, step: StepName, summary: str, wall_s: float) -> None:
        """Print the finished step above the live line."""
        self._console.print(f"[{place(loop, step)}] {summary} ({wall_s:.1f} s)", markup=False)

    def scores(self, base: float, best: float | None) -> None:
        """Keep the scores so far at the end of the live line."""
        self._scores = f"base {base:.1%}" + ("" if best is None else f", best {best:.1%}")
        self._show(self._at)

    def _show(self, text: str) -> None:
        from rich.text import Text

        self._status.update(Text("  |  ".join(filter(None, (text, self._scores)))))


def _is_number(value: Any) -> bool:
    """Return whether a job's value is a number of showable size; its texts never reach a terminal."""
    return type(value) in (int, float) and -1e12 < value < 1e12


def _count(value: Any) -> str:
    return f"{value:.0f}" if _is_number(value) else "?"


@contextmanager
def open_progress() -> Generator[Progress]:
    """Yield the display that fits stderr: live on a capable terminal, else one line a step."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        live = LiveProgress()
        try:
            yield live
        finally:
            live.close()
    else:
        yield LineProgress()
