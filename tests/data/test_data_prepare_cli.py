"""`rdagent-ft data prepare`, `audit` and `split` as a person calls them: files, manifest, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.cli.main import main
from rdagent_ft.values import sha256_file

SCHEMA = {
    "type": "object",
    "required": ["route", "steps"],
    "additionalProperties": False,
    "properties": {
        "route": {"enum": ["math", "code"]},
        "steps": {"type": "array", "items": {"type": "string"}},
    },
}


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
        code = 0
        try:
            main(["data", *argv])
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Called(code, shown.out, shown.err)

    return run


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def plans(tmp_path: Path) -> str:
    """400 router rows with JSON plans, thoughts and a repeat."""
    rows: list[dict[str, Any]] = []
    for n in range(400):
        plan = {"route": "math" if n % 3 else "code", "steps": [f"step {n}"]}
        rows.append({"prompt": f"task {n}", "response": json.dumps(plan), "why": f"thought {n}", "id": n})
    return write(tmp_path / "plans.jsonl", rows)


def test_smoke_mode_writes_three_parts_and_a_manifest(call: Any, plans: str, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    argv = ("prepare", plans, "--limit", "200", "--seed", "42", "--schema", "schema.json", "--json")
    first = call(*argv, "--out", "a")
    assert first.code == 0
    parts = first.document["parts"]
    assert {name: part["n_rows"] for name, part in parts.items()} == {
        "train": 170, "validation": 20, "test": 10,
    }  # fmt: skip
    for part in parts.values():
        path = tmp_path / "a" / part["name"]
        assert (sha256_file(path), path.stat().st_size) == (part["sha256"], part["n_bytes"])
        assert len(records(path)) == part["n_rows"]
    assert json.loads((tmp_path / "a" / "manifest.json").read_text()) == first.document
    assert first.document["dropped"] == {"over the limit of 200": 200}
    assert str(tmp_path) not in first.out
    seen = [record["id"] for part in parts for record in records(tmp_path / "a" / f"{part}.jsonl")]
    assert len(set(seen)) == 200
    assert call(*argv, "--out", "b").document == first.document
    other = call(*argv, "--out", "c", "--seed", "7").document["parts"]
    assert other["train"]["sha256"] != parts["train"]["sha256"]


def test_the_result_is_a_dataset_of_its_own(call: Any, plans: str) -> None:
    assert call("prepare", plans, "--out", "out", "--format", "messages").code == 0
    found = call("audit", "out", "--json").document
    assert (found["n_rows"], found["format"]) == (340, "messages")
    assert any("left out as test or validation data" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("trl", {"prompt", "completion"}),
        ("alpaca", {"instruction", "input", "output"}),
        ("sharegpt", {"conversations"}),
        ("messages", {"messages"}),
        ("vertex", {"contents"}),
    ],
)
def test_formats_have_their_columns(call: Any, plans: str, tmp_path: Path, form: str, keys: set[str]) -> None:
    assert call("prepare", plans, "--out", "out", "--format", form).code == 0
    assert set(records(tmp_path / "out" / "test.jsonl")[0]) == {*keys, "why", "id"}


def test_think_blocks_are_wrapped_and_stripped(call: Any, plans: str, tmp_path: Path) -> None:
    assert call("prepare", plans, "--out", "a", "--think", "wrap", "--think-column", "why").code == 0
    record = records(tmp_path / "a" / "test.jsonl")[0]
    answer = record["completion"][0]["content"]
    assert answer.startswith(f"<think>\nthought {record['id']}\n</think>\n\n{{")
    call("prepare", "a/train.jsonl", "--out", "b", "--think", "strip")
    assert json.loads(records(tmp_path / "b" / "train.jsonl")[0]["completion"][0]["content"])
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    assert call("prepare", "a/train.jsonl", "--out", "c", "--schema", "schema.json").code == 0


def test_answers_that_break_the_schema_stop_or_are_left_out(call: Any, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    rows = [{"prompt": f"p{n}", "completion": json.dumps({"route": "math", "steps": []})} for n in range(60)]
    rows[3]["completion"] = '{"route": "mail", "steps": []}'
    rows[4]["completion"] = "I would use math"
    name = write(tmp_path / "rows.jsonl", rows)
    found = call("prepare", name, "--out", "out", "--schema", "schema.json")
    assert (found.code, found.out) == (2, "")
    assert "2 of 60 answers do not fit the schema" in found.err
    assert "`row 4`: $.route: 'mail' is not one of ['math', 'code'] [data.schema]" in found.err
    assert not (tmp_path / "out").exists()
    kept = call("prepare", name, "--out", "out", "--schema", "schema.json", "--drop-invalid", "--json")
    assert kept.document["dropped"] == {"the answer does not fit the schema": 2}


def test_near_duplicates_stay_together_and_repeats_train_only(call: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"how many boxes fit into van number {n // 2}", "completion": f"answer {n % 2} " * 9}
            for n in range(200)]  # fmt: skip
    name = write(tmp_path / "rows.jsonl", rows + rows[:40])
    document = call("prepare", name, "--out", "out", "--split", "0.6/0.2/0.2", "--json").document
    place: dict[str, set[str]] = {}
    for part in document["parts"]:
        found = records(tmp_path / "out" / f"{part}.jsonl")
        for record in found:
            place.setdefault(record["prompt"][0]["content"], set()).add(part)
        if part != "train":
            assert len({json.dumps(record) for record in found}) == len(found)
    assert all(len(parts) == 1 for parts in place.values())
    n_written = sum(part["n_rows"] for part in document["parts"].values())
    assert n_written + document["dropped"].get("repeats a row of validation or test", 0) == 240


def test_preferences_are_prepared_as_pairs_or_labels(call: Any, tmp_path: Path) -> None:
    pairs = write(tmp_path / "p.jsonl", [
        {"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(50)
    ])  # fmt: skip
    found = call("prepare", pairs, "--out", "a", "--split", "0.9/0.1", "--json").document
    assert (found["format"], found["read_as"], list(found["parts"])) == (
        "pairs",
        "pairs",
        ["train", "validation"],
    )
    assert set(records(tmp_path / "a" / "train.jsonl")[0]) == {"prompt", "chosen", "rejected"}
    labels = write(tmp_path / "k.jsonl", [
        {"prompt": f"q{n}", "completion": f"a {n}", "label": n % 2 == 0} for n in range(60)
    ])  # fmt: skip
    assert call("prepare", labels, "--out", "b", "--json").document["format"] == "kto"
    # As ordinary rows only the good answers are left.
    document = call("prepare", labels, "--out", "c", "--format", "messages", "--json").document
    assert document["dropped"] == {"marked as a bad answer (label is false)": 30}
    refused = call("prepare", pairs, "--out", "d", "--format", "alpaca")
    assert (refused.code, "holds preferences" in refused.err) == (2, True)
    assert call("prepare", pairs, "--out", "e", "--columns", "prompt=prompt,completion=chosen").code == 0


def test_split_keeps_records_as_they_are(call: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"text {n}", "category": "ab"[n % 2], "other": None, "deep": {"n": n}} for n in range(100)
    ]
    name = write(tmp_path / "rows.jsonl", [*rows, {"text": "no answer", "category": None}])
    found = call("split", name, "--out", "out", "--columns", "prompt=text,completion=category", "--json")
    assert found.document["dropped"] == {"missing completion": 1}
    written = {part: records(tmp_path / "out" / f"{part}.jsonl") for part in ("train", "validation")}
    assert {part: len(each) for part, each in written.items()} == {"train": 90, "validation": 10}
    assert sorted((*written["train"], *written["validation"]), key=lambda row: row["deep"]["n"]) == rows
    assert [row["category"] for row in written["validation"]].count("a") == 5


def test_a_column_that_the_format_uses_itself_is_left_out_and_noted(call: Any, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}],
             "prompt": f"q{n}", "mixed": n if n % 2 else str(n), "level": n} for n in range(40)]  # fmt: skip
    name = write(tmp_path / "rows.jsonl", rows)
    found = call("prepare", name, "--out", "out", "--json").document
    assert "columns left out, which trl cannot carry: mixed, prompt" in found["notes"]
    assert set(records(tmp_path / "out" / "train.jsonl")[0]) == {"prompt", "completion", "level"}


def test_audit_prints_facts_and_json(call: Any, plans: str) -> None:
    found = call("audit", plans)
    assert found.code == 0
    assert "400 rows of 400 records, read as prompt_completion" in found.out
    assert "personal data: none" in found.out
    document = call("audit", plans, "--json").document
    assert (document["unit"], document["n_rows"], document["schema_version"]) == ("words", 400, 1)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("prepare", "none.jsonl", "--out", "o"), "is not a file"),
        (("prepare", "plans.jsonl", "--out", "o", "--format", "alpacca"), "did you mean 'alpaca'?"),
        (("prepare", "plans.jsonl", "--out", "o", "--think", "wrapp"), "did you mean 'wrap'?"),
        (("prepare", "plans.jsonl", "--out", "o", "--split", "0.5"), "add up to 1"),
        (("prepare", "plans.jsonl", "--out", "o", "--limit", "5"), "would be empty"),
        (("prepare", "plans.jsonl", "--out", "o", "--schema", "no.json"), "cannot be read"),
        (("prepare", "plans.jsonl", "--out", "o", "--format", "kto"), "one answer a row"),
        (("prepare", "plans.jsonl", "--out", "o", "--think-column", "why"), "needs --think wrap"),
        (("prepare", "plans.jsonl", "--out", "o", "--columns", "prompt=nope"), "no such column"),
        (("prepare", "plans.jsonl", "--out", "full"), "was not written by this program"),
        (("prepare", "plans.jsonl", "--out", "plans.jsonl"), "is not a folder"),
        (("split", "plans.jsonl", "--out", "."), "holds the input"),
        (("split", "bad.jsonl", "--out", "o"), "line 2"),
        (("audit", "bad.jsonl"), "line 2"),
        (("audit", "plans.jsonl", "--model", "full"), "has no tokenizer.json"),
    ],
)
def test_mistakes_are_one_message(
    call: Any, plans: str, tmp_path: Path, argv: tuple[str, ...], said: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    found = call(*argv)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "o").exists()


def test_an_earlier_result_is_replaced_whole(call: Any, plans: str, tmp_path: Path) -> None:
    call("prepare", plans, "--out", "out")
    call("prepare", plans, "--out", "out", "--split", "0.9/0.1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json", "train.jsonl", "validation.jsonl",
    ]  # fmt: skip
