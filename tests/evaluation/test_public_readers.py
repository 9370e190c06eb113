"""Reading the public formats: options, tables, archives, code and instruction references."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from rdagent_ft.answers.number_answers import whole_number
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.benchmarks import FoundBenchmark, compared_item, find_benchmark, load_items
from rdagent_ft.evaluation.ifeval_answers import read_gold
from rdagent_ft.evaluation.public import records
from rdagent_ft.values import canonical_json


def found_in(file_path: Path, name: str) -> FoundBenchmark:
    found = find_benchmark(name, file_path)
    assert found is not None
    return found


def write_items(file_path: Path, name: str, file_name: str, *lines: dict[str, object]) -> FoundBenchmark:
    folder = file_path / "benchmarks" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file_name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found_in(file_path, name)


def test_options_in_one_text(tmp_path: Path) -> None:
    mathqa = write_items(
        tmp_path,
        "mathqa",
        "test.jsonl",
        {"problem": "q1", "options": "a ) 1 , 000 , b ) 2 , c ) x , y , d ) 4 , e ) none", "correct": "c"},
        {"problem": "q2", "options": "['a ) 1 m', 'b ) 2 m']", "correct": "a"},
        {"problem": "q3", "options": "a ) a ) 5 , b ) b ) 6", "correct": "b"},
    )
    rows = load_items(mathqa)
    assert "A. 1, 000\nB. 2\nC. x, y\nD. 4\nE. none" in rows[0].prompt_text
    assert [row.completion for row in rows] == ["C", "A", "B"]
    assert [row.meta["answer_text"] for row in rows] == ["x, y", "1 m", "6"]
    assert compared_item(rows[2], "mathqa").answer == "6"


def test_a_long_question_is_compared_without_its_options(tmp_path: Path) -> None:
    long, short = "how many of " * 5 + "these are left?", "Which of these is true?"
    lines = [{"question": asked, "options": ["A)1", "B)2"], "correct": "B"} for asked in (long, short)]
    rows = load_items(write_items(tmp_path, "aqua", "test.jsonl", *lines))
    assert compared_item(rows[0], "aqua").question == long
    assert "B. 2" in compared_item(rows[1], "aqua").question


def test_options_in_a_list(tmp_path: Path) -> None:
    aqua = write_items(
        tmp_path, "aqua", "test.jsonl", {"question": "q", "options": ["A)1", "B)A)2"], "correct": "B"}
    )
    assert "A. 1\nB. A)2" in load_items(aqua)[0].prompt_text
    choices = [{"label": "A", "text": "bank"}, {"label": "B", "text": "mall"}]
    csqa = write_items(
        tmp_path,
        "commonsenseqa",
        "dev.jsonl",
        {"answerKey": "B", "question": {"stem": "q", "choices": choices}},
    )
    assert load_items(csqa)[0].prompt_text.startswith("q\n\nA. bank\nB. mall\n\nEnd with")


@pytest.mark.parametrize(
    ("options", "correct"),
    [("a ) 1 , c ) 2", "a"), (["A)1", "B)2"], "C"), (None, "A"), ([], "A"), ([{}], "A")],
)
def test_bad_options_are_named(tmp_path: Path, options: object, correct: str) -> None:
    bad = write_items(
        tmp_path, "aqua", "test.jsonl", {"question": "q", "options": options, "correct": correct}
    )
    with pytest.raises(DataError, match=r"test\.jsonl:1"):
        load_items(bad)


def mmlu_zip(path: Path, tables: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in tables.items():
            archive.writestr(name, text)


TABLES = {
    "data/test/world_history_test.csv": '"When, and ""why""?",now,then,never,"a, b",D\n',
    "data/test/anatomy_test.csv": "What?,w,x,y,z,B\n",
    "data/dev/anatomy_dev.csv": "Shown?,w,x,y,z,B\n",
}


def mmlu_folder(root: Path) -> None:
    for name, text in TABLES.items():
        file = root / "benchmarks" / "mmlu" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_mmlu_from_a_zip_and_from_a_folder_is_the_same(tmp_path: Path) -> None:
    mmlu_zip(tmp_path / "zip" / "benchmarks" / "mmlu" / "mmlu.zip", TABLES)
    mmlu_folder(tmp_path / "folder")
    unpacked = found_in(tmp_path / "folder", "mmlu")
    rows = load_items(found_in(tmp_path / "zip", "mmlu"))
    assert rows == load_items(unpacked)
    assert [(row.completion, row.meta["subject"]) for row in rows] == [
        ("B", "anatomy"),
        ("D", "world_history"),
    ]
    assert 'When, and "why"?\n\nA. now\nB. then\nC. never\nD. a, b\n\n' in rows[1].prompt_text
    (tmp_path / "folder/benchmarks/mmlu/data/test/new_test.csv").write_text("q,1,2,3,4,A\n")
    assert found_in(tmp_path / "folder", "mmlu").sha256 != unpacked.sha256


def test_mmlu_by_likelihood_asks_in_the_usual_form(tmp_path: Path) -> None:
    mmlu_folder(tmp_path)
    found = found_in(tmp_path, "mmlu_ll")
    assert found.benchmark.method == "choose"
    row = load_items(found)[1]
    heading = "The following are multiple choice questions (with answers) about world history.\n\nWhen,"
    assert row.prompt_text.startswith(heading)
    assert row.prompt_text.endswith("D. a, b\nAnswer:")
    assert row.meta["choices"] == ["A", "B", "C", "D"]


@pytest.mark.parametrize("text", ["q,1,2,3,A\n", "q,1,2,3,4,E\n", '"q,1,2,3,4,A\n'])
def test_a_broken_table_is_named(tmp_path: Path, text: str) -> None:
    mmlu_zip(tmp_path / "benchmarks" / "mmlu" / "mmlu.zip", {"test/x_test.csv": text})
    with pytest.raises(DataError, match=r"x_test\.csv"):
        load_items(found_in(tmp_path, "mmlu"))


def test_a_broken_zip_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "mmlu"
    folder.mkdir(parents=True)
    (folder / "mmlu.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="cannot be unpacked"):
        load_items(found_in(tmp_path, "mmlu"))


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "benchmarks" / "humaneval"
    code.mkdir(parents=True)
    (code / "HumanEval.jsonl.gz").write_bytes(gzip.compress(b"\n" * 5_000_000))
    mmlu_zip(tmp_path / "benchmarks" / "mmlu" / "mmlu.zip", {"x_test.csv": "q" * 2_000_000})
    monkeypatch.setattr(records, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(DataError, match="larger than 1000000"):
        load_items(found_in(tmp_path, "humaneval"))
    with pytest.raises(DataError, match="1000000 bytes"):
        load_items(found_in(tmp_path, "mmlu"))


def test_gpqa_mixes_its_options_the_same_way_every_time(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "gpqa"
    folder.mkdir(parents=True)
    heading = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    lines = "".join(f"question {n},right{n},x{n},y{n},z{n}\n" for n in range(40))
    (folder / "gpqa_diamond.csv").write_text(heading + lines)
    found = found_in(tmp_path, "gpqa")
    rows = load_items(found)
    assert rows == load_items(found)
    assert {row.completion for row in rows} == set("ABCD")
    assert all(f"{row.completion}. {row.meta['answer_text']}\n" in row.prompt_text for row in rows)
    (folder / "gpqa_diamond.csv").write_text("Question,Answer\nq,a\n")
    with pytest.raises(DataError, match="no column Correct Answer"):
        load_items(found_in(tmp_path, "gpqa"))


def test_humaneval_reference_is_canonical_json(tmp_path: Path) -> None:
    task = {"task_id": "H/0", "prompt": "def f():\n    # d\n", "entry_point": "f", "test": "\ncheck"}
    found = write_items(
        tmp_path, "humaneval", "HumanEval.jsonl", {**task, "canonical_solution": "    return 1\n"}
    )
    (row,) = load_items(found)
    assert json.loads(row.completion) == task
    assert row.completion == canonical_json(task)
    assert compared_item(row, "humaneval").answer == "    return 1\n"


def test_mbpp_scores_its_test_split(tmp_path: Path) -> None:
    rest = {"test_list": ["assert f()"], "test_setup_code": "import re", "code": "c"}
    tasks = [{"task_id": n, "text": f"do {n}", **rest} for n in (10, 11, 510, 511)]
    rows = load_items(write_items(tmp_path, "mbpp", "mbpp.jsonl", *tasks))
    assert [json.loads(row.completion)["task_id"] for row in rows] == [11, 510]
    assert json.loads(rows[0].completion) == {"task_id": 11, "tests": ["assert f()"], "setup": "import re"}
    assert "assert f()" in rows[0].prompt_text


def test_ifeval_reference_carries_the_checks(tmp_path: Path) -> None:
    line = {"key": 1, "prompt": "Do.", "instruction_id_list": ["a:b"], "kwargs": [{"n": 3, "other": None}]}
    (row,) = load_items(write_items(tmp_path, "ifeval", "input_data.jsonl", line))
    assert json.loads(row.completion)["kwargs"] == [{"n": 3}]
    assert row.prompt_text == "Do."
    assert compared_item(row, "ifeval").answer == ""
    with pytest.raises(DataError, match="not lists of one length"):
        load_items(write_items(tmp_path, "ifeval", "input_data.jsonl", {**line, "kwargs": []}))


REAL = (
    ("gsm8k", 1319, "18"),
    ("aime24", 30, None),
    ("aime25", 30, "70"),
    ("math", 500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
    ("svamp", 1000, "51"),
    ("mathqa", 1000, "A"),
    ("aqua", 254, "A"),
    ("commonsenseqa", 1221, "A"),
    ("mmlu", 13937, "B"),
    ("mmlu_ll", 14015, "B"),
    ("ifeval", 541, None),
    ("humaneval", 164, None),
    ("mbpp", 500, None),
)
CODE_KEYS = {
    "humaneval": {"task_id", "prompt", "entry_point", "test"},
    "mbpp": {"task_id", "tests", "setup"},
}


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "n_items", "first"), REAL)
def test_real_files_load(
    shared_data: Path, tmp_path: Path, name: str, n_items: int, first: str | None
) -> None:
    (tmp_path / "benchmarks").symlink_to(shared_data)
    found = found_in(tmp_path, name)
    rows = load_items(found, None, 42)
    assert len(rows) == n_items
    assert found.benchmark.n_items >= n_items
    assert first is None or rows[0].completion == first
    golds = [row.completion for row in rows]
    match found.benchmark.scorer:
        case "numeric_match":
            assert all(whole_number(gold) is not None for gold in golds)
        case "choice_match":
            assert set(golds) <= set("ABCDE")
            assert all(f"\n{row.completion}. {row.meta['answer_text']}\n" in row.prompt_text for row in rows)
            assert len({row.meta.get("subject", "") for row in rows}) == (57 if "mmlu" in name else 1)
        case "ifeval":
            assert sum(len(gold.instruction_id_list) for gold in map(read_gold, golds) if gold) == 834
        case "code_pass":
            assert all(set(json.loads(gold)) == CODE_KEYS[name] for gold in golds)
        case _:
            assert all(gold.strip() for gold in golds)
