"""`rdagent-ft data decontaminate` as a person calls it: the list, the clean file, exit codes, bad input."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.cli.main import main

QUESTION = "A baker has 12 trays with 8 rolls each and sells 50 rolls before noon; how many are left at noon?"
OTHER = (
    "Sort the following animals by their usual weight, the heaviest first, and explain your order briefly."
)


class Called:
    """A finished call."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> Called:
        with pytest.raises(SystemExit) as ended:
            main(["data", "decontaminate", *argv])
        shown = capsys.readouterr()
        return Called(int(ended.value.code or 0), shown.out, shown.err)

    return run


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A training file of which row 2 leaks, and an evaluation file without answers."""
    rows = [{"prompt": OTHER, "completion": "ox", "id": 1}, {"prompt": QUESTION.upper(), "completion": "46"}]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "eval.jsonl", [{"question": "Is it?"}, {"question": QUESTION}])
    return "train.jsonl", "eval.jsonl"


def test_the_document_names_every_pair(call: Any, files: tuple[str, str]) -> None:
    done = call(files[0], "--against", files[1], "--json")
    assert done.code == 0
    document = done.document
    assert document["schema_version"] == 1
    assert (document["n_leak_rows"], document["n_leaked_items"], document["n_clean_items"]) == (1, 1, 1)
    (pair,) = document["leaks"]
    assert (pair["row"], pair["item"], pair["reason"]) == ("train.jsonl:2", "eval.jsonl:2", "exact")
    assert pair["coverage"] == 1.0
    assert pair["row_text"] == QUESTION.upper()
    assert document["train"]["n_records"] == document["against"][0]["n_items"] == 2
    assert document["near"] == []
    assert document["out"] is None


def test_people_see_reason_and_both_texts(call: Any, files: tuple[str, str]) -> None:
    done = call(files[0], "--against", files[1])
    assert "leak: train.jsonl:2 <- eval.jsonl:2: whole question" in done.out
    assert QUESTION.upper() in done.out
    assert QUESTION in done.out
    assert "1 of 2 rows leak 1 of 2 items" in done.out


def test_leaks_fail_on_request_only(call: Any, files: tuple[str, str]) -> None:
    assert call(files[0], "--against", files[1], "--fail-on-leak").code == 9
    assert call(files[0], "--against", files[1]).code == 0
    assert call(files[1], "--against", files[0], "--fail-on-leak").code == 9
    write_lines(Path("clean.jsonl"), [{"prompt": OTHER, "completion": "x"}])
    assert call("clean.jsonl", "--against", files[1], "--fail-on-leak").code == 0


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_out_is_the_file_without_its_leaks(call: Any, files: tuple[str, str], suffix: str) -> None:
    out = f"clean.{suffix}"
    done = call(files[0], "--against", files[1], "--out", out, "--json")
    assert done.document["out"] == {"file": out, "n_records": 1}
    if suffix == "csv":
        with Path(out).open(newline="") as stream:
            assert list(csv.DictReader(stream)) == [{"prompt": OTHER, "completion": "ox", "id": "1"}]
    else:
        text = Path(out).read_text()
        rows = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.splitlines()]
        assert rows == [{"prompt": OTHER, "completion": "ox", "id": 1}]
    assert call(out, "--against", files[1], "--fail-on-leak").code == 0


def test_preference_pairs_and_plain_text_are_checked_too(call: Any, files: tuple[str, str]) -> None:
    write_lines(
        Path("pairs.jsonl"),
        [{"prompt": OTHER, "chosen": "a", "rejected": f"Rather: {QUESTION}"}, {"prompt": "b", "chosen": "c"}],
    )
    write_lines(Path("plain.jsonl"), [{"text": f"{OTHER} {QUESTION}"}])
    assert [
        pair["row"] for pair in call("pairs.jsonl", "--against", files[1], "--json").document["leaks"]
    ] == ["pairs.jsonl:1"]
    assert call("plain.jsonl", "--against", files[1], "--json").document["n_leak_rows"] == 1


def test_columns_and_several_files_and_csv(call: Any, files: tuple[str, str]) -> None:
    Path("odd.csv").write_text(f'frage,klasse\n"{QUESTION}",46\n"{OTHER}",x\n')
    done = call(
        files[0], "--against", "odd.csv", "--eval-columns", "prompt=frage,completion=klasse", "--json"
    )
    assert {(pair["row"], pair["item"]) for pair in done.document["leaks"]} == {
        ("train.jsonl:1", "odd.csv:3"),
        ("train.jsonl:2", "odd.csv:2"),
    }
    assert done.document["leaks"][1]["answer_attached"]
    one = call(
        "odd.csv", "--columns", "prompt=frage,completion=klasse", "--against", files[1], files[0], "--json"
    )
    assert {pair["item"] for pair in one.document["leaks"]} == {
        "eval.jsonl:2",
        "train.jsonl:1",
        "train.jsonl:2",
    }


def test_a_benchmark_by_its_name(call: Any, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("ff/benchmarks/gsm8k")
    folder.mkdir(parents=True)
    write_lines(folder / "test.jsonl", [{"question": QUESTION, "answer": "#### 46"}])
    monkeypatch.setenv("FT_FILE_PATH", str(Path("ff").resolve()))
    assert call(files[0], "--against", "gsm8k", "--json").document["n_leak_rows"] == 1
    absent = call(files[0], "--against", "aime25", "gsm9k", "heldout", "gone.jsonl")
    assert absent.code == 2
    assert "put the file at" in absent.err
    assert "did you mean gsm8k" in absent.err
    assert absent.err.count("\n  - ") == 4


@pytest.fixture
def benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of benchmarks in the forms in which they are published: zip, gzip, csv."""
    folder = tmp_path / "ff" / "benchmarks"
    for name in ("mmlu", "humaneval", "gpqa"):
        (folder / name).mkdir(parents=True)
    with zipfile.ZipFile(folder / "mmlu" / "mmlu.zip", "w") as archive:
        archive.writestr("data/test/baking_test.csv", f'"{QUESTION}",50,46,40,96,B\n')
    problem = {
        "task_id": "T/0", "prompt": f'def rolls():\n    """{QUESTION}"""\n', "entry_point": "rolls",
        "canonical_solution": "    return 46\n", "test": "def check(candidate): ...\n",
    }  # fmt: skip
    (folder / "humaneval" / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(problem).encode()))
    (folder / "gpqa" / "gpqa_diamond.csv").write_text(
        "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
        f'"{OTHER}",ox,cat,dog,hen\n'
    )
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path / "ff"))
    return folder


