"""`rdagent-ft report`: write a run's report again from its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdagent_ft.cli.options import EnvFile


def report(
    run: Annotated[str, typer.Argument(help="Run id, unique beginning of one, or `latest`.")] = "latest",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also copy report.html to this file.")
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Write report.html, report.md and results.tsv from the run's journal and say where they are."""
    import shutil

    from rdagent_ft.errors import UserError
    from rdagent_ft.reporting.read import find_run
    from rdagent_ft.reporting.write import write_reports
    from rdagent_ft.settings_sources import load_settings

    settings = load_settings(env_file=env_file).settings
    run_dir = find_run(settings.file_path / "output", run)
    write_reports(run_dir)
    if output is not None:
        try:
            shutil.copyfile(run_dir / "report.html", output)
        except OSError as error:
            raise UserError(f"cannot write {str(output)!r}: {error.strerror}") from None
    print(output or run_dir / "report.html")
