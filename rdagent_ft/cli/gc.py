"""`rdagent-ft gc`: stop what dead runs left behind, and free the disk that nobody needs."""

from __future__ import annotations

import os
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdagent_ft.cli.options import EnvFile, Executor

if TYPE_CHECKING:
    from rdagent_ft.execution.docker_engine import Engine
    from rdagent_ft.execution.port import Executor as JobExecutor
    from rdagent_ft.settings import Settings

GIB = 1 << 30


def gc(
    executor: Executor = None,
    images: Annotated[
        bool, typer.Option("--images", help="Also remove superseded images of ours, and build stages.")
    ] = False,
    cache_gib: Annotated[
        float | None, typer.Option("--cache-gib", min=0, help="Shrink stored job results to so many GiB.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; touch nothing.")
    ] = False,
    env_file: EnvFile = None,
) -> None:
    """Stop jobs of runs that no live process owns. A resume then starts them again from checkpoints.

    Containers count as ours by their labels alone: started by you, from this machine.
    """
    from rdagent_ft.errors import UserError
    from rdagent_ft.execution.docker_engine import connect
    from rdagent_ft.settings_sources import load_settings

    settings = load_settings({"executor": executor}, env_file=env_file).settings
    if images and settings.executor == "local":
        raise UserError("--images needs an engine", hint="leave out `--executor local` and FT_EXECUTOR=local")
    with nullcontext() if settings.executor == "local" else closing(connect()) as engine:
        _stop_jobs(settings, engine, dry_run=dry_run)
        if images and engine is not None:
            _remove_images(engine, dry_run=dry_run)
    if cache_gib is not None:
        _shrink_cache(settings.file_path / "cache" / "jobs", cache_gib, dry_run=dry_run)
        _shrink_tokens(settings, cache_gib, dry_run=dry_run)


def _stop_jobs(settings: Settings, engine: Engine | None, *, dry_run: bool) -> None:
    """Stop what is left of each run below FT_FILE_PATH, and of containers whose run is elsewhere or gone."""
    from rdagent_ft.engine.executors import build_executor
    from rdagent_ft.engine.leftovers import abandoned_containers
    from rdagent_ft.errors import RdagentFtError, RunLockedError

    output = (settings.file_path / "output").absolute()
    runs = [database.parent for database in sorted(output.glob("*/run.db"))]
    containers = {} if engine is None else abandoned_containers(engine)
    executor = None if engine is None or dry_run else build_executor(settings)
    for run_dir in [*runs, *(folder for folder in containers if folder not in runs)]:
        shown = run_dir.name if run_dir.parent == output else str(run_dir)
        held = [one.attempt_id for one in containers.get(run_dir, [])]
        try:
            if dry_run:
                left = _left(run_dir, held)
                print(f"{shown}: {f'would stop {left}' if left else 'no job left behind'}")
            else:
                print(f"{shown}: {_stop(run_dir, executor) or 'no job left behind'}")
        except RunLockedError:
            print(f"{shown}: owned by a live process, left alone")
        except RdagentFtError as error:
            print(f"{shown}: left alone: {error.message}")


def _left(run_dir: Path, held: list[str]) -> str:
    """Return the jobs that would be stopped. Raises `RunLockedError`."""
    from rdagent_ft.engine.leftovers import local_jobs
    from rdagent_ft.errors import RunLockedError
    from rdagent_ft.execution.local import LocalExecutor
    from rdagent_ft.reporting.read import is_locked

    if is_locked(run_dir):
        raise RunLockedError(f"{run_dir.name} is owned by a live process")
    local = LocalExecutor()
    running = [job.attempt_id for job in local_jobs(run_dir) if local.poll(job).state == "running"]
    return ", ".join(sorted({*held, *running}))


def _stop(run_dir: Path, executor: JobExecutor | None) -> str:
    """Stop the run's jobs and return which. Raises `RunLockedError`."""
    from rdagent_ft.engine.leftovers import holding, local_jobs
    from rdagent_ft.execution.local import LocalExecutor

    with holding(run_dir):
        stopped = {name for job in local_jobs(run_dir) for name in LocalExecutor().reap(job.out_dir)}
        if executor is not None:
            stopped |= {*executor.reap(run_dir)}
            executor.tidy(run_dir)
    return ", ".join(sorted(stopped))


def _remove_images(engine: Engine, *, dry_run: bool) -> None:
    from rdagent_ft.engine.leftovers import old_images
    from rdagent_ft.execution.images import remove_superseded

    for keep, superseded in old_images(engine):
        if dry_run:
            removed = [image.tag for image in superseded]
            print(f"{keep.tag}: kept; would remove {', '.join(removed) or 'no image'}, and its build stages")
        else:
            removed = remove_superseded(engine.client, keep)
            print(f"{keep.tag}: kept; removed {', '.join(removed) or 'nothing'}")


def _shrink_tokens(settings: Settings, cache_gib: float, *, dry_run: bool) -> None:
    from rdagent_ft.engine.steps.token_cache import cache_root, prune_tokens

    root = cache_root(settings.file_path)
    if not dry_run and root.is_dir():
        print(f"{root}: removed {len(prune_tokens(root, int(cache_gib * GIB)))} stored token files")


def _shrink_cache(folder: Path, cache_gib: float, *, dry_run: bool) -> None:
    from rdagent_ft.execution.result_store import prune

    if dry_run:
        files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
        held_gib = sum(path.lstat().st_size for path in files) / GIB
        print(f"{folder}: holds {held_gib:.2f} GiB; would keep at most {cache_gib:g} GiB, the newest")
        return
    removed = prune(folder, int(cache_gib * GIB))
    print(f"{folder}: removed {len(removed)} stored results")
