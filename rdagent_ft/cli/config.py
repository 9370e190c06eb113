"""`rdagent-ft config show`: every setting, its value and where the value came from."""

from __future__ import annotations

import typer

from rdagent_ft.cli.options import AsJson, EnvFile

config_app = typer.Typer(help="Look at the settings.", no_args_is_help=True)


@config_app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Look at the settings."""


@config_app.command()
def show(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Print each FT_ setting with its value and origin; secrets are masked."""
    import json
    import sys

    from rdagent_ft.settings import PREFIX
    from rdagent_ft.settings_sources import load_settings, unknown_variable_notes

    loaded = load_settings(env_file=env_file)
    values = loaded.settings.model_dump(mode="json")
    if as_json:
        rows = {
            PREFIX + name.upper(): {"value": value, "origin": loaded.origins[name]}
            for name, value in values.items()
        }
        print(json.dumps({"schema_version": 1, "settings": rows, "unknown": list(loaded.unknown)}, indent=2))
        return
    width = max(len(name) for name in values) + len(PREFIX)
    for name, value in values.items():
        shown = "(unset)" if value is None else value
        print(f"{PREFIX + name.upper():<{width}}  {loaded.origins[name]:<12}  {shown}")
    for line in unknown_variable_notes(loaded.unknown):
        print(f"warning: {line}", file=sys.stderr)
