"""Children that answer lines: order, hangs, crashes, floods, leftovers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from line_jobs import __file__ as jobs_file

from rdagent_ft.errors import JobError
from rdagent_ft.execution.line_worker import LineChildren, LineReply, ask_all
from rdagent_ft.execution.processes import session_members

HERE = {"PYTHONPATH": f"{Path(jobs_file).parent}:{Path(jobs_file).parents[2]}"}


def ask(*wishes: str, limit_s: float = 2.0, n_workers: int = 1, **environment: str) -> list[LineReply]:
    requests = [{"do": wish, "n": number} for number, wish in enumerate(wishes)]
    return ask_all(
        "line_jobs", requests, limit_s=limit_s, n_workers=n_workers, environment=HERE | environment
    )


def test_replies_come_in_order_from_several_children() -> None:
    replies = ask(*["echo"] * 21, n_workers=3, limit_s=60)
    assert [reply.value for reply in replies] == [{"n": number} for number in range(21)]
    assert ask() == []


@pytest.mark.parametrize(
    ("wish", "outcome"),
    [
        ("sleep", "timeout"),
        ("spin", "timeout"),
        ("exit", "crashed"),
        ("memory", "crashed"),
        ("flood", "crashed"),
    ],
)
def test_a_bad_item_costs_itself_alone(wish: str, outcome: str) -> None:
    replies = ask("echo", wish, "echo", limit_s=3)
    assert [reply.outcome for reply in replies] == ["answered", outcome, "answered"]
    assert replies[2].value == {"n": 2}


def test_what_a_library_prints_is_no_answer() -> None:
    assert [reply.value for reply in ask("print", "echo", limit_s=60)] == [{"n": 0}, {"n": 1}]


def test_nothing_is_left_behind() -> None:
    (reply,) = ask("fork", limit_s=60)
    _wait_until_gone(reply.value["group"])


def test_keys_of_the_caller_do_not_reach_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (reply,) = ask("keys", limit_s=60)
    assert reply.value == {"n": []}


def test_a_child_that_does_not_start_is_named_with_its_last_words() -> None:
    with pytest.raises(JobError, match="no tables here"):
        ask("echo", REFUSE="1")


def test_children_that_stay_are_the_same_ones_until_one_is_lost() -> None:
    children = LineChildren("line_jobs", limit_s=60, n_workers=1, environment=HERE)
    groups = [children.ask([{"do": "group"}])[0].value["group"] for _ in range(2)]
    assert groups[0] == groups[1]
    assert [reply.outcome for reply in children.ask([{"do": "exit"}, {"do": "echo", "n": 1}])] == [
        "crashed",
        "answered",
    ]
    (after,) = children.ask([{"do": "group"}])
    assert after.value["group"] != groups[0]
    children.end()
    _wait_until_gone(after.value["group"])


def test_children_go_with_the_object_that_asked_them() -> None:
    children = LineChildren("line_jobs", limit_s=60, environment=HERE)
    group = children.ask([{"do": "group"}])[0].value["group"]
    assert session_members(group)
    del children
    _wait_until_gone(group)


def _wait_until_gone(group: int) -> None:
    deadline = time.monotonic() + 30
    while session_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)  # a killed process is gone a moment later
    assert not session_members(group)
