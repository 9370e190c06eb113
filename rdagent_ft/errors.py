"""Every error that a caller may see, as one tree. A user's mistake prints one message and an exit
code; a bug of ours keeps its traceback.

    RdagentFtError
    ├── UserError                exit 2   the command or its input is wrong
    │   └── DataError            exit 2   a dataset cannot be read or used
    ├── PreflightError           exit 3   the machine, a key or a recipe is not fit to start
    │   ├── RecipeError          exit 3   a recipe or trainer config breaks rules
    │   └── EngineAwayError      exit 3   no Docker engine answers; the run can be resumed
    ├── BudgetError              exit 5   the spend limit would be passed
    ├── TimeIsUpError            exit 1   nothing new can end in the time that is left (inside a run)
    ├── FailuresError            exit 6   too many loops failed in a row
    ├── RunLockedError           exit 7   a live process owns the run
    ├── StateError               exit 8   the run's stored state is damaged or of another version
    ├── LlmError                 exit 1   an LLM call failed for good (inside a run: the step fails)
    └── JobError                 exit 1   an executor could not do what was asked
        └── EngineRefusedError   exit 1   the Docker engine answered no

Exit 130 (SIGINT), 143 (SIGTERM), 9 (`data decontaminate --fail-on-leak` found a leak) and 10 (`compare
--fail-on-reject` rejects) are set by the CLI; `benchmark` exits 1 when its result is not complete.
Adding an error: subclass the nearest node, give it `exit_code` only if it differs, and name in the
docstring who meets it.

Usage:

    try:
        plan = resolve_dataset(name, settings)
    except RdagentFtError as error:
        print(error.render(), file=sys.stderr)
        raise SystemExit(error.exit_code)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: which key, what value, which rule it breaks, how to fix it.

    `problem_class` is a dotted failure class such as `config.unknown_key` or `data.columns`
    (`docs/failures.md` lists them); it appears as `class` in JSON.
    """

    key: str
    value: Any
    rule: str
    problem_class: str
    fix: str

    def as_json(self) -> dict[str, Any]:
        """Return the problem as a JSON-ready mapping with keys key, value, rule, class, fix."""
        return {
            "key": self.key,
            "value": self.value,
            "rule": self.rule,
            "class": self.problem_class,
            "fix": self.fix,
        }

    def render(self) -> str:
        """Return the problem as one line for people."""
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"`{self.key}`{shown}: {self.rule} [{self.problem_class}]. Fix: {self.fix}"


class RdagentFtError(Exception):
    """Root of the tree. `message` says what happened and to which value; `hint` says what to do."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = problems

    def render(self) -> str:
        """Return the whole error as the text that the CLI prints, without a traceback."""
        lines = [f"error: {self.message}"]
        lines += [f"  - {problem.render()}" for problem in self.problems]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UserError(RdagentFtError):
    """The command line, a setting or a named thing is wrong. Met by the person who typed it."""

    exit_code = 2


class DataError(UserError):
    """A dataset cannot be found, parsed or mapped to rows. Names file, line and columns."""


class PreflightError(RdagentFtError):
    """Something needed before work may start is missing: an engine, a key, a package, a path."""

    exit_code = 3


class RecipeError(PreflightError):
    """A recipe or a trainer config breaks rules; `problems` lists all of them together."""


class EngineAwayError(PreflightError):
    """No Docker engine answers, or it stopped answering for longer than FT_DOCKER_ENGINE_WAIT."""


class BudgetError(RdagentFtError):
    """The next paid call could pass the spend limit, so it was not sent."""

    exit_code = 5


class TimeIsUpError(RdagentFtError):
    """What could still be tried would not end in the time that is left; a run stops as at its timeout."""


class FailuresError(RdagentFtError):
    """Several loops in a row failed; going on would only burn money."""

    exit_code = 6


class RunLockedError(RdagentFtError):
    """Another live process holds the run; the message names it."""

    exit_code = 7


class StateError(RdagentFtError):
    """The run's state cannot be trusted: damaged, or written by another schema version."""

    exit_code = 8


class LlmError(RdagentFtError):
    """An LLM call failed after its bounded retries. `kind` is the class of the failure."""

    def __init__(self, message: str, *, kind: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class JobError(RdagentFtError):
    """An executor could not start, follow or end a job."""


class EngineRefusedError(JobError):
    """The engine answered with an error: an unknown image, a device it has not, a path it cannot mount."""
