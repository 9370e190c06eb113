"""Preference data: every form that is read, what is dropped and warned of, and what trainers get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.data.preference_write import write_trl_kto, write_trl_pairs, write_trl_prompts
from rdagent_ft.data.preferences import PreferenceReport, PreferenceRow, make_preference, read_preferences
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import Message, make_row
from rdagent_ft.errors import DataError

USER = {"role": "user", "content": "q"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(
    tmp_path: Path, rows: list[dict[str, Any]], columns: dict[str, str] | None = None
) -> tuple[list[PreferenceRow], PreferenceReport]:
    path = write(tmp_path / "rows.jsonl", rows)
    return read_preferences(resolve_dataset(str(path), tmp_path), columns)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def turn(text: str, role: str = "assistant") -> dict[str, str]:
    return {"role": role, "content": text}


PAIRS: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "question": {"question": "q", "chosen": "good", "rejected": "bad"},
    "turn lists": {"prompt": [USER], "chosen": [turn("good")], "rejected": [turn("bad")]},
    "implicit prompt": {"chosen": [USER, turn("good")], "rejected": [USER, turn("bad")]},
    "prompt said twice": {"prompt": "q", "chosen": [USER, turn("good")], "rejected": [USER, turn("bad")]},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "two outputs": {"input": "q", "output_1": "bad", "output_2": "good", "label": 2},
    "two outputs, first": {"input": "q", "output_1": "good", "output_2": "bad", "label": "1"},
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_form_of_a_pair_gives_the_same_row(tmp_path: Path, name: str) -> None:
    (row,), report = read(tmp_path, [PAIRS[name]])
    assert row == make_preference((Message(role="user", content="q"),), "good", "bad")
    assert (report.n_rows, report.n_pairs, report.dropped) == (1, 1, {})


@pytest.mark.parametrize(
    "fields",
    [{"prompt": "q", "completion": "a"}, {"messages": [USER, turn("a")]}, {"question": "q", "answer": "a"}],
)
def test_labelled_answers(tmp_path: Path, fields: dict[str, Any]) -> None:
    rows, report = read(tmp_path, [{**fields, "label": True}, {**fields, "label": False}])
    assert [(row.chosen, row.rejected) for row in rows] == [("a", None), (None, "a")]
    assert (report.format, report.n_good, report.n_bad, report.n_contradicting) == ("kto", 1, 1, 1)


def test_labels_of_csv_need_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion,ok\nq,a,True\nq2,b,False\nq3,c,1\n")
    rows, _ = read_preferences(resolve_dataset(str(tmp_path / "rows.csv"), tmp_path), {"label": "ok"})
    assert [(row.chosen, row.rejected) for row in rows] == [("a", None), (None, "b"), ("c", None)]


def test_what_cannot_teach_is_dropped_with_its_reason(tmp_path: Path) -> None:
    good = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    other = [{**USER, "content": "other"}, turn("bad")]
    bad = [
        {**good, "rejected": "good"},
        {**good, "chosen": " "},
        {**good, "rejected": None},
        {"prompt": "q", "chosen": [USER, turn("good")], "rejected": other},
        {"prompt": "else", "chosen": [USER, turn("good")], "rejected": [USER, turn("bad")]},
    ]
    _, report = read(tmp_path, [good] * 5 + bad)
    assert report.dropped == {
        "chosen and rejected are equal": 1,
        "empty chosen": 1,
        "missing rejected": 1,
        "the conversations of chosen and rejected differ before their last turn": 1,
        "the conversations do not continue the prompt": 1,
    }
    assert report.examples["chosen and rejected are equal"] == ("rows.jsonl:6",)
    assert report.n_repeated == 4
    with pytest.raises(DataError, match="3 of 4 records cannot be used"):
        read(tmp_path, [good, *bad[:3]])


def test_length_bias_near_equal_answers_and_contradictions_are_said(tmp_path: Path) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve"
    rows = [{"prompt": f"q{n}", "chosen": f"{long} {n}", "rejected": f"short {n}"} for n in range(30)]
    rows += [{"prompt": "near", "chosen": f"{long} !", "rejected": long.upper() + " !"}]
    rows += [{"prompt": "q0", "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}]
    _, report = read(tmp_path, rows)
    assert (report.n_near_equal, report.n_contradicting) == (1, 1)
    assert report.share_chosen_longer == pytest.approx(30 / 31, abs=1e-4)
    assert any("length bias: chosen is the longer answer in 97%" in note for note in report.notes)
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:30]]
    assert any("length bias: rejected" in note for note in read(tmp_path, turned)[1].notes)
    balanced = [row if n % 2 else turned[n] for n, row in enumerate(rows[:30])]
    assert read(tmp_path, balanced)[1].notes == ()


def test_unbalanced_labels_name_the_weights(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "completion": "a", "label": n < 4} for n in range(20)]
    assert any("desirable_weight x 4" in note for note in read(tmp_path, rows)[1].notes)
    only = [{**row, "label": True} for row in rows]
    assert any("all answers are good" in note for note in read(tmp_path, only)[1].notes)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "q", "completion": "a"}, "these are no preference rows"),
        ({"prompt": "q", "completion": "a", "label": "billing"}, "these are no preference rows"),
        ({"chosen": "a", "rejected": "b"}, "no column gives the prompt"),
        ({"input": "q", "output_1": "a", "output_2": "b"}, "no column for label"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, [record])


def test_columns_may_be_named(tmp_path: Path) -> None:
    record = {"ask": "q", "yes": "good", "no": "bad"}
    columns = {"prompt": "ask", "chosen": "yes", "rejected": "no"}
    (row,), report = read(tmp_path, [record], columns)
    assert (row.chosen, row.rejected, report.mapping) == ("good", "bad", columns)
    with pytest.raises(DataError) as caught:
        read(tmp_path, [record], {**columns, "chosen": "yess", "what": "no"})
    assert "did you mean 'yes'?" in caught.value.render()
    assert [problem.key for problem in caught.value.problems] == ["--columns chosen", "--columns what"]


def test_trainers_get_pairs_and_labels_rendered_as_for_sft(tmp_path: Path) -> None:
    prompt = (Message(role="system", content="s"), Message(role="user", content="q"))
    rows = [make_preference(prompt, "good", "bad")]
    write_trl_pairs(tmp_path / "a.jsonl", rows, "plain")
    assert records(tmp_path / "a.jsonl") == [{"prompt": "s\n\nq\n", "chosen": "good", "rejected": "bad"}]
    write_trl_pairs(tmp_path / "b.jsonl", rows, "chat")
    shown = [turn("s", "system"), turn("q", "user")]
    assert records(tmp_path / "b.jsonl") == [
        {"prompt": shown, "chosen": [turn("good")], "rejected": [turn("bad")]}
    ]
    write_trl_kto(tmp_path / "c.jsonl", [*rows, make_preference(prompt, None, "worse")], "chat")
    assert records(tmp_path / "c.jsonl") == [
        {"prompt": shown, "completion": [turn("good")], "label": True},
        {"prompt": shown, "completion": [turn("bad")], "label": False},
        {"prompt": shown, "completion": [turn("worse")], "label": False},
    ]
    with pytest.raises(DataError, match="1 of 2 preference rows have one answer only"):
        write_trl_pairs(tmp_path / "d.jsonl", [*rows, make_preference(prompt, "a", None)], "chat")


def test_prompts_carry_the_columns_that_rewards_read(tmp_path: Path) -> None:
    turns = (Message(role="user", content="q"), Message(role="assistant", content="gold"))
    rows = [
        make_row(turns, meta={"tests": ["a"], "level": 1, "mixed": "x", "prompt": "hidden", "deep": [["a"]]}),
        make_row(turns, meta={"tests": [], "mixed": 2, "level": 1.5, "deep": ["a"]}),
    ]
    left_out = write_trl_prompts(tmp_path / "a.jsonl", rows, "plain")
    assert left_out == ("deep", "mixed", "prompt")
    assert records(tmp_path / "a.jsonl") == [
        {"prompt": "q\n", "gold": "gold", "level": 1, "tests": ["a"]},
        {"prompt": "q\n", "gold": "gold", "level": 1.5, "tests": []},
    ]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n_rows", "kind", "n_dropped"),
    [
        ("dpo_demo/dpo_en_demo.json", 300, "pairs", 0),
        ("dpo_demo/kto_en_demo.json", 300, "kto", 0),
        ("llmbar/Natural.json", 100, "judged", 0),
        ("llmbar/Adversarial_Neighbor.json", 134, "judged", 0),
        ("llmbar/processed_LLMEval2.json", 198, "judged", 2),
    ],
)
def test_real_preferences(shared_data: Path, name: str, n_rows: int, kind: str, n_dropped: int) -> None:
    rows, report = read_preferences(resolve_dataset(str(shared_data / name), shared_data))
    assert (len(rows), report.format, sum(report.dropped.values())) == (n_rows, kind, n_dropped)


@pytest.mark.real_data
def test_real_length_bias(shared_data: Path) -> None:
    path = shared_data / "llmbar" / "Adversarial_Neighbor.json"
    _, report = read_preferences(resolve_dataset(str(path), shared_data))
    stored = json.loads(path.read_text())
    longer = [
        len(row[f"output_{row['label']}"]) > len(row[f"output_{3 - row['label']}"])
        for row in stored
        if len(row["output_1"]) != len(row["output_2"])
    ]
    assert report.share_chosen_longer == pytest.approx(sum(longer) / len(longer), abs=1e-4)
    assert any("length bias: rejected" in note for note in report.notes)
