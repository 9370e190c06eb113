"""Bringing a run to life: a new one from a request, an old one from its folder.

Everything that can be wrong with the input is found here, before a run directory exists or a job is
started. The CLI calls `start_run` and `resume_run`; both end in `run.run`.
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rdagent_ft import __version__
from rdagent_ft.engine.bounds import Bounds, Clock
from rdagent_ft.engine.context import RunContext, RunRequest, StopSignal
from rdagent_ft.engine.executors import OpenExecutor, open_executor
from rdagent_ft.engine.facts import model_facts
from rdagent_ft.engine.faults import Faults
from rdagent_ft.engine.journal import Journal, utc_now
from rdagent_ft.engine.judging import open_judging
from rdagent_ft.engine.leftovers import holding
from rdagent_ft.engine.lock import hold_run
from rdagent_ft.engine.progress import Progress
from rdagent_ft.engine.run import Ending, run
from rdagent_ft.engine.steps.prepare import Gathered, gather
from rdagent_ft.errors import (
    EngineAwayError,
    JobError,
    PreflightError,
    RunLockedError,
    StateError,
    UserError,
)
from rdagent_ft.evaluation.lm_eval_harness import LmEvalHarness
from rdagent_ft.llm.build import build_client
from rdagent_ft.llm.judge_endpoint import resolve_judge_endpoint
from rdagent_ft.llm.port import LlmClient
from rdagent_ft.llm.teacher_endpoint import resolve_teacher_endpoint
from rdagent_ft.planning.build import build_planner
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.settings import Settings, storable

FIXED_SETTINGS = (
    "target_benchmark", "benchmark_datasets", "benchmark_limit", "seed", "dev_items", "val_items",
    "test_items", "equivalence_margin", "guard_margin",
    "tune_decoding", "serving", "teacher_model", "trainer", "parallel",
)  # fmt: skip
"""Settings that shape data, splits and claims: a resume keeps the run's own values."""


def ensure_file_path(settings: Settings, progress: Progress) -> None:
    """Create FT_FILE_PATH with a message. Raises `PreflightError` when it cannot be written."""
    root = settings.file_path
    try:
        if not root.is_dir():
            root.mkdir(parents=True)
            progress.notice(
                f"created {root} (FT_FILE_PATH): datasets, models, benchmarks and output go there"
            )
        for name in ("datasets", "models", "benchmarks", "output"):
            (root / name).mkdir(exist_ok=True)
        probe = root / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise PreflightError(
            f"FT_FILE_PATH {str(root)!r} cannot be written: {error.strerror or error}",
            hint="set FT_FILE_PATH to a folder that you own",
        ) from None


def start_run(
    request: RunRequest, settings: Settings, bounds: Bounds, progress: Progress, stop: StopSignal
) -> tuple[Path, Ending]:
    """Start a new run and work until a bound; return its directory and how it ended."""
    _check_llm(settings)
    _announce_without_llm(settings, progress)
    ensure_file_path(settings, progress)
    clock = Clock(bounds.timeout_s)
    opened = open_executor(settings, progress.notice)
    gathered = gather(request, settings, opened.executor.gpus())
    _check_given_recipe(request, settings, gathered)
    for notice in (*gathered.notices, *gathered.read.notes):
        progress.notice(notice)
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run_dir = (settings.file_path / "output" / run_id).absolute()
    run_dir.mkdir()
    progress.notice(f"run {run_id} in {run_dir}")
    with hold_run(run_dir):
        journal = Journal.create(run_dir, _facts(run_id, request, settings))
        ending = _work(
            run_id, run_dir, journal, request, settings, bounds, clock, progress, stop, opened, gathered
        )
    return run_dir, ending


def resume_run(
    run_dir: Path, settings: Settings, bounds: Bounds, progress: Progress, stop: StopSignal
) -> Ending:
    """Go on with a run at its first unfinished step; return how it ended."""
    run_dir = run_dir.absolute()
    with hold_run(run_dir):
        journal = Journal.open(run_dir)
        request = RunRequest.model_validate_json(journal.fact("request"))
        settings = _keep_fixed(settings, json.loads(journal.fact("settings")), progress)
        _check_llm(settings)
        _announce_without_llm(settings, progress)
        run_id = journal.fact("run_id")
        progress.notice(f"resuming run {run_id} with {len(journal.finished_loops())} finished loops")
        clock = Clock(bounds.timeout_s)
        opened = open_executor(settings, progress.notice)
        return _work(run_id, run_dir, journal, request, settings, bounds, clock, progress, stop, opened, None)