def test_benchmarks_are_read_as_they_are_scored(call: Any, files: tuple[str, str], benchmarks: Path) -> None:
    done = call(files[0], "--against", "mmlu", "human_eval", "GPQA_diamond", "--json")
    assert done.code == 0, done.err
    found = {(pair["row"], pair["item"].split()[0]) for pair in done.document["leaks"]}
    assert found == {("train.jsonl:2", "mmlu"), ("train.jsonl:2", "humaneval"), ("train.jsonl:1", "gpqa")}
    assert [each["benchmark"] for each in done.document["against"]] == ["mmlu", "humaneval", "gpqa"]
    assert [each["n_items"] for each in done.document["against"]] == [1, 1, 1]
    assert all(len(each["sha256"]) == 64 for each in done.document["against"])
    (pair,) = [each for each in done.document["leaks"] if each["item"].startswith("mmlu")]
    assert pair["answer_attached"]  # 46, not the letter B


def test_a_folder_of_csv_files_is_a_benchmark_too(
    call: Any, files: tuple[str, str], benchmarks: Path
) -> None:
    (benchmarks / "mmlu" / "mmlu.zip").unlink()
    (benchmarks / "mmlu" / "test").mkdir()
    (benchmarks / "mmlu" / "test" / "baking_test.csv").write_text(f'"{QUESTION}",50,46,40,96,B\n')
    assert call(files[0], "--against", "mmlu", "--json").document["n_leak_rows"] == 1


def test_packed_files_on_both_sides(call: Any, files: tuple[str, str]) -> None:
    for name in files:
        Path(f"{name}.gz").write_bytes(gzip.compress(Path(name).read_bytes()))
    done = call(f"{files[0]}.gz", "--against", f"{files[1]}.gz", "--out", "clean.jsonl", "--json")
    assert [(pair["row"], pair["item"]) for pair in done.document["leaks"]] == [
        ("train.jsonl.gz:2", "eval.jsonl.gz:2")
    ]
    assert json.loads(Path("clean.jsonl").read_text())["completion"] == "ox"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("absent.jsonl", "--against", "eval.jsonl"), "'absent.jsonl' is not a file"),
        (("train.jsonl", "--against", "absent.jsonl"), "'absent.jsonl' is not a file"),
        (("train.jsonl",), "--against"),
        (("notes.txt", "--against", "eval.jsonl"), "not a data file"),
        (("broken.jsonl", "--against", "eval.jsonl"), "broken.jsonl, line 2"),
        (("bomb.jsonl.gz", "--against", "eval.jsonl"), "bomb.jsonl.gz unpacks to more than"),
        (("train.jsonl", "--against", "cut.csv.gz"), "cut.csv.gz is cut off"),
        (("train.jsonl", "--against", "train.parquet.gz"), "is not a data file"),
        (("train.jsonl", "--against", "numbers.jsonl"), "holds no questions"),
        (("train.jsonl", "--against", "eval.jsonl", "--out", "train.jsonl"), "one of the files to read"),
        (("train.jsonl", "--against", "eval.jsonl", "--out", "clean.txt"), "no known ending"),
        (("train.jsonl", "--against", "eval.jsonl", "--columns", "prompt"), "field=column"),
        (("train.jsonl", "--against", "eval.jsonl", "--eval-columns", "prompt=nope"), "no column 'nope'"),
        (("train.jsonl", "--against", "eval.jsonl", "--out", "notes.txt/clean.jsonl"), "cannot be written"),
    ],
)
def test_bad_input_ends_with_one_message(
    call: Any, files: tuple[str, str], argv: tuple[str, ...], words: str
) -> None:
    Path("notes.txt").write_text("hello")
    Path("broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    write_lines(Path("numbers.jsonl"), [{"n": 1, "flags": [True]}])
    Path("bomb.jsonl.gz").write_bytes(gzip.compress(b" " * (17 << 20)))
    Path("cut.csv.gz").write_bytes(gzip.compress(b"question\nIs it?\n")[:-4])
    Path("train.parquet.gz").write_bytes(gzip.compress(b"x"))
    before = Path(files[0]).read_bytes()
    done = call(*argv)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert Path(files[0]).read_bytes() == before
    assert not Path("clean.jsonl").exists()
