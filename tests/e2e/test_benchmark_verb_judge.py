"""`benchmark` with FT_JUDGE_*: rule-only and with-judge side by side, for a base of an earlier call too."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_case import (
    N_SUMS,
    build_models,
    document,
    endpoint_plan,
    plan_of,
    right_sum,
    settings_of,
    suite_of,
    tuned_folder,
    write_benchmarks,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_endpoint import FakeEndpoint
from fake_openai import FakeOpenAI, Reply

from rdagent_ft.engine.benchmark.run import run_suite
from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.results.comparison import ComparisonDocument
from rdagent_ft.evaluation.results.summary import summarise_folder
from rdagent_ft.evaluation.results.table import sentence_lines, table_lines

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "tenacity", "aiohttp")),
    reason="needs lm-eval[api]",
)
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def in_words(prompt: str) -> str:
    """The right sum, as a word that the rule does not read."""
    return f"The sum is {WORDS[int(right_sum(prompt).removeprefix('#### '))]}."


def kind_judge(body: dict[str, Any]) -> Reply:
    """Accepts words for numbers, and always prefers the first of two: fails its gate."""
    asked = body["messages"][1]["content"]
    is_word = any(f"The sum is {word}." in asked for word in WORDS)
    verdict = "first" if "<<first answer " in asked else "correct" if is_word else "incorrect"
    return Reply(json.dumps({"verdict": verdict, "confidence": 0.9, "rationale": "b"}))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path / "files")
    return tmp_path / "files"


def compared(out: Path) -> ComparisonDocument:
    comparison = summarise_folder(out).comparison
    assert comparison is not None
    return comparison


def call(files: Path, out: Path, url: str, judge: str | None, **changes: Any) -> list[str]:
    said: list[str] = []
    settings = {} if judge is None else {"judge_model": "kind-2026-01-01", "judge_api_base": judge}
    run_suite(
        endpoint_plan(out, url, **changes),
        suite_of(files, "gsm8k"),
        settings_of(files, **settings),
        said.append,
    )
    return said


def test_both_columns_stand_side_by_side_and_the_judge_decides_nothing(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    with FakeOpenAI(kind_judge) as judge:
        with FakeEndpoint(answer=lambda _prompt: "no idea", models=("small",)) as server:
            call(files, out, server.base_url, judge.base_url, model_name="small")
        (out / "base").mkdir()
        for path in tuned_folder(out).iterdir():
            path.rename(out / "base" / path.name)
        tuned_folder(out).rmdir()
        with FakeEndpoint(answer=in_words, models=("tiny",)) as server:
            said = call(files, out, server.base_url, judge.base_url)
    assert any("failed" in line for line in said)
    written = document(tuned_folder(out))
    entry = written["benchmarks"]["gsm8k"]
    assert (entry["value"], entry["extra"]["with_judge"]) == (0.0, 1.0)
    assert written["status"] == "ok"
    assert written["judge"]["status"] == "failed_gate"
    assert written["judge"]["model"] == "kind-2026-01-01"
    assert written["judge"]["calibration"]["status"] == "failed"
    comparison = compared(out)
    pair = comparison.pairs["gsm8k"]
    assert (pair.base, pair.cand, pair.delta) == (0.0, 0.0, 0.0)
    assert (pair.measures["with_judge"].base, pair.measures["with_judge"].cand) == (0.0, 1.0)
    assert comparison.decision == "inconclusive", "the judge alone sees a gain"
    table = "\n".join(table_lines(comparison))
    assert "with_judge" in table
    assert "+100.0" in table
    notes = "\n".join(sentence_lines(comparison))
    assert "failed_gate, its numbers decide nothing" in notes
    assert "comes from the judge" in notes


def test_without_a_judge_nothing_changes(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    with FakeEndpoint(answer=in_words, models=("tiny",)) as server:
        call(files, out, server.base_url, None)
    written = document(tuned_folder(out))
    assert written["judge"]["status"] == "skipped"
    assert written["benchmarks"]["gsm8k"]["extra"] == {}


def test_a_judge_that_cannot_be_had_is_refused_before_anything_is_asked(files: Path, tmp_path: Path) -> None:
    with FakeEndpoint(answer=in_words, models=("tiny",)) as server:
        with pytest.raises(PreflightError, match="no key for the judge"):
            call(files, tmp_path / "r", server.base_url, "http://judge.invalid/v1")
        assert not server.seen


def test_a_judge_that_is_down_costs_no_result(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    with FakeOpenAI(Reply("garbage")) as judge, FakeEndpoint(answer=in_words, models=("tiny",)) as server:
        call(files, out, server.base_url, judge.base_url)
    written = document(tuned_folder(out))
    assert (written["status"], written["benchmarks"]["gsm8k"]["value"]) == ("ok", 0.0)
    assert written["judge"]["status"] == "invalid"
    assert written["judge"]["unscored"] == N_SUMS


@pytest.mark.train
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra train")
def test_a_stored_base_is_judged_later_without_being_asked_again(files: Path, tmp_path: Path) -> None:
    build_models(tmp_path)
    out, suite = tmp_path / "r", suite_of(files, "gsm8k")
    models = {"model": tmp_path / "adapter", "base": tmp_path / "base"}
    run_suite(plan_of(out, **models), suite, settings_of(files), lambda _line: None)
    before = document(out / "base")
    asked_before = (out / "base" / "samples" / "gsm8k.jsonl").read_text()
    said: list[str] = []
    with FakeOpenAI(kind_judge) as judge:
        settings = settings_of(files, judge_model="kind-2026-01-01", judge_api_base=judge.base_url)
        run_suite(plan_of(out, **models), suite, settings, said.append)
        n_requests = judge.n_requests
        run_suite(plan_of(out, **models), suite, settings, said.append)
        assert judge.n_requests == n_requests, "verdicts are kept"
    assert any("is used again" in line for line in said)
    after = document(out / "base")
    assert before["judge"]["status"] == "skipped"
    assert after["judge"]["status"] == "failed_gate"
    assert (after["created"], after["benchmarks"]["gsm8k"]["value"]) == (
        before["created"],
        before["benchmarks"]["gsm8k"]["value"],
    )
    assert "with_judge" in after["benchmarks"]["gsm8k"]["extra"]
    predictions = [json.loads(line)["prediction"] for line in asked_before.splitlines()]
    lines = (out / "base" / "samples" / "gsm8k.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == predictions
    assert "with_judge" in compared(out).pairs["gsm8k"].measures
