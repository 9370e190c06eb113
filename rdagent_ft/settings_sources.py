"""Where settings come from: command line > shell > ./.env > the run's stored settings > defaults.

Every value keeps its origin, so that `config show` and an error can say where it was set.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import ValidationError

from rdagent_ft.errors import Problem, UserError
from rdagent_ft.settings import PREFIX, Settings

Origin = Literal["command line", "shell", ".env", "run", "default"]
OF_TESTS = frozenset({"FT_TEST_DATA", "FT_TEST_DOCKER", "FT_TEST_SERVE", "FT_TEST_OPENCOMPASS", "FT_FAULT"})


class LoadedSettings:
    """Settings together with where each value came from."""

    def __init__(self, settings: Settings, origins: dict[str, Origin], unknown: tuple[str, ...]) -> None:
        self.settings = settings
        self.origins = origins
        self.unknown = unknown


def load_settings(
    overrides: dict[str, Any] | None = None,
    *,
    env_file: Path | None = None,
    stored: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
) -> LoadedSettings:
    """Merge all sources. Raises `UserError` that names every bad value at once.

    Args:
        overrides: values from the command line, by field name; None values are ignored.
        env_file: file of `FT_X=…` lines; default `./.env`.
        stored: settings a run was started with, by field name.
        environ: the shell's environment; default `os.environ`.
    """
    shell = dict(os.environ if environ is None else environ)
    path = env_file or Path(".env")
    if env_file is not None and not env_file.is_file():
        raise UserError(f"env file {str(env_file)!r} does not exist")
    dotenv = {k: v for k, v in dotenv_values(path).items() if v is not None} if path.is_file() else {}
    layers: list[tuple[Origin, dict[str, Any]]] = [
        ("run", dict(stored or {})),
        (".env", _prefixed(dotenv)),
        ("shell", _prefixed(shell)),
        ("command line", {k: v for k, v in (overrides or {}).items() if v is not None}),
    ]
    merged: dict[str, Any] = {}
    origins: dict[str, Origin] = dict.fromkeys(Settings.model_fields, "default")
    unknown: dict[str, None] = {}
    for origin, values in layers:
        for name, value in values.items():
            if name in Settings.model_fields:
                merged[name] = value
                origins[name] = origin
            else:
                unknown[name] = None
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        problems = tuple(
            Problem(
                key=PREFIX + str(item["loc"][0]).upper(),
                value=None if "key" in str(item["loc"][0]) else item.get("input"),
                rule=item["msg"],
                problem_class="settings.bad_value",
                fix=f"see docs/settings.md; it came from: {origins.get(str(item['loc'][0]), 'default')}",
            )
            for item in error.errors()
        )
        raise UserError("settings are not valid", problems=problems) from None
    return LoadedSettings(settings, origins, tuple(unknown))


def unknown_variable_notes(unknown: tuple[str, ...]) -> list[str]:
    """Return one line for each unknown FT_ variable, with the nearest known name."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    lines: list[str] = []
    for name in unknown:
        variable = PREFIX + name.upper()
        near = difflib.get_close_matches(variable, names, n=1, cutoff=0.6)
        lines.append(f"{variable} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return lines


def _prefixed(environ: dict[str, str]) -> dict[str, Any]:
    """Return field name -> text for the FT_ variables, without those that belong to the tests."""
    return {
        key[len(PREFIX) :].lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and key not in OF_TESTS
    }
