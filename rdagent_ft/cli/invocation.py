"""What `run`, `resume` and `demo` share: settings, signals, display, final document, exit code."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rdagent_ft.cli.columns_option import parse_columns
from rdagent_ft.cli.progress_view import open_progress
from rdagent_ft.engine.bounds import Bounds, parse_duration_s
from rdagent_ft.engine.context import RunRequest, StopSignal
from rdagent_ft.engine.run import Ending
from rdagent_ft.engine.start import resume_run, start_run, stored_loop_n, stored_settings
from rdagent_ft.errors import RecipeError, UserError
from rdagent_ft.reporting.document import RunDocument, run_document
from rdagent_ft.reporting.read import find_run, open_run
from rdagent_ft.settings import Settings
from rdagent_ft.settings_sources import load_settings, unknown_variable_notes

if TYPE_CHECKING:
    from rdagent_ft.recipe.schema import Recipe

EXIT_BUDGET, EXIT_FAILURES = 5, 6


@dataclass(frozen=True)
class RunOptions:
    """Options of an invocation as typed."""

    loop_n: int | None = None
    step_n: int | None = None
    timeout: str | None = None
    overrides: dict[str, Any] = field(default_factory=lambda: {})
    env_file: Path | None = None
    as_json: bool = False

    def timeout_s(self) -> float | None:
        """Return the timeout in seconds. Raises `UserError` on a malformed duration."""
        return None if self.timeout is None else parse_duration_s(self.timeout)


def start_and_show(
    dataset: str, model: str | None, benchmark: str | None, columns: str | None, recipe: Path | None,
    options: RunOptions, preferences: str | None = None,
) -> None:  # fmt: skip
    """Start a run and end the process with its exit code."""
    bounds = Bounds(loop_n=options.loop_n, step_n=options.step_n, timeout_s=options.timeout_s())
    settings = _settings(options, stored=None)
    request = RunRequest(
        dataset=dataset,
        model=model,
        columns=parse_columns(columns),
        benchmarks=None if benchmark is None else _parse_list(benchmark),
        recipe=None if recipe is None else _read_recipe(recipe),
        preferences=preferences,
    )
    stop = StopSignal()
    _catch_signals(stop)
    with open_progress() as progress:
        run_dir, ending = start_run(request, settings, bounds, progress, stop)
    _finish(run_dir, ending, stop, as_json=options.as_json)


def resume_and_show(name: str, options: RunOptions) -> None:
    """Resume a run and end the process with its exit code."""
    timeout_s = options.timeout_s()
    run_dir = find_run(_settings(options, stored=None, quiet=True).file_path / "output", name)
    settings = _settings(options, stored=stored_settings(run_dir))
    loop_n = options.loop_n if options.loop_n is not None else stored_loop_n(run_dir)
    bounds = Bounds(loop_n=loop_n, step_n=options.step_n, timeout_s=timeout_s)
    stop = StopSignal()
    _catch_signals(stop)
    with open_progress() as progress:
        ending = resume_run(run_dir, settings, bounds, progress, stop)
    _finish(run_dir, ending, stop, as_json=options.as_json)


def _settings(options: RunOptions, stored: dict[str, Any] | None, *, quiet: bool = False) -> Settings:
    if stored is not None:
        # Where the run lies was decided by finding it.
        stored = {name: value for name, value in stored.items() if name != "file_path"}
    loaded = load_settings(options.overrides, env_file=options.env_file, stored=stored)
    if not quiet:
        for line in unknown_variable_notes(loaded.unknown):
            print(f"warning: {line}", file=sys.stderr)
    return loaded.settings


def _catch_signals(stop: StopSignal) -> None:
    """First SIGINT/SIGTERM: stop the job, keep everything, exit. Second: the default, at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.number = signal.Signals(number)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        print("stopping; once more to kill", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _finish(run_dir: Path, ending: Ending, stop: StopSignal, *, as_json: bool) -> None:
    view = open_run(run_dir)
    document = run_document(view)
    if as_json:
        print(json.dumps(document.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        _print_ending(run_dir, document)
    if ending.stop_reason == "interrupted" and stop.number is not None:
        raise SystemExit(128 + stop.number)
    code = {"budget": EXIT_BUDGET, "failures": EXIT_FAILURES}.get(ending.stop_reason, 0)
    raise SystemExit(code)


def _print_ending(run_dir: Path, document: RunDocument) -> None:
    claim = document.claim
    if claim is None:
        print("no claim yet: the sealed test split is still closed")
    else:
        low, high = claim.ci95
        headline = {
            "improved": "improved",
            "equivalent": "no demonstrated improvement: equivalent to the base model",
            "inconclusive": "no demonstrated improvement: the interval contains 0",
            "regressed": "regressed: keep the base model",
        }[claim.verdict]
        print(f"claim: {headline}")
        print(
            f"  {claim.benchmark} on {claim.n} sealed test items: {claim.base:.1%} -> {claim.tuned:.1%}, "
            f"{claim.delta:+.1%} [{low:+.1%}, {high:+.1%}]"
        )
    print(f"status: {document.status} ({document.stop_reason})")
    if document.best.merged:
        print(f"model:  {run_dir / document.best.merged}")
    print(f"report: {run_dir / 'report.html'}")
    if document.status == "stopped":
        print(f"resume: rdagent-ft resume {document.run_id}")


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _read_recipe(path: Path) -> Recipe:
    from rdagent_ft.recipe.validate import read_recipe

    if not path.is_file():
        raise UserError(f"--recipe {str(path)!r} does not exist")
    report = read_recipe(path.read_text(encoding="utf-8"), name=path.name)
    if isinstance(report, tuple):
        raise RecipeError(f"{path.name} is not a valid recipe", problems=report)
    return report
