"""A whole run that scores through one warm vLLM server: real vLLM on CPU, real training, a race on val.

Needs FT_TEST_SERVE: the Python of an environment with vLLM (`scripts/serve-ci.sh` makes one).
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from world import Finished, World, build, outputs

SERVE = os.environ.get("FT_TEST_SERVE")
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(SERVE is None, reason="FT_TEST_SERVE names no Python with vLLM"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> World:
    # vLLM on CPU serves attention heads of 32 and more.
    return build(tmp_path_factory.mktemp("served"), n_rows=2700, hidden=64)


@pytest.fixture(scope="module")
def strong(served: World) -> Path:
    """A base that knows the task: what a short run without a server exported."""
    done = served.run(
        "strong", *served.new("--loop_n", "1", "--recipe", str(served.recipe("good", epochs=3)))
    )
    assert done.code == 0, done.err[-4000:]
    return served.run_dir("strong") / "export" / "merged"


@pytest.fixture(scope="module")
def finished(served: World, strong: Path) -> Finished:
    """One loop whose recipe destroys what the base knows."""
    bad = served.recipe("bad", adapter={"kind": "lora", "r": 4}, learning_rate=0.3, epochs=1)
    new = ("--dataset", str(served.data), "--model", str(strong), "--json", "--recipe", str(bad))
    extra = {"FT_SERVING": "vllm", "FT_SERVE_PYTHON": str(SERVE), "FT_VAL_ITEMS": "400"}
    return served.run("served", *new, "--loop_n", "1", timeout_s=1100.0, **extra)


def test_the_run_ends_with_a_claim(finished: Finished, served: World) -> None:
    assert finished.code == 0, finished.err[-4000:]
    (claim,) = outputs(served.run_dir("served"), "claim")
    assert claim["comparison"]["n"] == 40
    assert claim["comparison"]["verdict"] == "regressed"
    assert claim["accepted"] is False


def test_one_server_answered_for_base_and_candidate(finished: Finished, served: World) -> None:
    run_dir = served.run_dir("served")
    (baseline,) = outputs(run_dir, "baseline")
    assert baseline["engine"] == "vllm"
    assert baseline["val"]["value"] > 0.9
    assert len(list((run_dir / "serving").iterdir())) == 1
    assert finished.err.count("model server ready") == 1


def test_the_base_against_itself_is_no_difference(finished: Finished, served: World) -> None:
    (baseline,) = outputs(served.run_dir("served"), "baseline")
    assert baseline["again"]["verdict"] in {"equivalent", "inconclusive"}


def test_a_candidate_that_cannot_lead_is_not_asked_everything(finished: Finished, served: World) -> None:
    (evaluated,) = outputs(served.run_dir("served"), "evaluate")
    assert evaluated["share_scored"] == 0.25
    assert evaluated["val"]["n"] == 100
    assert evaluated["vs_parent"]["n"] == 100
    (verdict,) = outputs(served.run_dir("served"), "feedback")
    assert verdict["new_parent"] is False
    assert "the race ended after 25% of val" in verdict["reason"]


def test_no_server_is_left(finished: Finished, served: World) -> None:
    run_dir = str(served.run_dir("served"))
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(run_dir in part for part in process.info["cmdline"] or ())
    ]
    assert left == []


def test_a_run_does_not_change_its_engine(finished: Finished, served: World) -> None:
    changed = {"FT_SERVING": "off", "FT_SERVE_PYTHON": "", "FT_VAL_ITEMS": "400"}
    resumed = served.run("served", "--resume", "latest", "--loop_n", "3", **changed)
    # FT_SERVING is the run's own: it stays vllm, and without a Python for it the run cannot go on.
    assert resumed.code == 3, resumed.err
    assert "FT_SERVE_PYTHON" in resumed.err
