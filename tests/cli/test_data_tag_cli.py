"""`rdagent-ft data tag` as a person calls it: rows with tags, money, stops, refusals. The LLM is a real local
HTTP server."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Held, Reply

from rdagent_ft.cli.main import main
from rdagent_ft.data.mix import build_mix
from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.errors import RecipeError
from rdagent_ft.recipe.data_mix import DataMix

N = 12
ANSWER_USD = 0.003
"""100 tokens in, 20 out at the prices below."""


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
            main(["data", "tag", *argv])
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Called(code, shown.out, shown.err)

    return run


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """Twelve rows, one of them with numbers that a careless writer would change, and one without answer."""
    lines = [json.dumps({"question": f"what is {n} plus {n}?", "answer": str(2 * n)}) for n in range(N)]
    lines[7] = lines[7][:-1] + ', "weight": 1.50, "code": "007"}'
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, '{"question": "none", "answer": ""}']) + "\n")
    (tmp_path / "tags.yaml").write_text("grade: [easy, hard]\ntopic: [sums, other]\n")
    (tmp_path / "flat.txt").write_text("easy\nhard\n")
    return "rows.jsonl"


def number(body: dict[str, Any]) -> int:
    return int(body["messages"][1]["content"].split("what is ")[1].split(" ")[0])


def by_size(body: dict[str, Any]) -> Reply:
    """Label a question by its number, in the columns that the request's schema asks for."""
    grade = "hard" if number(body) > 9 else "easy"
    asked = body["response_format"]["json_schema"]["schema"]["properties"]
    known = {"grade": grade, "topic": "sums", "tag": grade, "source": grade}
    return Reply(json.dumps({name: known[name] for name in asked}))


def use(monkeypatch: pytest.MonkeyPatch, server: FakeOpenAI, **more: str) -> None:
    """Point the settings at the server; it is the planner's gateway, so its tokens have a price."""
    values = {
        "FT_TEACHER_MODEL": "tagger-x", "FT_LLM_API_BASE": server.base_url, "FT_LLM_PRICE_INPUT": "10",
        "FT_LLM_PRICE_OUTPUT": "100", "FT_LLM_MAX_WAIT": "1", **more,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(by_size) as running:
        use(monkeypatch, running)
        yield running


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mixed(name: str, tmp_path: Path, **mix: Any) -> list[str]:
    """Return the answers that a recipe's data mix keeps of a written file."""
    found, _ = read_rows(resolve_dataset(str(tmp_path / name), tmp_path))
    kept = build_mix(found, DataMix.model_validate(mix), clusters=lambda _: {}, n_tokens=lambda _: {})
    return sorted((row.completion for row in kept.rows), key=int)


def test_tags_land_in_rows_and_a_mix_selects_by_them(
    call: Any, rows: str, server: FakeOpenAI, tmp_path: Path
) -> None:
    done = call(rows, "--taxonomy", "tags.yaml", "--out", "tagged.jsonl", "--json")
    assert done.code == 0, done.err
    assert done.document["counts"] == {"grade": {"easy": 10, "hard": 2}, "topic": {"sums": 12, "other": 0}}
    assert (done.document["n_written"], done.document["n_tagged"]) == (N + 1, N)
    assert done.document["untagged"] == {"empty completion": 1}
    assert done.document["usd"] == pytest.approx(N * ANSWER_USD)
    before = (tmp_path / rows).read_text().splitlines()
    after = (tmp_path / "tagged.jsonl").read_text().splitlines()
    assert after[7] == before[7][:-1] + ', "grade": "easy", "topic": "sums"}'
    assert after[N] == before[N][:-1] + ', "grade": null, "topic": null}'
    assert [line.partition(', "grade"')[0] + "}" for line in after] == before
    assert "asking tagger-x" in done.err
    hard = {"field": "meta.grade", "value": "hard"}
    assert mixed("tagged.jsonl", tmp_path, where=[hard]) == ["20", "22"]
    with pytest.raises(RecipeError, match="unknown data source or column"):
        mixed(rows, tmp_path, where=[hard])
    assert call(rows, "--taxonomy", "tags.yaml", "--out", "people.jsonl").out.splitlines()[:3] == [
        "12 of 13 rows tagged by tagger-x: people.jsonl",
        "  grade: easy 10, hard 2",
        "  topic: sums 12, other 0",
    ]


def test_a_recipe_with_the_tag_validates(call: Any, rows: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    where = "where: [{field: meta.grade, value: hard}]\n  source_weights: {hard: 2}"
    recipe.write_text(f"data:\n  {where}\nstages:\n  - kind: sft\n")
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(recipe)])
    assert ended.value.code == 0


