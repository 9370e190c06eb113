"""What the engine tells a person while it works. The CLI shows it; tests record it."""

from __future__ import annotations

from typing import Any, Protocol

from rdagent_ft.reporting.records import StepName


class Progress(Protocol):
    """A listener. Calls return at once and never raise."""

    def notice(self, text: str) -> None:
        """One line that a person should read."""
        ...

    def step_started(self, loop: int, step: StepName) -> None:
        """A step begins (loop -1 is the set-up)."""
        ...

    def metrics(self, line: dict[str, Any]) -> None:
        """A new line of the running job's metrics: step, max_steps, loss, eta_s, …"""
        ...

    def step_ended(self, loop: int, step: StepName, summary: str, wall_s: float) -> None:
        """A step is recorded; `summary` says in a few words what came out."""
        ...

    def scores(self, base: float, best: float | None) -> None:
        """The val score of the base model, and of the leading recipe when there is one."""
        ...


class Silent:
    """Shows nothing."""

    def notice(self, text: str) -> None:
        """Ignore."""

    def step_started(self, loop: int, step: StepName) -> None:
        """Ignore."""

    def metrics(self, line: dict[str, Any]) -> None:
        """Ignore."""

    def step_ended(self, loop: int, step: StepName, summary: str, wall_s: float) -> None:
        """Ignore."""

    def scores(self, base: float, best: float | None) -> None:
        """Ignore."""
