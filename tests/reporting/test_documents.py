"""The JSON document, the status document, results.tsv and the two benchmark files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_run import make_run

from rdagent_ft.reporting.benchmark_json import benchmark_document, comparison_document
from rdagent_ft.reporting.document import run_document, status_document
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.results_tsv import COLUMNS, results_tsv


def as_json(document: Any) -> dict[str, Any]:
    return json.loads(document.model_dump_json())


def test_document_has_the_documented_shape(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    document = as_json(run_document(open_run(run_dir)))
    assert list(document) == [
        "schema_version", "run_id", "run_dir", "status", "stop_reason", "baseline", "loops", "best",
        "claim", "cost",
    ]  # fmt: skip
    assert document["schema_version"] == 1
    assert document["status"] == "finished"
    assert document["stop_reason"] == "loop_n"
    assert set(document["loops"][0]) == {
        "loop",
        "status",
        "recipe_hash",
        "hypothesis",
        "val",
        "delta",
        "ci95",
    }
    assert document["loops"][0]["val"]["n"] == 500
    assert [loop["status"] for loop in document["loops"]] == [
        "accepted", "rejected", "accepted", "failed", "rejected", "failed", "accepted",
    ]  # fmt: skip
    assert document["loops"][3]["val"] is None
    assert document["best"] == {
        "loop": 6,
        "adapter": str(run_dir / "export/adapter"),
        "merged": str(run_dir / "export/merged"),
    }
    claim = document["claim"]
    assert (claim["split"], claim["n"], claim["verdict"], claim["opening"]) == ("test", 600, "improved", 1)
    assert claim["ci95"][0] < claim["delta"] < claim["ci95"][1]
    assert set(document["cost"]) == {"llm_usd", "llm_tokens", "train_s", "eval_s", "wall_s"}
    assert document["cost"]["llm_usd"] == pytest.approx(6 * 0.0123)
    assert document["cost"]["llm_tokens"] == 6 * 4_480
    assert "\x1b" not in json.dumps(document, ensure_ascii=False)


def test_best_is_null_when_nothing_was_accepted(tmp_path: Path) -> None:
    document = as_json(run_document(open_run(make_run(tmp_path, accept=False, verdict="inconclusive"))))
    assert document["best"] == {"loop": None, "adapter": None, "merged": None}
    assert document["claim"]["accepted"] is False


def test_best_before_the_export_is_the_trained_adapter(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, n_loops=3, verdict=None)
    best = run_document(open_run(run_dir)).best
    assert best.adapter == str(run_dir / "loops/002/stages/1-sft/attempt-2/adapter")
    assert best.merged is None


def test_full_weights_have_no_adapter(tmp_path: Path) -> None:
    best = run_document(open_run(make_run(tmp_path, kind="full"))).best
    assert best.adapter is None
    assert best.merged is not None


def test_an_empty_run_has_a_document(tmp_path: Path) -> None:
    document = as_json(run_document(open_run(make_run(tmp_path, n_loops=0, verdict=None))))
    assert document["loops"] == []
    assert document["claim"] is None


def test_status_document_lists_every_step_with_attempts(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path, n_loops=3, verdict=None, ended=False))
    status = as_json(status_document(view))
    steps = status.pop("steps")
    assert status == as_json(run_document(view))
    assert len(steps) == len(view.steps) + 1
    retried = next(step for step in steps if (step["loop"], step["step"]) == (2, "train"))
    assert [attempt["failure_class"] for attempt in retried["attempts"]] == ["infra", "ok"]
    assert steps[-1]["status"] == "open"
    assert steps[-1]["attempts"][0]["status"] == "running"
    assert sum(len(step["attempts"]) for step in steps) == len(view.attempts)


def test_results_tsv_is_one_line_a_loop(tmp_path: Path) -> None:
    table = results_tsv(open_run(make_run(tmp_path)))
    lines = table.splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    assert len(lines) == 8
    rows = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines[1:]]
    assert rows[2]["parent"] == "0"
    assert rows[2]["val"] == "0.7420 ± 0.0196"
    assert rows[2]["delta_vs_parent"].startswith("+0.1300 [")
    assert rows[3]["verdict"] == "failed train.diverged"
    assert rows[5]["val"] == "-"
    assert "\x1b" not in table
    assert not any(row["hypothesis"].startswith(("=", "@", "+", "-")) for row in rows)


def test_benchmark_and_comparison_files(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path))
    benchmark, comparison = benchmark_document(view), comparison_document(view)
    assert [model["model"]["role"] for model in benchmark["models"]] == ["base", "candidate"]
    tuned = benchmark["models"][1]["benchmarks"]
    assert set(tuned) == {"heldout/dev", "heldout/val", "heldout/test", "gsm8k/test"}
    assert tuned["heldout/test"]["n"] == tuned["heldout/test"]["n_expected"] == 600
    assert comparison["decision"] == "promote"
    assert comparison["pairs"]["gsm8k/test"]["arrow"] == "→"
    assert comparison["pairs"]["heldout/test"]["mcnemar"] == {"b": 262, "c": 15, "p": 0.0004}
    json.dumps([benchmark, comparison], allow_nan=False)


def test_a_rejected_candidate_is_not_promoted(tmp_path: Path) -> None:
    view = open_run(make_run(tmp_path, accept=False, verdict="equivalent"))
    assert comparison_document(view)["decision"] == "reject"
