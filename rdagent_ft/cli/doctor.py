"""`rdagent-ft doctor`: is this machine fit to start, and what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from rdagent_ft.cli.options import AsJson, EnvFile, Executor

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def doctor(
    only: Annotated[str | None, typer.Option(help="Comma-separated check ids to run.")] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Also ask the configured LLM for its models.")
    ] = False,
    executor: Executor = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Check Python, packages, disk, Docker, GPU, LLM and settings; exit 3 when something fails."""
    import json

    from rdagent_ft.cli.doctor_checks import run_checks
    from rdagent_ft.settings_sources import load_settings

    loaded = load_settings({"executor": executor}, env_file=env_file)
    wanted = None if only is None else {part.strip() for part in only.split(",")}
    checks = run_checks(loaded, wanted, online=online)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        rows = [check.model_dump(mode="json") for check in checks]
        print(json.dumps({"schema_version": 1, "ok": not failed, "checks": rows}, indent=2))
    else:
        for check in checks:
            print(f"{MARKS[check.status]}  {check.id:<15} {check.found}")
            if check.fix:
                print(f"      {'':<15} fix: {check.fix}")
    raise SystemExit(3 if failed else 0)
