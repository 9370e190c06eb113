"""The summary of base and latest tuned result, also over folders that lm-eval filled by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from result_case import binary, harness_row, rows_of, write_folder, write_harness

from rdagent_ft.errors import UserError
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.summary import summarise_folder


def test_the_latest_run_beside_the_base(tmp_path: Path) -> None:
    out = tmp_path / "model" / "benchmarks"
    write_folder(out / "base", {"gsm8k": rows_of(binary(200, 80))})
    for time, n in (("2025-11-23T10-30-15", 90), ("2025-11-24T08-00-00", 120), ("2025-10-30T23-00-00", 10)):
        write_folder(out / "fine-tuned" / time, {"gsm8k": rows_of(binary(200, n))}, role="candidate")
    summary = summarise_folder(tmp_path / "model")
    assert (summary.tuned, summary.base) == ("fine-tuned/2025-11-24T08-00-00", "base")
    document = json.loads((out / "benchmark.json").read_text())
    assert document == summary.document
    assert [model["model"]["role"] for model in document["models"]] == ["base", "candidate"]
    assert document["models"][1]["benchmarks"]["gsm8k"]["value"] == pytest.approx(0.6)
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison == document["comparison"]
    assert comparison["pairs"]["gsm8k"]["delta"] == pytest.approx(0.2)
    assert summarise_folder(out).document == document
    with pytest.raises(UserError, match="summary of several models"):
        read_result(out)


def test_without_a_base_there_is_no_comparison(tmp_path: Path) -> None:
    write_folder(tmp_path / "fine-tuned" / "2025-11-23T10-30-15", {"gsm8k": rows_of(binary(20, 8))})
    (tmp_path / "comparison.json").write_text("of an older base")
    assert summarise_folder(tmp_path).comparison is None
    assert not (tmp_path / "comparison.json").exists()


def test_folders_of_the_harness_alone(tmp_path: Path) -> None:
    for place, n in (("base", 40), ("fine-tuned/2025-11-23T10-30-15", 60)):
        rows = [harness_row(at, {"prompt_level_strict_acc": at < n}) for at in range(100)]
        write_harness(tmp_path / place / "lm-eval", {"ifeval": rows})
    summary = summarise_folder(tmp_path)
    assert summary.comparison is not None
    pair = summary.comparison.pairs["ifeval"]
    assert (pair.delta, pair.relative) == (pytest.approx(0.2), pytest.approx(0.5))
    assert summary.document["models"][0]["benchmarks"]["ifeval"]["value"] == pytest.approx(0.4)


def test_nothing_to_sum_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results"):
        summarise_folder(tmp_path)
    (tmp_path / "fine-tuned" / "notes").mkdir(parents=True)
    with pytest.raises(UserError, match="named by its time"):
        summarise_folder(tmp_path)
