"""A recipe with a data script, run by the command line: in a container of a real engine, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from docker_env import docker_environment
from world import Finished, World, journal

KEY = "sk-canary-0123456789abcdef"

# What the sandbox promises, asked from inside; then the rows: half of them, with their answers in capitals.
SCRIPT = f"""
import json, os, socket, sys
from pathlib import Path

assert sorted(os.listdir("/data")) == ["README.md", "train.jsonl"], os.listdir("/data")
assert not any({KEY!r} in value for value in os.environ.values()), "a key is here"
assert os.getuid() == {os.getuid()}
for place in ("/data/new", "/etc/new", "/new"):
    try:
        Path(place).write_text("x")
    except OSError:
        continue
    sys.exit(place + " can be written")
try:
    socket.create_connection(("1.1.1.1", 53), timeout=3)
except OSError:
    pass
else:
    sys.exit("the network is reachable")
Path("/tmp/scratch").write_text("x")
with open("/data/train.jsonl", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
with open("/out/data.jsonl", "w", encoding="utf-8") as out:
    for row in rows[: len(rows) // 2]:
        asked, answer = (turn["content"] for turn in row["messages"])
        out.write(json.dumps({{"prompt": asked, "completion": answer.upper()}}) + "\\n")
"""


@pytest.fixture
def in_docker(docker_engine: None) -> dict[str, str]:
    return docker_environment()


def recipe_with(world: World, name: str, script: str) -> Path:
    """Write the fast recipe with a data script."""
    path = world.recipe(f"scripted-{name}", epochs=1)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "data": {"script": script}}))
    return path


def run(world: World, name: str, script: str, executor: str, **settings: str) -> Finished:
    recipe = recipe_with(world, name, script)
    keys = {"OPENAI_API_KEY": KEY, "FT_LLM_API_KEY": KEY}
    arguments = world.new("--recipe", str(recipe), "--loop_n", "1", "--executor", executor)
    return world.run(f"script-{name}", *arguments, timeout_s=300.0, **settings, **keys)


def code_step(world: World, name: str) -> dict[str, Any]:
    return journal(world.run_dir(f"script-{name}"))["steps"]["0 code"]


def test_a_loop_trains_on_what_its_script_wrote(world: World, in_docker: dict[str, str]) -> None:
    done = run(world, "whole", SCRIPT, "docker", **in_docker)
    assert done.code == 0, done.err
    run_dir = world.run_dir("script-whole")
    coded = code_step(world, "whole")
    assert coded["failure"] is None, coded
    assert coded["script"]["n_out"] == coded["script"]["n_in"] // 2
    assert coded["script"]["n_copies"] == 0
    trained = [json.loads(line) for line in (run_dir / "loops/000/data/train.jsonl").read_text().splitlines()]
    assert {row["completion"] for row in trained} == {"RED", "GREEN", "BLUE", "BLACK"}
    assert (run_dir / "loops/000/files/process_data.py").read_text() == SCRIPT
    assert "data script" in (run_dir / "report.md").read_text()
    foreign = [path for path in run_dir.rglob("*") if path.lstat().st_uid != os.getuid()]
    assert foreign == []


@pytest.mark.parametrize(
    ("name", "script", "failure_class", "words"),
    [
        ("raises", "import json\nraise ValueError('odd row')\n", "data.script_failed", "line 2: ValueError"),
        (
            "link",
            "import os\nos.symlink('/etc/passwd', '/out/data.jsonl')\n",
            "data.script_output",
            "regular",
        ),
        ("memory", "x = []\nwhile True: x.append(bytearray(1 << 26))\n", "resource.", "killed"),
        ("endless", "while True: pass\n", "resource.deadline", "deadline"),
    ],
)
def test_a_bad_script_fails_its_loop_before_any_training(
    world: World, in_docker: dict[str, str], name: str, script: str, failure_class: str, words: str
) -> None:
    settings = {**in_docker, "FT_DOCKER_MEMORY_GIB": "3", "FT_DEBUG_TIMEOUT": "20"}
    run(world, name, script, "docker", **settings)
    failure = code_step(world, name)["failure"]
    assert failure["failure_class"].startswith(failure_class)
    assert words in failure["message"]
    assert not (world.run_dir(f"script-{name}") / "loops/000/stages").exists()


def test_the_local_executor_refuses_before_anything_starts(world: World) -> None:
    done = run(world, "local", SCRIPT, "local")
    assert done.code == 3, done.err
    assert "must run in a container" in done.err
    assert "--executor docker" in done.err
    assert not list((world.files("script-local") / "output").glob("*"))
