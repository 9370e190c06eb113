"""Labels by a taxonomy: chosen by a teacher, kept, counted, and read by a data mix afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply
from teacher_world import teacher_settings

from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.select import select_rows
from rdagent_ft.data.tags import Taxonomy, parse_taxonomy
from rdagent_ft.engine.tagging import TagReport, tag_dataset
from rdagent_ft.errors import BudgetError, DataError, UserError
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.settings import Settings

TAXONOMY = parse_taxonomy({"grade": ["easy", "hard"], "topic": ["sums", "other"]})
N = 12


def dataset(folder: Path, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    records = [{"question": f"what is {n} plus {n}?", "answer": str(2 * n), "n": n, **more} for n in range(N)]
    records.append({"question": "empty", "answer": "", "n": N})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def number(body: dict[str, Any]) -> int:
    return int(body["messages"][1]["content"].split("what is ")[1].split(" ")[0])


def by_size(body: dict[str, Any]) -> Reply:
    return Reply(json.dumps({"grade": "hard" if number(body) > 9 else "easy", "topic": "sums"}))


def tag(root: Path, server: FakeOpenAI, taxonomy: Taxonomy = TAXONOMY, **more: Any) -> TagReport:
    limit = more.pop("limit", None)
    values = {"file_path": root, **teacher_settings(server), **more}
    source = resolve_dataset(str(dataset(root / "data")), root)
    notes: list[str] = []
    return tag_dataset(
        source, root / "tagged.jsonl", taxonomy, Settings.model_validate(values), notes.append, limit=limit
    )


def test_labels_become_columns_that_a_mix_selects_by(tmp_path: Path) -> None:
    with FakeOpenAI(by_size) as server:
        report = tag(tmp_path, server)
        assert server.n_requests == N
        assert {request.body["temperature"] for request in server.requests} == {0}
    assert report.counts == {"grade": {"easy": 10, "hard": 2}, "topic": {"sums": 12, "other": 0}}
    assert (report.n_records, report.n_written, report.n_tagged) == (N + 1, N + 1, N)
    assert report.untagged == {"empty completion": 1}
    assert report.left_out == {}
    assert report.usd == pytest.approx(N * 0.003)
    records = [json.loads(line) for line in (tmp_path / "tagged.jsonl").read_text().splitlines()]
    assert records[3] == {
        "question": "what is 3 plus 3?", "answer": "6", "n": 3, "grade": "easy", "topic": "sums",
    }  # fmt: skip
    rows, _ = read_rows(resolve_dataset(str(tmp_path / "tagged.jsonl"), tmp_path))
    mix = DataMix.model_validate({"where": [{"field": "meta.grade", "value": "hard"}]})
    assert [row.completion for row in select_rows(rows, mix).rows] == ["20", "22"]


def test_labels_are_paid_once(tmp_path: Path) -> None:
    with FakeOpenAI(by_size) as server:
        assert tag(tmp_path, server, limit=5).n_tagged == 5
        assert server.n_requests == 5
        first = (tmp_path / "tagged.jsonl").read_bytes()
        again = tag(tmp_path, server, limit=5)
        assert server.n_requests == 5
        assert (again.n_cached, again.usd) == (5, 0)
        assert (tmp_path / "tagged.jsonl").read_bytes() == first
        assert tag(tmp_path, server).n_cached == 5
        assert server.n_requests == N
        with pytest.raises(DataError, match="no usable label"):
            tag(tmp_path, server, parse_taxonomy({"grade": ["easy", "unclear"]}), limit=1)
        assert server.n_requests == N + 2, "another taxonomy is another question; asked back once"


def test_a_label_outside_the_taxonomy_is_no_label(tmp_path: Path) -> None:
    def step(body: dict[str, Any]) -> Reply:
        text = json.dumps(body["messages"][1]["content"])
        if "what is 4 " in text:
            return Reply('{"grade": "impossible", "topic": "sums"}')
        return by_size(body)

    with FakeOpenAI(step) as server:
        report = tag(tmp_path, server)
        assert server.n_requests == N + 1, "asked back once"
    assert report.n_tagged == N - 1
    assert report.untagged["no label (malformed)"] == 1
    assert report.places["no label (malformed)"] == ("rows.jsonl:5",)
    record = json.loads((tmp_path / "tagged.jsonl").read_text().splitlines()[4])
    assert (record["n"], record["grade"], record["topic"]) == (4, None, None)


def test_a_row_cannot_leave_its_marks(tmp_path: Path) -> None:
    def step(body: dict[str, Any]) -> Reply:
        system, user = (turn["content"] for turn in body["messages"][:2])
        head, _, rest = user.partition("<<row ")
        mark = rest.split(">>")[0]
        assert head.strip() == ""
        assert user.count(f"<<end of row {mark}>>") == 1
        assert "what is" not in system
        return by_size(body)

    with FakeOpenAI(step) as server:
        assert tag(tmp_path, server).n_tagged == N


def test_money_that_is_over_keeps_paid_labels(tmp_path: Path) -> None:
    with FakeOpenAI(by_size) as server:
        with pytest.raises(BudgetError):
            tag(tmp_path, server, max_cost=0.075)
        n_paid = server.n_requests
        assert 0 < n_paid < N
        assert not (tmp_path / "tagged.jsonl").exists()
        assert tag(tmp_path, server, max_cost=1.0).n_cached == n_paid
        assert server.n_requests == N


def test_a_column_is_not_overwritten(tmp_path: Path) -> None:
    with FakeOpenAI(by_size) as server:
        with pytest.raises(DataError, match="'n' already"):
            tag(tmp_path, server, parse_taxonomy({"n": ["odd", "even"]}))
        for name in ("system", "messages", "prompt"):
            other = parse_taxonomy({name: ["odd", "even"], "chosen": ["a", "b"], "rejected": ["a", "b"]})
            with pytest.raises(DataError, match="part of the conversation"):
                tag(tmp_path, server, other)
        assert server.n_requests == 0


@pytest.mark.parametrize(
    "values",
    [
        None, {}, [], {"grade": "easy"}, {"grade": ["easy"]}, {"grade": ["easy", "easy"]},
        {"a b": ["x", "y"]},
        {"grade": ["easy", " "]}, {1: ["x", "y"]}, {f"n{n}": ["x", "y"] for n in range(11)},
    ],
)  # fmt: skip
def test_what_is_no_taxonomy_is_refused(values: Any) -> None:
    with pytest.raises(UserError, match="taxonomy"):
        parse_taxonomy(values)
