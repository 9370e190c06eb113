"""`benchmark --endpoint` against a local server that answers, refuses, hangs and fails; and OpenCompass."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from benchmark_case import (
    N_SUMS,
    document,
    endpoint_plan,
    right_sum,
    settings_of,
    suite_of,
    tuned_folder,
    write_benchmarks,
    write_tokenizer,
)
from fake_endpoint import FakeEndpoint, Fault, Hang, Seen, Status

import rdagent_ft.engine.benchmark.ask_server as ask_server
from rdagent_ft.engine.benchmark.ask_opencompass import refuse_other_questions
from rdagent_ft.engine.benchmark.asked import Asked
from rdagent_ft.engine.benchmark.run import run_suite
from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.endpoint.request import RetryRules
from rdagent_ft.evaluation.items import Answer
from rdagent_ft.evaluation.results.plan import BenchmarkPlan
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.summary import summarise_folder

OPENCOMPASS = os.environ.get("FT_TEST_OPENCOMPASS")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "tenacity", "aiohttp")),
    reason="needs lm-eval[api]",
)
KEY = "FT_ENDPOINT_API_KEY"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_server, "RETRY", RetryRules(n_tries=2, backoff_s=0.01, backoff_cap_s=0.02))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path / "files")
    return tmp_path / "files"


def run(files: Path, plan: BenchmarkPlan, *names: str, **settings: object) -> list[str]:
    said: list[str] = []
    suite = suite_of(files, *(names or ("gsm8k",)))
    run_suite(plan, suite, settings_of(files, **settings), said.append)
    return said


def test_two_models_behind_one_endpoint(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r"
    monkeypatch.setenv(KEY, "sk-very-secret")
    with FakeEndpoint(answer=right_sum, models=("tiny", "small"), key="sk-very-secret") as server:
        run(files, endpoint_plan(out, server.base_url, base_model_name="small"))
        asked = [(seen.path, seen.body["model"]) for seen in server.seen]
    assert set(asked) == {("/v1/chat/completions", "small"), ("/v1/chat/completions", "tiny")}
    for folder in (out / "base", tuned_folder(out)):
        written = document(folder)
        assert (written["status"], written["model"]["kind"]) == ("ok", "endpoint")
        assert written["benchmarks"]["gsm8k"]["value"] == 1.0
        assert set(read_result(folder / "lm-eval").sheets) == {"rdft_gsm8k_test"}
    comparison = summarise_folder(out).comparison
    assert comparison is not None
    assert comparison.pairs["gsm8k"].delta == 0
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"very-secret" not in everything


def test_what_is_wrong_is_said(files: Path, tmp_path: Path) -> None:
    with FakeEndpoint(answer=right_sum, models=("small",)) as server:
        with pytest.raises(JobError, match=r"bad_request.*`tiny` does not exist") as named:
            run(files, endpoint_plan(tmp_path / "name", server.base_url))
        assert "/v1/models" in named.value.message
        n_before = server.n_requests
        server.models, server.key = ("tiny",), "sk"
        with pytest.raises(JobError, match=rf"auth.*{KEY}"):
            run(files, endpoint_plan(tmp_path / "key", server.base_url))
        with pytest.raises(PreflightError) as refused:
            run(files, endpoint_plan(tmp_path / "choose", server.base_url), "mmlu_ll", "gsm8k")
        assert "mmlu_ll" in refused.value.render()
        assert server.n_requests == n_before
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(JobError, match=r"server_gone.*does not answer") as gone:
            run(files, endpoint_plan(tmp_path / "port", url))
    assert gone.value.exit_code == 1
    assert "--resume" in gone.value.render()


def test_a_hang_ends_with_the_time_and_a_resumed_call_asks_the_rest(files: Path, tmp_path: Path) -> None:
    out, n_good = tmp_path / "r", 4
    hang = [True]

    def fault(seen: Seen) -> Fault | None:
        return Hang() if hang[0] and seen.number > n_good else None

    with FakeEndpoint(answer=right_sum, fault=fault) as server:
        plan = endpoint_plan(out, server.base_url, timeout_s=20.0, batch_size=1)
        said = run(files, plan)
        written = document(tuned_folder(out))
        assert written["status"] == "timeout"
        assert written["benchmarks"]["gsm8k"]["n"] == n_good
        assert "--resume goes on" in said[-1]
        assert summarise_folder(out).document["models"][-1]["status"] == "timeout"
        hang[0] = False
        n_before = server.n_requests
        run(files, plan.model_copy(update={"resume": True, "timeout_s": None}))
        assert server.n_requests - n_before == N_SUMS - n_good
        assert document(tuned_folder(out))["status"] == "ok"
        assert [path.name for path in (out / ".work").iterdir()] == ["run.lock"]
        run(files, plan.model_copy(update={"timeout_s": None}))
        assert server.n_requests - n_before == 2 * N_SUMS - n_good, "without --resume all is asked"


def test_a_storm_of_500_is_no_score(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r"

    def fault(seen: Seen) -> Fault | None:
        return Status(500) if seen.number > 3 else None

    with FakeEndpoint(answer=right_sum, fault=fault) as server:
        said = run(files, endpoint_plan(out, server.base_url, batch_size=1))
    written = document(tuned_folder(out))
    assert written["status"] == "invalid"
    assert (written["benchmarks"]["gsm8k"]["n"], written["benchmarks"]["gsm8k"]["unscored"]) == (3, 3)
    assert any("3 questions have no answer" in line for line in said)
    monkeypatch.setattr(ask_server, "RETRY", RetryRules(n_tries=1, breaker=3))
    with FakeEndpoint(fault=lambda _: Status(500)) as server, pytest.raises(JobError) as ended:
        run(files, endpoint_plan(tmp_path / "dead", server.base_url))
    assert "server_gone" in ended.value.message


def test_opencompass_says_what_it_needs(files: Path, tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/v1"
    plan = endpoint_plan(tmp_path / "r", url, harness="opencompass")
    with pytest.raises(PreflightError, match="none is named"):
        run(files, plan)
    with pytest.raises(PreflightError, match="tokenizer"):
        run(files, plan, opencompass_python=sys.executable)
    named = endpoint_plan(tmp_path / "r", url, harness="opencompass", tokenizer=tmp_path)
    with pytest.raises(PreflightError, match="mmlu_ll"):
        run(files, named, "mmlu_ll", opencompass_python=sys.executable)


def test_other_questions_are_not_compared() -> None:
    answer = Answer(item_id="i", prompt_hash="p", prediction="x")
    answers = {(role, name, "test"): [answer] for role in ("base", "tuned") for name in ("a", "b")}
    shas = {"base": {"a": "1", "b": "2"}, "tuned": {"a": "1", "b": "3"}}
    kept = refuse_other_questions(Asked(answers=answers, asked_sha256=shas), shas["base"])
    assert set(kept.answers) == set(answers) - {("tuned", "b", "test")}
    assert "different requests: b" in kept.failures["tuned"]


@pytest.mark.skipif(OPENCOMPASS is None, reason="needs OpenCompass: set FT_TEST_OPENCOMPASS to its Python")
def test_opencompass_asks_our_items(files: Path, tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "r"
    with FakeEndpoint(answer=right_sum, models=("tiny", "small")) as server:
        plan = endpoint_plan(
            out, server.base_url, base_model_name="small", tokenizer=tokenizer, harness="opencompass"
        )
        run(files, plan, opencompass_python=OPENCOMPASS)
        n_asked = server.n_requests
    assert n_asked == 2 * N_SUMS
    base, tuned = document(out / "base"), document(tuned_folder(out))
    assert base["engine"]["args"]["asked_sha256"] == tuned["engine"]["args"]["asked_sha256"]
    assert (tuned["status"], tuned["engine"]["client"]) == ("ok", "opencompass")
    assert tuned["benchmarks"]["gsm8k"]["value"] == 1.0
    assert json.loads((out / "base" / "benchmark.json").read_text())["benchmarks"]["gsm8k"]["n"] == N_SUMS
