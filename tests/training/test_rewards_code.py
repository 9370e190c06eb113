"""The `code` reward on real programs: what passes, what is hostile, and what a row may hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.training.rewards.code_reward import MAX_TESTS
from rdagent_ft.training.rewards.code_reward import tests_of as read_tests
from rdagent_ft.training.rewards.load import make_rewards
from rdagent_ft.training.rewards.reward import RewardError

TESTS = ["assert double(2) == 4", "assert double(-1) == -2", "assert double('a') == 'aa'"]
GOOD = "def double(x):\n    return x * 2\n"
HOSTILE = {
    "loops": "while True: pass",
    "loops_in_the_call": "def double(x):\n    while True: pass",
    "sleeps": "import time\ntime.sleep(99)",
    "forks": "import os\nwhile True:\n    os.fork()",
    "starts_a_program": "import subprocess\nsubprocess.run(['true'])",
    "opens_a_socket": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "writes_a_file": "open('{mark}', 'w').write('x')",
    "prints_much": "while True: print('x' * 9999)",
    "eats_memory": "x = bytearray(8 << 30)",
    "leaves_with_0": "import os\nos._exit(0)",
    "exits": "raise SystemExit(0)",
    "kills_its_parent": "import os\nos.kill(os.getppid(), 9)",
    "recurses": "def double(x):\n    return double(x)",
    "does_not_compile": "def double(x:",
    "nests": "x = " + "(" * 5000,
    "has_a_zero": "x = '\x00'",
    "has_a_surrogate": "x = '\ud800'\ndef double(x): return 0",
    "is_prose": "I would multiply by two.",
    "is_empty": "",
}


def reward(timeout_s: float = 20.0) -> Any:
    (found,) = make_rewards([{"kind": "code", "timeout_s": timeout_s}])
    return found


def fenced(source: str) -> str:
    return f"Here it is:\n```python\n{source}\n```\nDone."


def test_the_score_is_the_share_of_passed_tests() -> None:
    completions = [
        fenced(GOOD),
        GOOD,
        [
            {
                "role": "assistant",
                "content": f"<think>{fenced('def double(x): return 0')}</think>{fenced(GOOD)}",
            }
        ],
        fenced("def double(x):\n    return abs(x) * 2\n"),
        fenced("def triple(x):\n    return x * 3\n"),
        "<think>" + fenced(GOOD),
    ]
    found = reward()(prompts=["p"] * 6, completions=completions, tests=[TESTS] * 6, gold=[GOOD] * 6)
    assert found == [1.0, 1.0, 1.0, pytest.approx(1 / 3), 0.0, 0.0]


def test_tests_may_be_one_text_define_helpers_and_name_no_function() -> None:
    tests = [
        "from math import isclose\ndef near(a, b):\n    return isclose(a, b)\nassert near(double(0.1), 0.2)",
        "import unittest\nclass Case(unittest.TestCase):\n    def test(self):\n"
        "        self.assertEqual(double(2), 4)\nCase().test()",
        "assert VALUE == 4",
        "from solution import double\nassert double(3) == 6",
    ]
    source = GOOD + "VALUE = double(2)\n"
    found = reward()(prompts=["p"] * 4, completions=[fenced(source)] * 4, tests=tests)
    assert found == [1.0] * 4


def test_rows_without_tests_are_skipped() -> None:
    assert reward()(completions=[GOOD] * 3, tests=[None, "", []]) == [None] * 3
    assert reward()(completions=[GOOD]) == [None]


def test_a_hostile_program_scores_nothing_and_harms_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    sources = [source.replace("{mark}", str(mark)) for source in HOSTILE.values()]
    completions = [text for source in sources for text in (fenced(source), fenced(GOOD))]
    tests = ["assert double(2) == 4"] * len(completions)
    started = time.monotonic()
    found = reward(timeout_s=5.0)(prompts=["p"] * len(tests), completions=completions, tests=tests)
    scores = dict(zip(HOSTILE, found[::2], strict=True))
    assert scores == dict.fromkeys(HOSTILE, 0.0)
    assert found[1::2] == [1.0] * len(HOSTILE)
    assert not mark.exists()
    assert time.monotonic() - started < 180


def test_after_a_timeout_the_other_tests_are_not_run() -> None:
    started = time.monotonic()
    hangs = fenced("def double(x):\n    while True: pass")
    assert reward(timeout_s=2.0)(completions=[hangs], tests=[["assert double(2) == 4"] * 50]) == [0.0]
    assert time.monotonic() - started < 60


def test_when_the_walls_cannot_be_put_up_the_reward_does_not_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdagent_ft.execution.contained.filter_bytes", lambda: b"no filter at all")
    assert reward()(completions=[fenced(GOOD)], tests=[TESTS]) == [None]


@pytest.mark.parametrize("tests", [7, {"a": "b"}, [1], ["assert True"] * (MAX_TESTS + 1)])
def test_tests_of_another_form_are_an_error_of_the_data(tests: Any) -> None:
    with pytest.raises(RewardError, match="tests"):
        read_tests(tests)
