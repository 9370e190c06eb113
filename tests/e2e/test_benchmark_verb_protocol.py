"""`benchmark --protocol opencompass`: the documented prompts, from options to results."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_case import (
    N_SUMS,
    document,
    endpoint_plan,
    right_sum,
    settings_of,
    tuned_folder,
    write_benchmarks,
    write_tokenizer,
)
from fake_endpoint import FakeEndpoint

from rdagent_ft.cli.main import main
from rdagent_ft.engine.benchmark.ask_plan import AskPlan
from rdagent_ft.engine.benchmark.run import run_benchmark
from rdagent_ft.errors import PreflightError, UserError
from rdagent_ft.evaluation.results.compare import compare_results
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.summary import summarise_folder

OPENCOMPASS = os.environ.get("FT_TEST_OPENCOMPASS")
needs_lm_eval = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "tenacity", "aiohttp")),
    reason="needs lm-eval[api]",
)
needs_opencompass = pytest.mark.skipif(
    OPENCOMPASS is None, reason="needs OpenCompass: set FT_TEST_OPENCOMPASS to its Python"
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    write_benchmarks(files)
    problems = files / "benchmarks" / "aime25" / "aime25.jsonl"
    problems.parent.mkdir()
    rows = [{"id": f"I-{a}", "problem": f"What is {a} plus 7?", "answer": str(a + 7)} for a in range(3)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def run(files: Path, out: Path, url: str, protocol: str, *names: str, **changes: Any) -> None:
    settings = {key: changes.pop(key) for key in ("opencompass_python",) if key in changes}
    plain = endpoint_plan(out, url, harness="opencompass", **changes)
    plan = AskPlan.model_validate({**plain.model_dump(), "protocol": protocol, "benchmarks": names})
    run_benchmark(plan, settings_of(files, **settings), lambda _line: None)


@needs_opencompass
@needs_lm_eval
def test_documented_prompts_are_asked_scored_and_kept_apart(files: Path, tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "r"
    fixed: dict[str, Any] = {"tokenizer": tokenizer, "opencompass_python": OPENCOMPASS}
    with FakeEndpoint(answer=right_sum, models=("tiny", "small"), max_model_len=16_384) as server:
        url = server.base_url
        run(files, out, url, "opencompass", "gsm8k", "aime25", base_model_name="small", **fixed)
        asked = [seen.body["messages"] for seen in server.seen if "messages" in seen.body]
        assert len(asked) == 2 * (N_SUMS + 3)
        boxed = [turns for turns in asked if turns[-1]["content"].endswith("within \\boxed{}.")]
        assert len(boxed) == 2 * 3, "aime2025_llmjudge_gen_5e9f4f asks for a box"
        assert sum(len(turns) == 9 for turns in asked) == 2 * N_SUMS, "gsm8k_gen_1d7fe4 shows four examples"
        base, tuned = document(out / "base"), document(tuned_folder(out))
        for written in (base, tuned):
            entries = written["benchmarks"]
            assert (written["status"], written["generation"]["protocol"]) == ("ok", "opencompass")
            assert (written["suite"]["name"], written["engine"]["client"]) == ("chosen", "opencompass")
            assert entries["aime25"]["filter"] == "asked as aime2025_llmjudge_gen_5e9f4f"
            assert (entries["gsm8k"]["value"], entries["aime25"]["value"]) == (1.0, 1.0)
            assert written["engine"]["args"]["max_new_tokens"] == {"aime25": 8192}, "half of the context"
        assert base["engine"]["args"]["asked_sha256"] == tuned["engine"]["args"]["asked_sha256"]
        comparison = summarise_folder(out).comparison
        assert comparison is not None
        assert (comparison.target, comparison.pairs["gsm8k"].n_prompts_differ) == ("gsm8k", 0)

        # Our own prompts of the same items: another result, which is refused beside this one.
        own = tmp_path / "own"
        run(files, own, url, "own", "gsm8k", "aime25", **fixed)
    ours = document(tuned_folder(own))
    assert (ours["status"], ours["benchmarks"]["gsm8k"]["filter"]) == ("ok", None)
    for pair in ((out / "base", tuned_folder(own)), (tuned_folder(own), tuned_folder(out))):
        with pytest.raises(UserError, match="cannot be compared") as refused:
            compare_results(*map(read_result, pair))
        assert "compare.metric" in refused.value.render()
        assert "asked as gsm8k_gen_1d7fe4" in refused.value.render()
    with pytest.raises(UserError, match="by another protocol"), FakeEndpoint(answer=right_sum) as server:
        run(files, out, server.base_url, "own", "gsm8k", "aime25", **fixed)


def test_benchmarks_without_a_documented_config_are_named(files: Path, tmp_path: Path) -> None:
    folder = files / "benchmarks" / "svamp"
    folder.mkdir()
    (folder / "SVAMP.json").write_text(json.dumps([{"Body": "b", "Question": "q?", "Answer": 1}]))
    with pytest.raises(PreflightError, match="of: svamp, mmlu_ll") as refused:
        run(
            files, tmp_path / "r", "http://127.0.0.1:1/v1", "opencompass", "svamp", "gsm8k", "mmlu_ll",
            opencompass_python=sys.executable, tokenizer=tmp_path,
        )  # fmt: skip
    assert "aime24, aime25, gpqa" in refused.value.render()


def test_options_that_do_not_fit_are_told_together(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FT_FILE_PATH", str(files))
    tuned = tmp_path / "m"
    tuned.mkdir()
    (tuned / "config.json").write_text("{}")

    def said(*argv: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["benchmark", str(tuned), "--no-base", *argv])
        assert ended.value.code == 2
        return capsys.readouterr().err

    text = said("--protocol", "opencompass", "--benchmarks", "gsm8k,gsmk8,mmlu_pro", "--backend", "vlm")
    for words in ("add --harness opencompass", "did you mean", "it cannot run", "use hf, vllm or server"):
        assert words in text
    assert "asks a server, and the backend is vllm" in said(
        "--harness", "opencompass", "--backend", "vllm", "--benchmarks", "gsm8k"
    )
    assert "use own or opencompass" in said("--protocol", "helm", "--benchmarks", "gsm8k")
    assert "names none" in said("--benchmarks", " , ")
    assert "a file of your own" in said("--benchmarks", "mine.jsonl").replace("\n", " ")
    assert "backend server" in said("--endpoint", "http://127.0.0.1:1/v1", "--backend", "vllm")
