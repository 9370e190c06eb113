"""Finding and reading benchmark files, and the messages when they are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdagent_ft.errors import DataError, UserError
from rdagent_ft.evaluation.benchmark_registry import ALIASES, BENCHMARKS, UNAVAILABLE, canonical_name
from rdagent_ft.evaluation.benchmarks import check_benchmarks, find_benchmark, load_items


@pytest.fixture
def file_path(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks" / "gsm8k"
    folder.mkdir(parents=True)
    lines = [
        {"question": f"{n} plus 1?", "answer": f"{n}+1=<<{n}+1={n + 1}>>\n#### {n + 1:,}"}
        for n in range(995, 1005)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_registry_is_consistent() -> None:
    assert not BENCHMARKS.keys() & UNAVAILABLE.keys()
    assert all(target in BENCHMARKS or target in UNAVAILABLE for target in ALIASES.values())
    assert not ALIASES.keys() & (BENCHMARKS.keys() | UNAVAILABLE.keys())
    guide_names = [name.lower() for known in BENCHMARKS.values() for name in known.guide_names]
    assert len(set(guide_names)) == len(guide_names)
    assert not set(guide_names) & (BENCHMARKS.keys() | ALIASES.keys() | UNAVAILABLE.keys())
    assert all(known.source and known.licence and known.noise for known in BENCHMARKS.values())


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("aime2025_llmjudge_gen_5e9f4f", "aime25"),
        ("aime2025.aime2025_llmjudge_gen_5e9f4f", "aime25"),
        ("opencompass.configs.datasets.IFEval.IFEval_gen_353ae7", "ifeval"),
        (" GSM8K_gen_1d7fe4 ", "gsm8k"),
        ("mmlu_ppl_ac766d", "mmlu_ll"),
        ("math500", "math"),
        ("aime2025_llmjudge_gen_ffffff", "aime2025_llmjudge_gen_ffffff"),
        ("nothing.here", "nothing.here"),
    ],
)
def test_names_of_other_harnesses_are_known(name: str, known: str) -> None:
    assert canonical_name(name) == known


def test_a_guide_name_is_reported_under_the_registry_name(file_path: Path) -> None:
    assert check_benchmarks(("gsm8k_gen_1d7fe4", "gsm8k"), file_path) == (("gsm8k",), [])


def test_items_are_questions_with_bare_answers(file_path: Path) -> None:
    found = find_benchmark("GSM8K", file_path)
    assert found is not None
    rows = load_items(found, None, 1)
    assert [row.completion for row in rows[3:6]] == ["999", "1000", "1001"]
    assert rows[0].prompt_text == "995 plus 1?"
    assert find_benchmark("aime25", file_path) is None
    assert find_benchmark("mmlu", file_path) is None
    assert find_benchmark("bbh", file_path) is None


def test_limit_is_a_seeded_draw_in_file_order(file_path: Path) -> None:
    found = find_benchmark("gsm8k", file_path)
    assert found is not None
    everything = load_items(found, None, 1)
    drawn = load_items(found, 4, 1)
    assert len(drawn) == 4
    assert drawn == [row for row in everything if row in drawn]
    assert drawn == load_items(found, 4, 1)
    assert {row.item_id for row in drawn} < {row.item_id for row in load_items(found, 7, 1)}
    assert any(load_items(found, 4, seed) != drawn for seed in range(2, 6))
    assert load_items(found, 400, 1) == everything


def test_unset_default_costs_a_line(file_path: Path) -> None:
    runnable, notices = check_benchmarks(None, file_path)
    assert runnable == ()
    assert len(notices) == 1
    assert "aime25.jsonl" in notices[0]
    assert "\n" not in notices[0]
    folder = file_path / "benchmarks" / "aime25"
    folder.mkdir()
    (folder / "aime25.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    assert check_benchmarks(None, file_path) == (("aime25",), [])


def test_named_ones_run_or_stop_everything(file_path: Path) -> None:
    assert check_benchmarks(("gsm8k", "GSM8K"), file_path) == (("gsm8k",), [])
    assert check_benchmarks((), file_path) == ((), [])
    runnable, notices = check_benchmarks(("heldout", "gsm8k"), file_path)
    assert runnable == ("gsm8k",)
    assert "always scored" in notices[0]
    with pytest.raises(UserError) as caught:
        check_benchmarks(("gsm8k", "gsm8", "bbh", "aime2025", "zzz"), file_path)
    assert [problem.problem_class for problem in caught.value.problems] == [
        "benchmark.unknown",
        "benchmark.unavailable",
        "benchmark.no_data",
        "benchmark.unknown",
    ]
    text = caught.value.render()
    assert "did you mean gsm8k?" in text
    assert str(file_path / "benchmarks" / "aime25" / "aime25.jsonl") in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "q"}\n', r"test\.jsonl:1 has none of the fields answer.*it has: question"),
        ('{"question": "q", "answer": "1"}\n{"question"\n', r"test\.jsonl:2 is not JSON"),
        ("[1]\n", r"test\.jsonl:1 is not a JSON object"),
        ('{"question": "q", "answer": "many"}\n', "no item that numeric_match can score"),
        ("", "no item"),
    ],
)
def test_bad_files_are_named(file_path: Path, content: str, message: str) -> None:
    (file_path / "benchmarks" / "gsm8k" / "test.jsonl").write_text(content)
    found = find_benchmark("gsm8k", file_path)
    assert found is not None
    with pytest.raises(DataError, match=message):
        load_items(found, None, 1)


def test_named_items_are_taken_exactly(file_path: Path) -> None:
    found = find_benchmark("gsm8k", file_path)
    assert found is not None
    everything = load_items(found)
    ids = [everything[7].item_id, everything[2].item_id]
    assert load_items(found, ids=ids) == [everything[2], everything[7]]
    assert load_items(found, 1, 5, ids=ids) == [everything[2], everything[7]]
    with pytest.raises(DataError, match="has not 1 of 2 items: beef") as caught:
        load_items(found, ids=[ids[0], "beef"])
    assert "another version" in (caught.value.hint or "")