def test_a_column_called_source_is_what_weights_take(
    call: Any, rows: str, server: FakeOpenAI, tmp_path: Path
) -> None:
    argv = (rows, "--taxonomy", "flat.txt", "--column", "source", "--out", "tagged.jsonl")
    assert call(*argv).code == 0
    answers = mixed("tagged.jsonl", tmp_path, source_weights={"hard": 2})
    assert (answers.count("22"), answers.count("8"), len(answers)) == (2, 1, N + 2)


def test_a_second_run_pays_nothing(call: Any, rows: str, server: FakeOpenAI, tmp_path: Path) -> None:
    argv = (rows, "--taxonomy", "tags.yaml", "--json", "--out")
    first = call(*argv, "a.jsonl", "--limit", "5")
    assert (first.document["n_written"], server.n_requests) == (5, 5)
    assert first.document["left_out"] == {"over the limit of 5": N - 5, "empty completion": 1}
    assert call(*argv, "b.jsonl", "--limit", "8").document["n_cached"] == 5
    assert (tmp_path / "a.jsonl").read_text().splitlines()[0] in (tmp_path / "b.jsonl").read_text()
    assert call(*argv, "c.jsonl").document["n_cached"] == 8
    again = call(*argv, "d.jsonl")
    assert server.n_requests == N
    assert (again.document["n_cached"], again.document["usd"]) == (N, 0)
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "d.jsonl").read_bytes()
    others = call(*argv, "e.jsonl", "--limit", "5", "--seed", "7")
    assert others.document["out"]["sha256"] != first.document["out"]["sha256"]


