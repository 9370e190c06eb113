"""`rdagent-ft gc`: stop jobs that a dead run left behind."""

from __future__ import annotations

import typer

from rdagent_ft.cli.options import EnvFile


def gc(
    env_file: EnvFile = None,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say which runs would be looked at."),
) -> None:
    """Stop jobs of runs that no live process owns. A resume then starts them again from checkpoints."""
    from rdagent_ft.engine.start import build_executor
    from rdagent_ft.reporting.read import is_locked
    from rdagent_ft.settings import load_settings

    settings = load_settings(env_file=env_file).settings
    executor = build_executor(settings)
    for database in sorted((settings.file_path / "output").glob("*/run.db")):
        run_dir = database.parent
        if is_locked(run_dir):
            print(f"{run_dir.name}: owned by a live process, left alone")
        elif dry_run:
            print(f"{run_dir.name}: not owned; its jobs would be stopped")
        else:
            stopped = executor.reap(run_dir)
            print(f"{run_dir.name}: {', '.join(stopped) if stopped else 'no job left behind'}")
