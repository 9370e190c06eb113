"""The endpoint job in a process of its own, against a real local server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from endpoint_case import FAST, KEY, needs_lm_eval, partial_rows, request_of, run_job, write_items
from fake_endpoint import Cut, EmptyChoices, Ended, FakeEndpoint, HalfJson, NullContent, Reset, Seen, Status

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.endpoint.ends import EXIT_CODES
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness
from rdagent_ft.evaluation.items import prompt_hash

pytestmark = needs_lm_eval


def test_answers_are_the_servers_own(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 12)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 12)
        done = run_job(request, tmp_path / "job")
    assert done.returncode == 0, done.stderr[-3000:]
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert [answer.item_id for answer in answers] == [f"i{number}" for number in range(12)]
    assert [answer.prediction for answer in answers] == [
        f"question number {number}"[::-1] for number in range(12)
    ]
    assert all(answer.finish_reason == "stop" and answer.n_tokens == 3 for answer in answers)
    assert all(answer.latency_s is not None and answer.latency_s < 20 for answer in answers)
    assert answers[3].prompt_hash == prompt_hash("question number 3")
    body = server.seen[0].body
    assert body["temperature"] == 0
    assert body["max_tokens"] == 64
    assert body["add_special_tokens"] is True
    assert "stop" not in body
    assert "authorization" not in server.seen[0].headers

    aggregate = json.loads((tmp_path / "job" / "aggregate.json").read_text())
    assert aggregate["tasks"][0]["exact_match"] == pytest.approx(4 / 12)
    last = json.loads((tmp_path / "job" / "progress.jsonl").read_text().splitlines()[-1])
    assert last["done"] == last["total"] == 12


def test_lm_eval_style_files(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 6)
    with FakeEndpoint(fault=lambda seen: Status(400) if "number 5" in str(seen.body) else None) as server:
        done = run_job(request_of(tmp_path, server, 6), tmp_path / "job")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "job" / "lm-eval" / "base"
    (results_file,) = folder.glob("results_*.json")
    (samples_file,) = folder.glob("samples_rdft_heldout_val_*.jsonl")
    results = json.loads(results_file.read_text())
    assert results["results"]["rdft_heldout_val"]["exact_match,none"] == pytest.approx(2 / 5)
    assert results["n-samples"]["rdft_heldout_val"] == {"original": 6, "effective": 5}
    assert {"configs", "versions", "n-shot", "higher_is_better", "lm_eval_version"} <= results.keys()
    rows = [json.loads(line) for line in samples_file.read_text().splitlines()]
    assert [row["doc_id"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["arguments"]["gen_args_0"]["arg_0"] == "question number 0"
    assert {"doc_hash", "prompt_hash", "target_hash", "resps", "filtered_resps", "filter"} <= rows[0].keys()


def test_chat_sends_the_conversation(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 5)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 5, protocol="chat", extra_body={"top_k": 1})
        done = run_job(request, tmp_path / "job")
    assert done.returncode == 0, done.stderr[-3000:]
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert answers[2].prediction == "question number 2"[::-1]
    bodies = {seen.body["messages"][-1]["content"]: seen.body for seen in server.seen}
    body = bodies["question number 2"]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert body["top_k"] == 1
    assert "add_special_tokens" not in body
    assert {seen.path for seen in server.seen} == {"/v1/chat/completions"}


def test_repeats_are_sampled_with_seeds_of_their_own(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 4)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 4, repeats=3, temperature=0.7)
        done = run_job(request, tmp_path / "job")
        again = run_job(request, tmp_path / "other")
    assert done.returncode == again.returncode == 0, done.stderr[-3000:]
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert [(answer.item_id, answer.repeat) for answer in answers[:4]] == [
        ("i0", 0),
        ("i0", 1),
        ("i0", 2),
        ("i1", 0),
    ]
    assert len({answer.prediction for answer in answers}) == 12
    assert server.seen[0].body["temperature"] == 0.7
    texts = [answer.prediction for answer in answers]
    other = EndpointHarness().parse(request, tmp_path / "other")[KEY]
    assert [answer.prediction for answer in other] == texts


def test_what_is_no_answer_is_unanswered_and_not_wrong(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 9)
    faults = {
        1: NullContent(),
        2: EmptyChoices(),
        4: Ended("abort"),
        5: Status(400, "bad prompt"),
        7: Status(400, "This model's maximum context length is 8 tokens."),
    }

    def fault(seen: Seen) -> NullContent | EmptyChoices | Ended | Status | None:
        return faults.get(int(seen.body["prompt"].split()[-1]))

    with FakeEndpoint(fault=fault) as server:
        request = request_of(tmp_path, server, 9)
        done = run_job(request, tmp_path / "job")
    assert done.returncode == 0, done.stderr[-3000:]
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    reasons = {number: answer.unanswered for number, answer in enumerate(answers) if answer.unanswered}
    assert set(reasons) == set(faults)
    assert "no text" in reasons[1]
    assert "0 choices" in reasons[2]
    assert "abort" in reasons[4]
    assert "bad prompt" in reasons[5]
    assert [answer.prompt_truncated for answer in answers].index(True) == 7
    assert server.n_requests == 9  # none of these is worth a retry
    # lm-eval's own mean leaves them out: 3 of the 4 answered ones are right.
    aggregate = json.loads((tmp_path / "job" / "aggregate.json").read_text())
    assert aggregate["tasks"][0]["exact_match"] == pytest.approx(3 / 4)
    assert aggregate["tasks"][0]["n_unanswered"] == 5


def test_passing_troubles_are_retried(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    script = {
        1: Status(500),
        3: Reset(),
        5: Cut(),
        7: HalfJson(),
        9: Status(429, headers={"Retry-After": "0.3"}),
    }
    times: dict[str, list[float]] = {}

    def fault(seen: Seen) -> Status | Reset | Cut | HalfJson | None:
        times.setdefault(seen.body["prompt"], []).append(time.monotonic())
        return script.get(seen.number)

    with FakeEndpoint(fault=fault) as server:
        request = request_of(tmp_path, server, 10, concurrency=1)
        done = run_job(request, tmp_path / "job")
        throttled = server.seen[8].body["prompt"]
    assert done.returncode == 0, done.stderr[-3000:]
    answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
    assert [answer.unanswered for answer in answers] == [None] * 10
    assert server.n_requests == 10 + len(script)
    assert times[throttled][-1] - times[throttled][-2] >= 0.3  # Retry-After, not the short backoff


def test_a_request_that_fails_for_good_is_one_unanswered_item(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 8)
    with FakeEndpoint(fault=lambda seen: Status(503) if "number 4" in str(seen.body) else None) as server:
        request = request_of(tmp_path, server, 8)
        done = run_job(request, tmp_path / "job")
        assert done.returncode == 0, done.stderr[-3000:]
        answers = EndpointHarness().parse(request, tmp_path / "job")[KEY]
        assert [answer.unanswered is None for answer in answers].count(False) == 1
        assert "HTTP 503" in (answers[4].unanswered or "")
        assert server.n_requests == 7 + FAST.n_tries
        # The next job asks that one again, and only that one.
        server.fault = lambda seen: None
        assert run_job(request, tmp_path / "job").returncode == 0
        assert server.n_requests == 7 + FAST.n_tries + 1
    assert all(row["answer"]["unanswered"] is None for row in partial_rows(tmp_path / "job"))


def test_a_storm_of_errors_opens_the_breaker(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 60)
    with FakeEndpoint(
        fault=lambda seen: Status(500, "out of memory") if seen.number > 10 else None
    ) as server:
        request = request_of(tmp_path, server, 60, concurrency=4)
        done = run_job(request, tmp_path / "job")
        assert done.returncode == EXIT_CODES["server_gone"]
        assert "20 requests failed in a row" in done.stderr
        assert "out of memory" in done.stderr
        assert server.n_requests <= 10 + (20 + 4) * FAST.n_tries
        with pytest.raises(JobError):
            EndpointHarness().parse(request, tmp_path / "job")
        # The ten answers were kept.
        server.fault = lambda seen: None
        before = server.n_requests
        assert run_job(request, tmp_path / "job").returncode == 0
        assert server.n_requests == before + 50
    assert len(EndpointHarness().parse(request, tmp_path / "job")[KEY]) == 60


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"model": "absent"}, "bad_request", "does not exist"),
        ({"api_key_env": "EVAL_TEST_KEY"}, "auth", "refuses the key"),
        ({"api_key_env": "EVAL_TEST_NO_KEY"}, "auth", "EVAL_TEST_NO_KEY"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "server_gone", "does not answer"),
    ],
)
def test_troubles_of_all_items_end_the_job_with_their_kind(
    tmp_path: Path, changes: dict[str, str], kind: str, word: str
) -> None:
    write_items(tmp_path / "items.jsonl", 30)
    with FakeEndpoint(key="right" if kind == "auth" else None) as server:
        request = request_of(tmp_path, server, 30, **changes)
        done = run_job(request, tmp_path / "job", EVAL_TEST_KEY="sk-wrong-key")
    assert done.returncode == {**EXIT_CODES}[kind], done.stderr[-2000:]  # type: ignore[index]
    assert word in done.stderr
    assert "sk-wrong-key" not in done.stderr
    assert server.n_requests <= 8


def test_a_key_is_sent_and_written_nowhere(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 3)
    with FakeEndpoint(key="sk-very-secret") as server:
        request = request_of(tmp_path, server, 3, api_key_env="EVAL_TEST_KEY")
        done = run_job(request, tmp_path / "job", EVAL_TEST_KEY="sk-very-secret")
    assert done.returncode == 0, done.stderr[-2000:]
    for path in (tmp_path / "job").rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes()


def test_the_job_needs_no_torch(tmp_path: Path) -> None:
    """The controller's environment has none."""
    script = (
        "from importlib.machinery import PathFinder\n"
        "hidden, found = {'torch', 'peft', 'accelerate', 'transformers'}, PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name in hidden else found(name, *rest)\n"
        "from rdagent_ft.evaluation.endpoint.job import run\n"
        "run(['job', 'request.json'])\n"
    )
    write_items(tmp_path / "items.jsonl", 4)
    (tmp_path / "job").mkdir()
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 4)
        EndpointHarness().prepare(request, tmp_path / "job")
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "job", check=True, timeout=120)
    assert len(EndpointHarness().parse(request, tmp_path / "job")[KEY]) == 4


def test_altered_answers_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 6)
    with FakeEndpoint() as server:
        request = request_of(tmp_path, server, 6)
        assert run_job(request, tmp_path / "job").returncode == 0
    path = tmp_path / "job" / "samples-base-heldout-val.jsonl"
    path.write_text(path.read_text().replace("1 rebmun noitseuq", "something else"))
    with pytest.raises(JobError, match="not the same answers"):
        EndpointHarness().parse(request, tmp_path / "job")