def test_an_unusable_reply_leaves_the_row_untagged_and_is_told(
    call: Any, rows: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def step(body: dict[str, Any]) -> Reply:
        return Reply("I would say hard") if number(body) == 4 else by_size(body)

    with FakeOpenAI(step) as server:
        use(monkeypatch, server)
        done = call(rows, "--taxonomy", "flat.txt", "--out", "tagged.jsonl")
        assert server.n_requests == N + 1, "asked back once"
        assert call(rows, "--taxonomy", "flat.txt", "--out", "again.jsonl").code == 0
        assert server.n_requests == N + 1, "a lost reply is paid once too"
    assert done.code == 0
    assert "11 of 13 rows tagged" in done.out
    assert "without a tag 1: no label (malformed) (rows.jsonl:5)" in done.out
    assert [record["tag"] for record in records(tmp_path / "tagged.jsonl")][3:6] == ["easy", None, "easy"]
    kept = mixed("tagged.jsonl", tmp_path, where=[{"field": "meta.tag", "op": "ne", "value": "hard"}])
    assert "8" not in kept
    assert len(kept) == 9


def test_a_teacher_that_never_fits_writes_no_file(
    call: Any, rows: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FakeOpenAI(Reply("no")) as server:
        use(monkeypatch, server)
        done = call(rows, "--taxonomy", "flat.txt", "--out", "tagged.jsonl")
    assert (done.code, done.out) == (2, "")
    assert "tagger-x gave no usable label" in done.err
    assert not (tmp_path / "tagged.jsonl").exists()


def test_a_spent_budget_keeps_what_was_paid(call: Any, rows: str, server: FakeOpenAI, tmp_path: Path) -> None:
    argv = (rows, "--taxonomy", "tags.yaml", "--out", "tagged.jsonl", "--json")
    stopped = call(*argv, "--max-cost", "0.075")
    n_paid = server.n_requests
    assert (stopped.code, stopped.out) == (5, "")
    assert 0 < n_paid < N
    assert f"{n_paid} labels are kept; the same command asks for {N - n_paid} more" in stopped.err
    assert not (tmp_path / "tagged.jsonl").exists()
    done = call(*argv, "--max-cost", "1")
    assert (done.code, done.document["n_cached"], server.n_requests) == (0, n_paid, N)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_keeps_what_was_paid(
    call: Any, rows: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    release, is_waiting = threading.Event(), threading.Event()

    def step(body: dict[str, Any]) -> Reply | Held:
        if server.n_requests < 6:
            return by_size(body)
        is_waiting.set()
        return Held(release, by_size(body))

    argv = (rows, "--taxonomy", "tags.yaml", "--out", "tagged.jsonl")
    with FakeOpenAI(step) as server:
        use(monkeypatch, server)
        command = [sys.executable, "-m", "rdagent_ft.cli.main", "data", "tag", *argv]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
            assert process.stderr is not None
            assert is_waiting.wait(120)
            process.send_signal(getattr(signal, name))
            said = [next(line for line in process.stderr if "in flight" in line)]
            release.set()
            said += list(process.stderr)
        n_paid = server.n_requests
        assert process.returncode == 128 + getattr(signal, name)
        assert n_paid < N
        assert f"{n_paid} labels are kept" in "".join(said)
        assert "Traceback" not in "".join(said)
        assert not (tmp_path / "tagged.jsonl").exists()
        done = call(*argv, "--json")
        assert (done.document["n_cached"], server.n_requests) == (n_paid, N)


def test_csv_stays_csv(call: Any, rows: str, server: FakeOpenAI, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        '"ask";answer\n"what is 3 plus 3?\nnow";6\n"what is 11 plus 11?";022\n;1\n'
    )
    argv = ("rows.csv", "--columns", "prompt=ask,completion=answer", "--taxonomy", "flat.txt", "--out")
    assert call(*argv, "tagged.csv").code == 0
    with (tmp_path / "tagged.csv").open(newline="") as stream:
        assert list(csv.reader(stream, delimiter=";")) == [
            ["ask", "answer", "tag"], ["what is 3 plus 3?\nnow", "6", "easy"],
            ["what is 11 plus 11?", "022", "hard"], ["", "1", "NaN"],
        ]  # fmt: skip
    refused = call(*argv, "tagged.jsonl")
    assert (refused.code, "would change the format" in refused.err) == (2, True)


def test_nothing_is_sent_without_model_and_key_and_all_is_told_at_once(
    call: Any, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call(rows, "--taxonomy", "flat.txt", "--out", "tagged.jsonl")
    assert (done.code, done.out) == (3, "")
    assert "FT_TEACHER_MODEL" in done.err
    assert "FT_TEACHER_API_KEY" in done.err
    monkeypatch.setenv("FT_TEACHER_MODEL", "nobody-knows-its-price")
    done = call(rows, "--taxonomy", "flat.txt", "--out", "tagged.jsonl")
    assert (done.code, done.err.count("\n  - ")) == (3, 2)
    assert "no key for the teacher" in done.err
    assert "the price of" in done.err
    monkeypatch.delenv("FT_TEACHER_MODEL")
    (tmp_path / "tagged.jsonl").write_text("mine")
    (tmp_path / "bad.json").write_text('{"grade": ["easy"]}')
    done = call("row.jsonl", "--taxonomy", "bad.json", "--out", "tagged.jsonl", "--columns", "prompt")
    assert (done.code, done.out, done.err.count("\n  - ")) == (2, "", 6)
    for words in ("'row.jsonl' is not", "did you mean rows.jsonl", "2 to 50 different", "exists already",
                  "field=column", "FT_TEACHER_MODEL", "FT_TEACHER_API_KEY"):  # fmt: skip
        assert words in done.err
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b", "tag": 1}\n')
    done = call(rows, "--taxonomy", "flat.txt", "--out", "new.jsonl")
    assert (done.code, "has the column 'tag' already" in done.err) == (2, True)
    assert (tmp_path / "tagged.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("absent.jsonl",), "'absent.jsonl' is not a file"),
        (("broken.jsonl",), "broken.jsonl, line 2"),
        (("pairs.jsonl",), "preference data"),
        (("rows.jsonl", "--taxonomy", "absent.yaml"), "cannot be read: No such file"),
        (("rows.jsonl", "--taxonomy", "rows.jsonl"), "no known ending"),
        (("rows.jsonl", "--taxonomy", "nested.yaml"), "is no taxonomy"),
        (("rows.jsonl", "--taxonomy", "twice.yaml"), "'grade' twice"),
        (("rows.jsonl", "--taxonomy", "torn.yaml"), "torn.yaml, line"),
        (("rows.jsonl", "--taxonomy", "torn.json"), "torn.json, line 1: malformed JSON"),
        (("rows.jsonl", "--taxonomy", "tags.yaml", "--column", "x"), "names its columns: grade, topic"),
        (("rows.jsonl", "--column", "answer"), "has the column 'answer' already"),
        (("rows.jsonl", "--column", "system"), "part of the conversation"),
        (("rows.jsonl", "--column", "a b"), "a name is a letter"),
        (("rows.jsonl", "--columns", "prompt=no"), "no such column"),
        (("rows.jsonl", "--out", "rows.jsonl"), "exists already"),
        (("rows.jsonl", "--out", "tagged.txt"), "no name of a data file"),
        (("rows.jsonl", "--out", "flat.txt/tagged.jsonl"), "is no folder of yours"),
        (("folder", "--out", "folder/tagged.jsonl"), "count twice"),
        (("folder", "--out", "tagged.jsonl"), "several formats"),
        (("rows.jsonl", "--limit", "0"), "--limit"),
    ],
)
def test_bad_input_ends_with_one_message(
    call: Any, rows: str, server: FakeOpenAI, tmp_path: Path, argv: tuple[str, ...], words: str
) -> None:
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    (tmp_path / "nested.yaml").write_text("- {a: [1]}\n- b\n")
    (tmp_path / "twice.yaml").write_text("grade: [a, b]\ngrade: [c, d]\n")
    (tmp_path / "torn.yaml").write_text("grade: [a, b\n")
    (tmp_path / "torn.json").write_text('["a", ')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").write_text((tmp_path / rows).read_text())
    (tmp_path / "folder" / "b.csv").write_text("question,answer\na,b\n")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    given = list(argv)
    given += ["--taxonomy", "flat.txt"] if "--taxonomy" not in argv else []
    given += ["--out", "new.jsonl"] if "--out" not in argv else []
    done = call(*given)
    assert (done.code, done.out, server.n_requests) == (2, "", 0)
    assert words in done.err
    assert done.err.count("error") <= 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("t.yaml", "[yes, no, null, 1.50]", ("yes", "no", "null", "1.50")),
        ("t.yml", "- 'a b'\n- c", ("a b", "c")),
        ("t.json", '\ufeff["a", true, 2]', ("a", "true", "2")),
        ("t.txt", " a b \n\nc\r\n", ("a b", "c")),
    ],
)
def test_tags_stay_as_they_are_spelled(tmp_path: Path, name: str, text: str, values: tuple[str, ...]) -> None:
    from rdagent_ft.data.taxonomy_file import read_taxonomy

    (tmp_path / name).write_text(text, encoding="utf-8")
    (tag,) = read_taxonomy(tmp_path / name).tags
    assert (tag.name, tag.values) == ("tag", values)


def test_many_aliases_of_one_list_are_refused_and_not_built(tmp_path: Path) -> None:
    from rdagent_ft.data.taxonomy_file import read_taxonomy
    from rdagent_ft.errors import UserError

    listed = ", ".join(f"v{n}" for n in range(4_000))
    (tmp_path / "t.yaml").write_text(f"a: &a [{listed}]\n" + "".join(f"b{n}: *a\n" for n in range(3_000)))
    with pytest.raises(UserError, match="the taxonomy needs"):
        read_taxonomy(tmp_path / "t.yaml")
