"""A whole run that trains on a teacher's answers: real TRL on rows that a real HTTP server wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from world import COLOURS, WORDS, World, journal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_openai import FakeOpenAI, Reply

pytestmark = [pytest.mark.train]
KEY = "sk-canary-teacher-fedcba9876543210"
N_ASKED = 150


def teaches(body: dict[str, Any]) -> Reply:
    """Answer rightly, but for prompts about the two of every colour that come last in the list of words."""
    word = body["messages"][-1]["content"].split()[4]
    place = WORDS.index(word)
    answer = COLOURS[place % len(COLOURS)] if place < 16 else "no idea"
    return Reply(json.dumps({"answer": answer}))


def test_the_teachers_right_answers_are_trained(world: World) -> None:
    recipe = json.loads(world.recipe("for-teacher").read_text())
    recipe["data"] = {"teacher": {"max_prompts": N_ASKED, "max_tokens": 64}}
    file = world.root / "teacher.json"
    file.write_text(json.dumps(recipe))
    argv = world.new("--recipe", str(file), "--loop_n", "1")
    with FakeOpenAI(teaches) as server:
        settings = {
            "FT_TEACHER_MODEL": "teacher-x",
            "FT_LLM_API_BASE": server.base_url,
            "FT_TEACHER_API_KEY": KEY,
            "FT_LLM_PRICE_INPUT": "10",
            "FT_LLM_PRICE_OUTPUT": "100",
        }
        done = world.run("teacher", *argv, **settings)
        assert done.code == 0, done.err
        assert server.n_requests == N_ASKED
        first = world.run_dir("teacher")
    record = json.loads((first / "loops/000/files/teacher.json").read_text())
    rows = [json.loads(line) for line in (first / "loops/000/data/train.jsonl").read_text().splitlines()]
    assert record["n_kept"] + record["dropped"]["wrong"] == N_ASKED
    assert len(rows) == record["n_kept"] < N_ASKED
    assert {row["completion"] for row in rows} == set(COLOURS)
    assert record["usd"] == pytest.approx(N_ASKED * 0.003)
    steps = journal(first)["steps"]
    health = steps["0 train"]["health"]
    assert health["verdict"] == "ok"
    assert health["last_loss"] < health["first_loss"] / 2
    for path in world.files("teacher").rglob("*"):
        assert not path.is_file() or path.is_symlink() or KEY.encode() not in path.read_bytes(), path
