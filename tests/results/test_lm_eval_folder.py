"""Folders that lm-eval wrote by itself: read whole, cross-checked, refused when damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from result_case import STAMP, harness_row, write_harness

from rdagent_ft.errors import StateError, UserError
from rdagent_ft.evaluation.results.read import read_result
from rdagent_ft.evaluation.results.sheet import measure_value


def gsm8k_rows(n: int = 10) -> list[dict[str, Any]]:
    """Two filters a document, as GSM8K has."""
    strict = [harness_row(at, {"exact_match": float(at < 4)}, filter="strict-match") for at in range(n)]
    loose = [harness_row(at, {"exact_match": float(at < 6)}, filter="flexible-extract") for at in range(n)]
    return [*strict, *loose]


def test_the_leading_metric_and_its_companions(tmp_path: Path) -> None:
    ifeval = [
        harness_row(
            at,
            {
                "prompt_level_strict_acc": at < 5,
                "inst_level_strict_acc": [True, at < 5],
                "prompt_level_loose_acc": at < 6,
            },
        )
        for at in range(8)
    ]
    hellaswag = [harness_row(at, {"acc": 0.0, "acc_norm": float(at % 2)}) for at in range(4)]
    write_harness(tmp_path, {"gsm8k": gsm8k_rows(), "ifeval": ifeval, "hellaswag": hellaswag})
    result = read_result(tmp_path)
    assert (result.kind, result.label, result.notes) == ("lm-eval", "org/model", ())
    gsm8k, ifeval_sheet = result.sheets["gsm8k"], result.sheets["ifeval"]
    assert gsm8k.metric_name == "exact_match, flexible-extract"
    assert sum(item.score or 0 for item in gsm8k.items.values()) == 6
    assert measure_value(gsm8k.measures["exact_match, strict-match"]) == 0.4
    assert ifeval_sheet.metric_name == "prompt_level_strict_acc"
    assert measure_value(ifeval_sheet.measures["inst_level_strict_acc"]) == 13 / 16
    assert result.sheets["hellaswag"].metric_name == "acc_norm"


def test_a_mean_that_is_not_that_of_the_answers(tmp_path: Path) -> None:
    means = {"gsm8k": {"exact_match,flexible-extract": 0.61}}
    write_harness(tmp_path / "a", {"gsm8k": gsm8k_rows()}, means=means)
    with pytest.raises(StateError, match=r"flexible-extract is 0\.61 there, but 0\.6 over the 10 documents"):
        read_result(tmp_path / "a")
    means = {"gsm8k": {"exact_match,flexible-extract": 0.6000005}}
    assert read_result(write_harness(tmp_path / "b", {"gsm8k": gsm8k_rows()}, means=means)).sheets


def test_scores_that_are_no_shares_are_left_out_aloud(tmp_path: Path) -> None:
    rows = [harness_row(at, {"word_perplexity": 12.5 + at}) for at in range(4)]
    write_harness(tmp_path / "a", {"wikitext": rows, "gsm8k": gsm8k_rows()})
    result = read_result(tmp_path / "a")
    assert set(result.sheets) == {"gsm8k"}
    assert result.notes == ("wikitext: no metric that is a share, not compared",)
    with pytest.raises(UserError, match="no metric that is a share"):
        read_result(write_harness(tmp_path / "b", {"wikitext": rows}))
    mcc = [harness_row(at, {"mcc": [0, 1], "acc": 1.0}) for at in range(4)]
    config = {"cola": {"metric_list": [{"metric": "mcc", "aggregation": "matthews_corrcoef"}]}}
    third = write_harness(tmp_path / "c", {"cola": mcc}, means={"cola": {"mcc,none": 0.1}}, configs=config)
    assert read_result(third).notes == (
        "cola mcc, none: no mean over documents (matthews_corrcoef), left out",
    )


def test_the_tasks_of_a_group_are_one(tmp_path: Path) -> None:
    tasks = {f"mmlu_{name}": [harness_row(at, {"acc": 1.0}) for at in range(3)] for name in "abc"}
    groups = {"mmlu": ["mmlu_stem", "mmlu_c"], "mmlu_stem": ["mmlu_a", "mmlu_b"]}
    result = read_result(write_harness(tmp_path, tasks, groups=groups))
    assert set(result.sheets) == {"mmlu"}
    assert len(result.sheets["mmlu"].items) == 9, "equal documents of two subjects stay two"
    circular = write_harness(tmp_path / "c", tasks, groups={"x": ["y", "mmlu_a"], "y": ["x"]})
    assert len(read_result(circular).sheets) == 3


def test_equal_documents_are_told_apart_and_cluster(tmp_path: Path) -> None:
    rows = [
        harness_row(0, {"acc": 1.0}),
        harness_row(0, {"acc": 0.0}) | {"doc_id": 1},
        harness_row(2, {"acc": 1.0}),
    ]
    sheet = read_result(write_harness(tmp_path, {"t": rows})).sheets["t"]
    assert len(sheet.items) == 3
    assert sorted(item.cluster is None for item in sheet.items.values()) == [False, False, True]


def _damage(folder: Path, change: Any) -> None:
    path = folder / "org__model" / f"samples_gsm8k_{STAMP}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))


def _changed(line: str, **changes: Any) -> str:
    return json.dumps(json.loads(line) | changes) + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "holds 9 documents of filter 'flexible-extract'.*says 10"),
        (lambda lines: [*lines[:-1], lines[-1][:50]], r"jsonl:20` is not valid JSON"),
        (
            lambda lines: [*lines, lines[3]],
            r":21: document 3 with filter 'strict-match' stands in line 4 too",
        ),
        (
            lambda lines: [_changed(lines[0], exact_match=float("nan")), *lines[1:]],
            r":1: `exact_match` is nan",
        ),
        (
            lambda lines: [_changed(lines[0], exact_match=float("inf")), *lines[1:]],
            r":1: `exact_match` is inf",
        ),
        (lambda lines: [_changed(lines[0], doc_id="0"), *lines[1:]], r":1: `doc_id` is '0'"),
        (lambda lines: [_changed(lines[0], doc_hash=None), *lines[1:]], r":1: `doc_hash` is None"),
        (lambda lines: [_changed(lines[0], filter=["a"]), *lines[1:]], r":1: `filter` is"),
        (lambda lines: [_changed(lines[0], metrics="acc"), *lines[1:]], r":1: `metrics` is 'acc'"),
        (lambda lines: [_changed(lines[0], metrics=["acc"]), *lines[1:]], r":1: metric 'acc' has no value"),
        (
            lambda lines: [_changed(lines[0], prompt_hash="zz"), *lines[1:]],
            r":11: the same document has another",
        ),
        (lambda lines: ["[]\n", *lines], "jsonl:1` holds a JSON list"),
        (lambda lines: ["x" * (17 << 20), *lines], "jsonl:1` is longer than"),
        (lambda _: [], "holds 0 documents|different documents, 0 in all"),
    ],
    ids=range(14),
)
def test_damaged_answers_are_named(tmp_path: Path, change: Any, message: str) -> None:
    write_harness(tmp_path, {"gsm8k": gsm8k_rows()})
    _damage(tmp_path, change)
    with pytest.raises(StateError, match=message):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("results", [], "`results` is no object"),
        ("n-samples", {}, "names no task"),
        ("n-samples", {"gsm8k": {"effective": "10"}}, "is no count"),
        ("n-samples", {"../x": {"effective": 1}}, "is no count"),
        ("n-samples", {"other": {"effective": 1}}, "left no"),
        ("configs", {"gsm8k": 1}, "`configs.gsm8k` is no object"),
        ("results", {"gsm8k": {"exact_match,strict-match": float("nan")}}, "nan there"),
    ],
)
def test_damaged_results_are_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    write_harness(tmp_path, {"gsm8k": gsm8k_rows()})
    path = tmp_path / "org__model" / f"results_{STAMP}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(StateError, match=message):
        read_result(tmp_path)


def test_two_runs_are_not_mixed(tmp_path: Path) -> None:
    write_harness(tmp_path, {"gsm8k": gsm8k_rows()})
    write_harness(tmp_path, {"gsm8k": gsm8k_rows()}, stamp="2026-11-21T00-00-00.1")
    with pytest.raises(UserError, match="two runs of gsm8k"):
        read_result(tmp_path)
    assert read_result(tmp_path / "org__model" / f"results_{STAMP}.json").sheets
    other = tmp_path / "other"
    write_harness(other, {"gsm8k": gsm8k_rows()})
    write_harness(other, {"mmlu": gsm8k_rows()}, inside="org__b", model_name="org/b", stamp=STAMP)
    with pytest.raises(UserError, match="several models: org/b, org/model"):
        read_result(other)


def test_a_linked_samples_file_is_refused(tmp_path: Path) -> None:
    write_harness(tmp_path, {"gsm8k": gsm8k_rows()})
    path = tmp_path / "org__model" / f"samples_gsm8k_{STAMP}.jsonl"
    path.rename(tmp_path / "elsewhere.jsonl")
    path.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(StateError, match="cannot be read"):
        read_result(tmp_path)


def test_what_the_real_harness_writes(tmp_path: Path) -> None:
    """The harness itself, with its own dummy model: no shape of ours."""
    pytest.importorskip("lm_eval")
    lines = [{"question": f"{at} plus {at}", "answer": "lol" if at % 4 == 0 else "x"} for at in range(12)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/items.jsonl}}}}\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        "generation_kwargs: {until: ['Q'], do_sample: false, max_gen_toks: 8}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        "filter_list:\n"
        "  - {name: strict-match, filter: [{function: regex, regex_pattern: '#### (.*)'}, "
        "{function: take_first}]}\n"
        "  - {name: flexible-extract, filter: [{function: regex, regex_pattern: '([a-z]+)'}, "
        "{function: take_first}]}\n"
    )
    argv = [sys.executable, "-m", "lm_eval", "run", "--model", "dummy", "--tasks", "own", "--log_samples"]
    argv += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
    }
    subprocess.run(argv, check=True, capture_output=True, cwd=tmp_path, env=environment)
    result = read_result(tmp_path / "out")
    sheet = result.sheets["own"]
    assert sheet.metric_name == "exact_match, flexible-extract"
    assert [item.score for item in sheet.items.values()].count(1.0) == 3
    assert all(item.prompt_hash for item in sheet.items.values())
    assert result.notes == ()
