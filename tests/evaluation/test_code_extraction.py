"""Code is found in whatever shape an answer has, and no answer breaks the search."""

from __future__ import annotations

import json
import random
import string

import pytest

from rdagent_ft.answers.code_extraction import (
    MAX_ANSWER_CHARS,
    MAX_BLOCKS,
    bare_program,
    body_of,
    fenced_blocks,
    readable_part,
)
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.code.programs import program_of
from rdagent_ft.execution.contained import Limits, run_program

HEAD = 'from math import floor\n\n\ndef low(x):\n    """ Return the part of x before its point. """\n'
GOLD = json.dumps(
    {
        "task_id": "T/0",
        "prompt": HEAD,
        "entry_point": "low",
        "test": "def check(candidate):\n    assert candidate(2.5) == 2\n    assert low(-0.5) == -1\n",
    }
)
MBPP = json.dumps({"task_id": 1, "tests": ["assert twice(2) == 4", "assert twice(0) == 0"], "setup": ""})
BODY = "    return floor(x)\n"
WHOLE = f"def low(x):\n{BODY}"
WORDS = [
    "```",
    "```python",
    "~~~",
    "def low(x):",
    "    return 1",
    "[DONE]",
    "</think>",
    "\n",
    "\t",
    "'''",
    "\\",
    "é",
]


def outcome(gold: str, prompt: str, prediction: str) -> str:
    return run_program(program_of(gold, prompt, prediction), Limits(wall_s=20.0)).outcome


@pytest.mark.parametrize(
    "answer",
    [
        BODY,
        BODY.lstrip(),  # its first indentation was lost
        f"{BODY}\n\ndef other():\n    return",  # went on, and was cut off
        f"{BODY}\nprint(low(3.5))\nassert False\n",
        f"{BODY}```\nThis rounds down.",
        f"{BODY}\n# Test\nraise ValueError\n",
        WHOLE,
        f"```python\n{HEAD}{BODY}```",
        "    n = 1\n\n    for _ in range(3):\n\n        n += 1\n    return floor(x)\n",
    ],
)
def test_a_continuation_of_the_function_passes(answer: str) -> None:
    assert outcome(GOLD, f"Complete:\n{HEAD}", answer) == "passed"


@pytest.mark.parametrize(
    "answer",
    [
        f"Sure!\n\n```python\n{WHOLE}```\nIt rounds down.",
        f"```Python\n{WHOLE}```",
        f"```\n{WHOLE}```",
        f"~~~py\n{WHOLE}~~~",
        f"Here it is:\n\n{WHOLE}",
        f"First try:\n```python\ndef low(x):\n    return 0\n```\nBetter:\n```python\n{WHOLE}```\n",
        f"```python\n{WHOLE}```\nUse it so:\n```python\nprint(low(1.5))\nassert False\n```",
        f"```bash\npip install low\n```\n```python\n{WHOLE}```",
        f"```python\n{WHOLE}",  # cut off before the fence was closed
        f"```python\n{WHOLE}\n\ndef more(:",  # cut off in the middle of a line
        f"<think>```python\ndef low(x): return 0\n```</think>\n```python\n{WHOLE}```",
        f"```python\n{BODY}```",  # the body alone
        f"{WHOLE}<|im_end|>",
        f"```python\n{WHOLE}\nif __name__ == '__main__':\n    raise SystemExit(1)\n```",
        f"```python\r\n{WHOLE.replace(chr(10), chr(13) + chr(10))}```",
        "```python\nimport math\nlow = math.floor\n```",
    ],
)
def test_a_chat_answer_passes(answer: str) -> None:
    assert outcome(GOLD, "<|user|>Write low(x).<|assistant|>", answer) == "passed"


@pytest.mark.parametrize(
    "answer", ["", "I cannot do that.", "```python\n```", "    pass\n", "def high(x):\n    return 2"]
)
@pytest.mark.parametrize("prompt", [HEAD, "Write low(x)."])
def test_an_answer_without_the_function_fails(answer: str, prompt: str) -> None:
    assert outcome(GOLD, prompt, answer) == "failed"


