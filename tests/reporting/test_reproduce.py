"""`reproduce.sh` runs in a POSIX shell, refuses other inputs and says honestly when weights differ."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from make_run import LOOPS, make_run

from rdagent_ft.data.model_folder import read_model_folder
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.rebuild import check_base, compare_rebuild, rebuilt_facts
from rdagent_ft.reporting.reproduce import reproduce_script, run_command

EVIL_NAME = "it's $(touch pwned) `touch pwned`; touch pwned\nend.jsonl"


def put(run_dir: Path, step: str, loop: int, path: str, value: object) -> None:
    connection = sqlite3.connect(run_dir / "run.db", isolation_level=None)
    connection.execute(
        "UPDATE steps SET output = json_set(output, ?, json(?)) WHERE step = ? AND loop = ?",
        (path, json.dumps(value), step, loop),
    )
    connection.close()


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A run whose dataset is a real file with a hostile name."""
    run_dir = make_run(tmp_path / "runs")
    data = tmp_path / EVIL_NAME
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    put(run_dir, "prepare", -1, "$.dataset.name", str(data))
    put(run_dir, "prepare", -1, "$.dataset.files[0].sha256", digest)
    put(run_dir, "prepare", -1, "$.dataset.files[0].path", str(data))
    (run_dir / "export").mkdir()
    (run_dir / "export/reproduce.sh").write_text(reproduce_script(open_run(run_dir)))
    return run_dir


def run_script(
    run_dir: Path, tmp_path: Path, repository: Path, rebuilt: Path | None
) -> subprocess.CompletedProcess[str]:
    """Run the script; a Python stands in that answers for loop.py and passes everything else on."""
    python = tmp_path / "python.sh"
    document = json.dumps({"run_dir": str(rebuilt)})
    python.write_text(
        "#!/bin/sh\n"
        f'case "$1" in */loop.py) for a in "$@"; do printf "%s\\n--\\n" "$a"; done >{tmp_path}/args; '
        f"env >{tmp_path}/env; echo '{document}';; *) exec {sys.executable} \"$@\";; esac\n"
    )
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "RDAGENT_FT": str(repository)}
    return subprocess.run(
        [shutil.which("dash") or "sh", str(run_dir / "export/reproduce.sh")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def rebuilt_run(tmp_path: Path, original: Path, weights: str) -> Path:
    """A one-loop run as the program leaves it after `--recipe`."""
    expected = rebuilt_facts(open_run(original))
    run_dir = make_run(tmp_path / "again", n_loops=1)
    recipe = LOOPS[6][1]
    put(run_dir, "prepare", -1, "$.dataset.files[0].sha256", expected["dataset"][0])
    put(run_dir, "propose", 0, "$.recipe_hash", recipe.hash)
    put(run_dir, "train", 0, "$.weights_sha256", weights)
    return run_dir


def test_same_weights(original: Path, tmp_path: Path, repository: Path) -> None:
    rebuilt = rebuilt_run(tmp_path, original, "6" * 64)
    result = run_script(original, tmp_path, repository, rebuilt)
    assert result.returncode == 0, result.stderr
    assert "same data" in result.stdout
    assert "same weights: " + "6" * 64 in result.stdout
    arguments = (tmp_path / "args").read_text().split("\n--\n")
    assert arguments[arguments.index("--dataset") + 1].endswith(EVIL_NAME)
    assert arguments[arguments.index("--loop_n") + 1] == "1"
    recipe = Path(arguments[arguments.index("--recipe") + 1]).read_text()
    assert Recipe.model_validate_json(recipe) == LOOPS[6][1]
    assert "FT_SEED=42" in (tmp_path / "env").read_text()
    assert not list(tmp_path.glob("**/pwned"))


def test_other_weights_are_named(original: Path, tmp_path: Path, repository: Path) -> None:
    result = run_script(original, tmp_path, repository, rebuilt_run(tmp_path, original, "9" * 64))
    assert result.returncode == 1
    assert "DIFFERENT weights" in result.stdout


def test_changed_data_stops_before_training(original: Path, tmp_path: Path, repository: Path) -> None:
    (tmp_path / EVIL_NAME).write_text("changed")
    result = run_script(original, tmp_path, repository, None)
    assert result.returncode == 2
    assert "not the file of the original run" in result.stderr
    assert not (tmp_path / "args").exists()


def test_missing_data_stops_before_training(original: Path, tmp_path: Path, repository: Path) -> None:
    (tmp_path / EVIL_NAME).unlink()
    result = run_script(original, tmp_path, repository, None)
    assert result.returncode == 2
    assert "is missing" in result.stderr


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    """The smallest directory that is a model: one float32 weight."""
    folder = tmp_path / "base"
    folder.mkdir()
    config = {"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 8, "vocab_size": 4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder


def test_another_local_base_stops_before_training(
    original: Path, tmp_path: Path, repository: Path, base_model: Path
) -> None:
    put(original, "prepare", -1, "$.model.name", str(base_model))
    script = reproduce_script(open_run(original))
    (original / "export/reproduce.sh").write_text(script)
    result = run_script(original, tmp_path, repository, None)
    assert result.returncode == 2
    assert "is another base model" in result.stderr
    assert not (tmp_path / "args").exists()


def test_the_same_local_base_is_recognised(base_model: Path, tmp_path: Path) -> None:
    fingerprint = read_model_folder("base", base_model).fingerprint
    assert check_base(str(base_model), fingerprint)[0] == 0
    assert check_base("org/name", fingerprint)[0] == 0


def test_files_of_a_folder_are_found_below_it(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    put(run_dir, "prepare", -1, "$.dataset.name", "some/data set")
    put(run_dir, "prepare", -1, "$.dataset.files[0].path", "/x/some/data set/part one/a.jsonl")
    assert "check \"$dataset\"/'part one/a.jsonl' abab" in reproduce_script(open_run(run_dir))


def test_other_base_is_not_compared(original: Path, tmp_path: Path) -> None:
    expected = {**rebuilt_facts(open_run(original)), "base": "f" * 16}
    code, lines = compare_rebuild(expected, open_run(original))
    assert code == 2
    assert "DIFFERENT base model" in lines


def test_no_winner_no_rebuild(tmp_path: Path) -> None:
    script = reproduce_script(open_run(make_run(tmp_path, accept=False, verdict="inconclusive")))
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert "accepted no model" in result.stderr


def test_command_is_shareable(tmp_path: Path) -> None:
    command = run_command(open_run(make_run(tmp_path)))
    assert "--dataset path/to/router.jsonl --model path/to/tiny-qwen3" in command
    assert command.startswith("FT_SEED=42 python rdagent_ft/loop.py")
    assert command.endswith("--loop_n 7")


def test_an_own_benchmark_goes_by_its_name(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path))
    request = {**view.request, "benchmarks": ["gsm8k", "/home/somebody/own.jsonl:exact_match"]}
    command = run_command(view.model_copy(update={"request": request}))
    assert "--benchmark gsm8k,path/to/own.jsonl:exact_match" in command
    assert "somebody" not in command
