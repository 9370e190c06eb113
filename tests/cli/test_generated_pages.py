"""The generated pages are what the code would generate now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from rdagent_ft.settings import Settings
from rdagent_ft.settings_sources import load_settings


def _generator(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", repository / "scripts" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pages_are_current(repository: Path) -> None:
    for path, text in _generator(repository).pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make docs`"


def test_env_example_with_every_line_active_gives_the_defaults(repository: Path, tmp_path: Path) -> None:
    text = (repository / ".env.example").read_text()
    active = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# FT_"))
    env_file = tmp_path / "all.env"
    env_file.write_text(active)
    loaded = load_settings(env_file=env_file, environ={})
    for name in Settings.model_fields:
        assert getattr(loaded.settings, name) == Settings.model_fields[name].default, name
