"""A user's own benchmark: found by path, every mistake told at once, nothing dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdagent_ft.errors import DataError, UserError
from rdagent_ft.evaluation.benchmarks import check_benchmarks, clusters_of, find_benchmark, load_items
from rdagent_ft.evaluation.own_benchmark import is_own, own_problems, own_spec, read_own


def write(path: Path, *lines: dict[str, object] | str) -> str:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(text + "\n" for text in texts))
    return str(path)


def test_what_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_own("a.jsonl")
    assert is_own("/x/a.jsonl:exact_match")
    assert not any(is_own(name) for name in ("gsm8k", "a.json", "a.jsonl:x:y"))
    monkeypatch.chdir(tmp_path)
    assert own_spec("my set.v2.jsonl:exact_match") == (
        tmp_path / "my set.v2.jsonl",
        "exact_match",
        "my_set_v2",
    )
    assert own_spec("gsm8k.jsonl")[2] == "own_gsm8k"


def test_items_of_both_question_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(
        tmp_path / "mine.jsonl",
        {"id": "a", "prompt": "1+1?", "answer": 2, "cluster": "sums"},
        {
            "id": "b",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}],
            "answer": "4",
        },
    )
    monkeypatch.chdir(tmp_path)
    runnable, notices = check_benchmarks(("mine.jsonl", name), Path("/none"))
    assert (runnable, notices) == ((name,), [])
    monkeypatch.chdir("/")
    found = find_benchmark(runnable[0], Path("/none"))
    assert found is not None
    assert (found.benchmark.name, found.benchmark.scorer) == ("mine", "numeric_match")
    rows = load_items(found)
    assert [row.completion for row in rows] == ["2", "4"]
    assert [message.role for message in rows[1].prompt] == ["system", "user"]
    assert clusters_of(rows) == {rows[0].item_id: "sums"}
    assert load_items(found, ids=[rows[1].item_id]) == [rows[1]]
    assert load_items(found, 1, 3) in ([rows[0]], [rows[1]])


def test_a_named_scorer_wins_and_must_fit(tmp_path: Path) -> None:
    name = write(tmp_path / "x.jsonl", {"id": 1, "prompt": "q", "answer": "B"})
    assert read_own(f"{name}:choice_match")[0].scorer == "choice_match"
    assert read_own(name)[0].scorer == "exact_match"
    assert read_own(f"{name}:math_match")[0].scorer == "math_match"
    assert "holds no number" in own_problems(f"{name}:numeric_match")[0].rule
    assert "no such scorer" in own_problems(f"{name}:code_pass")[0].rule
    assert "needs a rubric" in own_problems(f"{name}:rubric")[0].rule


def test_rubrics_go_to_a_judge(tmp_path: Path) -> None:
    name = write(
        tmp_path / "x.jsonl",
        {"id": 1, "prompt": "q", "rubric": "is short"},
        {"id": 2, "prompt": "r", "rubric": ["is short", "is kind"], "answer": "yes"},
    )
    benchmark, rows = read_own(name)
    assert (benchmark.scorer, benchmark.metric) == ("rubric", "mean_score")
    assert [json.loads(row.completion) for row in rows] == [
        {"rubric": "is short", "reference": None},
        {"rubric": "is short\nis kind", "reference": "yes"},
    ]
    assert "an answer" in own_problems(f"{name}:exact_match")[0].rule


def test_all_bad_lines_are_told_together(tmp_path: Path) -> None:
    good = {"id": "g", "prompt": "q", "answer": "a"}
    name = write(
        tmp_path / "x.jsonl",
        good,
        {**good, "id": "h"},
        {**good, "prompt": "other"},
        {**good, "id": "i", "promt": "typo"},
        {"id": "j", "prompt": "q"},
        {"id": "k", "answer": "a"},
        {"id": "l", "prompt": "q", "messages": [], "answer": "a"},
        {"id": "m", "messages": [{"role": "assistant", "content": "x"}], "answer": "a"},
        {"id": True, "prompt": "q", "answer": "a"},
    )
    rules = {(problem.value or "").rpartition(":")[2]: problem.rule for problem in own_problems(name)}
    assert list(rules) == [str(number) for number in range(2, 10)]
    assert "are those of" in rules["2"]
    assert "'g' is already at" in rules["3"]
    assert "promt" in rules["4"]
    assert "`answer`" in rules["5"]
    assert rules["6"] == rules["7"] == "give either `prompt` or `messages`"
    assert "user's" in rules["8"]
    assert "`id`" in rules["9"]
    assert find_benchmark(name, tmp_path) is None
    with pytest.raises(UserError, match="8 problems"):
        check_benchmarks((name,), tmp_path)
    with pytest.raises(DataError) as caught:
        read_own(name)
    assert len(caught.value.problems) == 8


def test_a_file_of_nonsense_is_told_in_a_few_lines(tmp_path: Path) -> None:
    name = write(tmp_path / "x.jsonl", *[{"id": n} for n in range(500)])
    problems = own_problems(name)
    assert len(problems) == 11
    assert "490 further" in problems[-1].rule
    assert "is not JSON" in own_problems(write(tmp_path / "y.jsonl", "{"))[0].rule
    assert "no item" in own_problems(write(tmp_path / "z.jsonl"))[0].rule
    assert "there is no file" in own_problems(str(tmp_path / "none.jsonl"))[0].rule


def test_two_files_of_one_short_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    line = {"id": 1, "prompt": "q", "answer": "a"}
    names = (write(tmp_path / "x.jsonl", line), write(tmp_path / "other" / "x.jsonl", line))
    with pytest.raises(UserError) as caught:
        check_benchmarks(names, tmp_path)
    assert "same short name" in caught.value.render()
