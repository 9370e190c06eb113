"""`rdagent-ft status`: where a run stands, from its files alone."""

from __future__ import annotations

from typing import Annotated

import typer

from rdagent_ft.cli.options import AsJson, EnvFile


def status(
    run: Annotated[str, typer.Argument(help="Run id, unique beginning of one, or `latest`.")] = "latest",
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a run's scores, claim and cost; with --json also every step with its attempts."""
    import json

    from rdagent_ft.reporting.document import run_document, status_document
    from rdagent_ft.reporting.read import find_run, open_run
    from rdagent_ft.reporting.results_tsv import results_tsv
    from rdagent_ft.settings_sources import load_settings

    settings = load_settings(env_file=env_file).settings
    view = open_run(find_run(settings.file_path / "output", run))
    if as_json:
        print(json.dumps(status_document(view).model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    document = run_document(view)
    print(f"run {document.run_id}: {document.status} ({document.stop_reason})")
    print(results_tsv(view), end="")
    if document.claim is not None:
        low, high = document.claim.ci95
        print(
            f"claim: {document.claim.verdict}, {document.claim.delta:+.1%} [{low:+.1%}, {high:+.1%}] "
            f"on {document.claim.n} sealed test items"
        )