def stored_settings(run_dir: Path) -> dict[str, Any]:
    """Return the settings that the run was started with, without secrets."""
    journal = Journal.open(run_dir)
    try:
        return json.loads(journal.fact("settings"))
    finally:
        journal.close()


def stored_loop_n(run_dir: Path) -> int | None:
    """Return `--loop_n` of the run's last invocation that had one."""
    journal = Journal.open(run_dir)
    try:
        return journal.last_loop_n()
    finally:
        journal.close()


def _work(
    run_id: str, run_dir: Path, journal: Journal, request: RunRequest, settings: Settings, bounds: Bounds,
    clock: Clock, progress: Progress, stop: StopSignal, opened: OpenExecutor, gathered: Gathered | None,
) -> Ending:  # fmt: skip
    llm: LlmClient | None = None
    if settings.planner_model is not None:
        llm = build_client(settings, journal, progress.notice, time_left_s=clock.left_s)
    planner, announcement = build_planner(settings, llm)
    if llm is not None:
        progress.notice(announcement)
    ctx = RunContext(
        run_id=run_id,
        run_dir=run_dir,
        request=request,
        settings=settings,
        journal=journal,
        executor=opened.executor,
        harness=LmEvalHarness(),
        planner=planner,
        llm=llm,
        clock=clock,
        faults=Faults(os.environ.get("FT_FAULT")),
        progress=progress,
        stop=stop,
        judging=open_judging(settings, journal, progress.notice, clock.left_s),
    )
    try:
        _reap_dead_runs(ctx)
        opened.make_ready()
        return run(ctx, bounds, gathered)
    finally:
        if ctx.judging is not None:
            ctx.judging.close()
        journal.close()


def _reap_dead_runs(ctx: RunContext) -> None:
    """Stop jobs that dead runs below FT_FILE_PATH left with the executor; a resume starts them again.

    What cannot be removed now must not keep a new run from starting: it is told, and left to `gc`.
    """
    root = ctx.settings.file_path.absolute()
    for run_dir in ctx.executor.abandoned():
        if run_dir == ctx.run_dir or not run_dir.is_relative_to(root):
            continue
        try:
            with holding(run_dir):
                for attempt_id in ctx.executor.reap(run_dir):
                    ctx.progress.notice(f"stopped {attempt_id}: the process of its run is gone")
        except RunLockedError:
            continue
        except (EngineAwayError, JobError) as error:
            ctx.progress.notice(f"a job of {run_dir} could not be removed: {error.message}")
    ctx.executor.tidy(ctx.run_dir)


def _facts(run_id: str, request: RunRequest, settings: Settings) -> dict[str, str]:
    return {
        "run_id": run_id,
        "created_utc": utc_now(),
        "code_version": __version__,
        "request": request.model_dump_json(),
        "settings": json.dumps(storable(settings)),
    }


def _check_llm(settings: Settings) -> None:
    resolve_judge_endpoint(settings, os.environ)  # raises for a judge that cannot be asked
    resolve_teacher_endpoint(settings, os.environ)
    if settings.planner == "llm" and settings.planner_model is None:
        raise UserError("--planner llm needs a model", hint="set FT_PLANNER_MODEL, e.g. gpt-5-mini")


def _announce_without_llm(settings: Settings, progress: Progress) -> None:
    """Say in the run's first line who proposes when no LLM does."""
    if settings.planner_model is None:
        progress.notice(build_planner(settings, None)[1])


def _check_given_recipe(request: RunRequest, settings: Settings, gathered: Gathered) -> None:
    if request.recipe is None:
        return
    facts = model_facts(gathered.model, settings, request.recipe).model_copy(
        update={
            "device": gathered.machine.device,
            "has_preferences": gathered.preferences is not None,
            "has_scorer": True,
        }
    )
    problems = check_recipe(request.recipe, facts)
    if problems:
        raise PreflightError("the recipe of --recipe breaks rules", problems=tuple(problems))


def _keep_fixed(settings: Settings, stored: dict[str, Any], progress: Progress) -> Settings:
    """Return the settings with the run's own values of `FIXED_SETTINGS`, saying what was kept."""
    try:
        own = Settings(**stored)
    except ValueError as error:
        raise StateError(f"the run's stored settings cannot be read: {error}") from None
    kept: dict[str, Any] = {}
    for name in FIXED_SETTINGS:
        if getattr(settings, name) != getattr(own, name):
            kept[name] = getattr(own, name)
            progress.notice(f"FT_{name.upper()} stays {getattr(own, name)!r}: it shapes this run's data")
    return settings.model_copy(update=kept)