def test_an_answer_inside_the_prompts_own_fence_passes() -> None:
    prompt = f"Complete it.\n```python\n{HEAD}"
    assert outcome(GOLD, prompt, f"{BODY}```\n\nDone.") == "passed"
    assert (
        outcome(MBPP, "Write twice.\n```python\n", "def twice(x):\n    return 2 * x\n```\nDone.") == "passed"
    )


@pytest.mark.parametrize(
    "answer",
    [
        "def twice(x):\n    return 2 * x",
        "FACTOR = 2\ndef twice(x):\n    return FACTOR * x",
        "[BEGIN]\nFACTOR = 2\ndef twice(x):\n    return FACTOR * x\n[DONE]\nmore",
        "```python\nassert twice(1) == 2\n```\n```python\ndef twice(x):\n    return x + x\n```",
    ],
)
def test_a_program_of_its_own_passes(answer: str) -> None:
    assert outcome(MBPP, "Write twice.", answer) == "passed"


def test_setup_sees_the_answers_names_and_tests_see_the_setup() -> None:
    gold = json.dumps({"task_id": 2, "tests": ["assert size(ROOT) == 1"], "setup": "ROOT = Node(1)"})
    answer = "class Node:\n    def __init__(self, x):\n        self.x = x\ndef size(node):\n    return 1"
    assert outcome(gold, "q", answer) == "passed"


@pytest.mark.parametrize("tail", ["'''", '"""', "\\", "if False:", "x = (", "#"])
def test_an_open_end_swallows_no_test(tail: str) -> None:
    wrong = f"def twice(x):\n    return 0\n{tail}"
    assert outcome(MBPP, "q", wrong) == "failed"
    assert outcome(GOLD, HEAD, f"    return 0\n{tail}") == "failed"


@pytest.mark.parametrize(
    "gold", ["", "[]", "{}", '{"task_id":1,"tests":[]}', GOLD.replace('"low"', '"low); import os; (x"')]
)
def test_a_task_that_cannot_be_read_is_an_error(gold: str) -> None:
    with pytest.raises(DataError):
        program_of(gold, "q", "x")


def test_any_text_gives_a_program_that_compiles() -> None:
    generator = random.Random(7)
    for _ in range(300):
        letters = [*WORDS, *string.printable, "\x00", "\ud800", "\u2028"]
        answer = "".join(generator.choices(letters, k=generator.randrange(60)))
        prompt = generator.choice([HEAD, "q", "```python\n", ""])
        for gold in (GOLD, MBPP):
            program = program_of(gold, prompt, answer)
            compile(program, "program.py", "exec")
            assert program == program_of(gold, prompt, answer)
            program.encode("utf-8")


def test_code_between_fences_comes_back_unchanged() -> None:
    generator = random.Random(8)
    prose = ["Well.", "A list:\n- a\n- b", "It is `x`.", ""]
    for _ in range(200):
        lines = ["".join(generator.choices(string.ascii_letters + " ()=:'\"#", k=12)) for _ in range(5)]
        code = "\n".join(["def f():", *lines]) + "\n"
        before, after = generator.choice(prose), generator.choice(prose)
        assert fenced_blocks(f"{before}\n```python\n{code}```\n{after}")[0] == code


def test_endless_answers_are_bounded() -> None:
    assert len(readable_part("x" * 10**6, "")) == MAX_ANSWER_CHARS
    assert len(fenced_blocks("```\nx\n```\n" * 5000)) == MAX_BLOCKS
    assert bare_program("prose only, no code") == ""
    assert body_of("") == "\n"
    huge = program_of(GOLD, HEAD, "    x = 1\n" * 10**6)
    assert len(huge) < 40 * MAX_ANSWER_CHARS
