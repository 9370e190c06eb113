"""A data script in reports and in `reproduce.sh`: named everywhere, its source only where it is needed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from make_run import LOOPS, make_run

from rdagent_ft.recipe.data_script import script_words
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.card import model_card
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.records import ScriptedData
from rdagent_ft.reporting.report_html import report_html
from rdagent_ft.reporting.report_md import report_markdown
from rdagent_ft.reporting.reproduce import reproduce_script
from rdagent_ft.values import sha256_text

SCRIPT = "import json\n'''\nEND_OF_RECIPE\n$(touch pwned) `touch pwned` \\ <b>source_of_rows</b>\n'''\n"
WINNER = 6
RECORD = ScriptedData(
    sha256=sha256_text(SCRIPT), n_in=2_700, n_out=3_100, n_copies=12, n_repeats=40, seconds=2.5
)


def put(run_dir: Path, step: str, loop: int, path: str, value: object) -> None:
    connection = sqlite3.connect(run_dir / "run.db", isolation_level=None)
    connection.execute(
        "UPDATE steps SET output = json_set(output, ?, json(?)) WHERE step = ? AND loop = ?",
        (path, json.dumps(value), step, loop),
    )
    connection.close()


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    """A run whose winning recipe carries a data script."""
    run_dir = make_run(tmp_path / "runs")
    put(run_dir, "propose", WINNER, "$.recipe.data.script", SCRIPT)
    put(run_dir, "propose", WINNER, "$.recipe_hash", winner().hash)
    put(run_dir, "code", WINNER, "$.script", RECORD.model_dump(mode="json"))
    return run_dir


def winner() -> Recipe:
    recipe = LOOPS[WINNER][1]
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"script": SCRIPT})})


def test_reports_name_the_script_and_count_its_rows(scripted: Path) -> None:
    view = open_run(scripted)
    for text in (report_markdown(view), report_html(view), model_card(view)):
        assert "2,700 rows in, 3,100 out, 12 dropped as copies of held-out items" in text
        assert script_words(SCRIPT).split()[1] in text
        assert "source_of_rows" not in text


def test_a_run_without_one_does_not_mention_scripts(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path / "runs"))
    assert "data script" not in report_markdown(view)
    assert "FT_EXECUTOR" not in reproduce_script(view)


def test_reproducing_keeps_the_script_and_asks_for_containers(
    scripted: Path, tmp_path: Path, repository: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    put(scripted, "prepare", -1, "$.dataset.name", str(data))
    put(scripted, "prepare", -1, "$.dataset.files", [])
    (scripted / "export").mkdir()
    script = scripted / "export/reproduce.sh"
    script.write_text(reproduce_script(open_run(scripted)))
    python = tmp_path / "python.sh"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$1" in */loop.py) for a in "$@"; do printf "%s\\n--\\n" "$a"; done >{tmp_path}/args; '
        f"env >{tmp_path}/env; echo '{{}}';; *) exec {sys.executable} \"$@\";; esac\n"
    )
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "RDAGENT_FT": str(repository)}
    subprocess.run(
        [shutil.which("dash") or "sh", str(script)],
        cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    arguments = (tmp_path / "args").read_text().split("\n--\n")
    recipe = Path(arguments[arguments.index("--recipe") + 1]).read_text()
    assert Recipe.model_validate_json(recipe) == winner()
    assert "FT_EXECUTOR=docker\n" in (tmp_path / "env").read_text()
    assert not list(tmp_path.glob("**/pwned"))
