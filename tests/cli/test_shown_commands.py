"""What the documents tell a user to type exists: every verb and option of every shown command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

COMMAND = re.compile(
    r"(?:rdagent-ft (?P<verb>[a-z]+)(?: (?P<second>[a-z]+))?|rdagent_ft/loop\.py)(?P<rest>[^`|]*)"
)
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "docs/quickstart.md", "docs/architecture.md", "docs/benchmarks.md",
    "docs/data-operations.md", "docs/pipelines.md", "docs/publish.md",
)  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shown_commands_exist(repository: Path, name: str) -> None:
    pages = (repository / "docs" / "cli.md").read_text()
    help_of = dict(re.findall(r"## `rdagent-ft ([a-z ]+)`\n\n```text\n(.*?)```", pages, flags=re.S))
    groups = {verb.partition(" ")[0] for verb in help_of if " " in verb}
    text = (repository / name).read_text().replace("\\\n", " ")
    blocks = re.findall(r"```(?:bash)\n(.*?)```|`([^`\n]+)`", text, flags=re.S)
    for found in COMMAND.finditer("\n".join(part for block in blocks for part in block)):
        verb = found.group("verb") or "run"
        if verb in groups:
            verb = f"{verb} {found.group('second')}"
        assert verb in help_of, f"{name} shows `rdagent-ft {verb}`"
        for option in re.findall(r"--[a-z_-]+", found.group("rest").split("\n")[0]):
            assert option in help_of[verb], f"{name} shows {option} of `{verb}`"


def test_make_targets_that_are_shown_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), flags=re.M))
    for name in ("README.md", "CONTRIBUTING.md", "docs/quickstart.md"):
        shown = set(re.findall(r"`?make ([a-z]+)`?", (repository / name).read_text()))
        assert shown <= targets, f"{name}: {shown - targets}"
