"""A whole run with an LLM planner behind a real HTTP server: what it is told, what it costs, what leaks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from world import World

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_openai import FakeOpenAI, Reply, Status

pytestmark = [pytest.mark.train]
KEY = "sk-canary-llm-fedcba9876543210"


def proposal(path: str, value: Any) -> str:
    return json.dumps(
        {
            "hypothesis": "A smaller learning rate generalises better.",
            "prediction": "val +1 to +3 pp because the loss oscillates",
            "diff": [{"path": path, "value": value}],
            "cites": [],
        }
    )


LESSON = json.dumps({"lesson": "Smaller steps did not hurt."})


def settings(server: FakeOpenAI, **more: str) -> dict[str, str]:
    return {
        "FT_PLANNER_MODEL": "test-model",
        "FT_LLM_API_BASE": server.base_url,
        "FT_LLM_API_KEY": KEY,
        "FT_LLM_MAX_WAIT": "5",
        **more,
    }


def sent_text(server: FakeOpenAI) -> str:
    return "\n".join(json.dumps(request.body, ensure_ascii=False) for request in server.requests)


def test_the_llm_proposes_and_no_held_out_item_or_key_leaks(world: World) -> None:
    replies = [
        Reply(LESSON),
        Reply("this is no JSON"),
        Reply(proposal("stages.0.learning_rate", 0.004)),
        Reply(LESSON),
    ]
    with FakeOpenAI(*replies) as server:
        done = world.run("llm", *world.new("--loop_n", "2"), **settings(server))
        assert done.code == 0, done.err
        sent = sent_text(server)
        assert server.n_requests == 4
    document = done.document
    assert "A smaller learning rate" in document["loops"][1]["hypothesis"]
    run_dir = Path(document["run_dir"])
    recipe = json.loads((run_dir / "loops" / "001" / "recipe.json").read_text())
    assert recipe["stages"][0]["learning_rate"] == 0.004
    assert "Smaller steps" in (run_dir / "loops" / "001" / "feedback.md").read_text()
    for split in ("val", "test"):
        for line in (run_dir / "data" / f"{split}.jsonl").read_text().splitlines():
            assert json.loads(line)["messages"][0]["content"] not in sent, f"a {split} item was sent"
    assert document["cost"]["llm_tokens"] > 0
    for path in world.files("llm").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in done.out + done.err


def test_a_cost_limit_is_never_passed(world: World) -> None:
    with FakeOpenAI(Reply(LESSON)) as server:
        extra = settings(server, FT_LLM_PRICE_INPUT="1000", FT_LLM_PRICE_OUTPUT="1000", FT_MAX_COST="0.5")
        done = world.run("broke", *world.new("--loop_n", "3"), **extra)
        assert done.code == 5, done.err
        assert server.n_requests == 0, "a call that could pass the limit was sent"
    assert done.document["stop_reason"] == "budget"
    assert done.document["claim"] is not None, "what was trained before is still claimed"


def test_a_planner_that_never_answers_well_fails_loops_not_the_run(world: World) -> None:
    with FakeOpenAI(Reply(LESSON), Reply("nonsense")) as server:
        done = world.run("nonsense", *world.new("--loop_n", "2"), **settings(server))
    assert done.code == 0, done.err
    assert [loop["status"] for loop in done.document["loops"]][1] == "failed"
    assert done.document["claim"] is not None, "loop 0 is still claimed"


def test_a_refused_key_ends_the_run_with_one_message(world: World) -> None:
    with FakeOpenAI(Status(401)) as server:
        done = world.run("badkey", *world.new("--loop_n", "2"), **settings(server))
    assert done.code == 3, done.err
    assert "Traceback" not in done.err
    assert KEY not in done.err
