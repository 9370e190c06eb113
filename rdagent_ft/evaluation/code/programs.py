"""From a task, the prompt and an answer to one Python program whose exit 0 means that the tests passed.

What the program does is in `answers.code_program`; here is what the tasks of HumanEval and MBPP put into it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import Field, ValidationError

from rdagent_ft.answers.code_extraction import (
    bare_program,
    begins_as_code,
    begins_indented,
    body_of,
    fenced_blocks,
    plain_text,
    readable_part,
)
from rdagent_ft.answers.code_program import called_names, code_program, outside_names
from rdagent_ft.errors import DataError
from rdagent_ft.values import Frozen


class HumanEvalGold(Frozen):
    """A HumanEval task: `prompt` is a function's head, `test` defines `check(candidate)`."""

    task_id: str
    prompt: str
    entry_point: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
    test: str


class MbppGold(Frozen):
    """An MBPP task: `tests` are assertions, `setup` is executed between the code and them."""

    task_id: str | int
    tests: Annotated[tuple[str, ...], Field(min_length=1)]
    setup: str = ""


def program_of(gold: str, prompt: str, prediction: str) -> str:
    """Return a complete program that exits with 0 only when its tests ran and held.

    Args:
        gold: JSON of `HumanEvalGold` or `MbppGold`.
        prompt: the exact text the model saw; it tells whether the answer continues a function.
        prediction: the raw answer.

    Raises `DataError` when `gold` is neither.
    """
    task = _task(gold)
    text = readable_part(prediction, prompt)
    if isinstance(task, HumanEvalGold):
        sources = _humaneval_sources(task, prompt, readable_part(prediction, ""), text)
        wanted = [task.entry_point]
        tests = f"{task.test}\n\ncheck({task.entry_point})\n"
    else:
        sources = [*fenced_blocks(text), plain_text(text), bare_program(text)]
        wanted = _called_names(task)
        tests = "\n".join([task.setup.replace("\r\n", "\n"), *task.tests]) + "\n"
    return code_program(sources, tests, wanted)


def _task(gold: str) -> HumanEvalGold | MbppGold:
    try:
        value = json.loads(gold)
        kind = HumanEvalGold if isinstance(value, dict) and "entry_point" in value else MbppGold
        return kind.model_validate(value)
    except (ValueError, ValidationError) as error:
        raise DataError(f"a code task cannot be read: {str(error).splitlines()[0]}") from None


def _humaneval_sources(task: HumanEvalGold, prompt: str, raw: str, text: str) -> list[str]:
    """Return what may be the solution: fenced code, a program of its own, the rest of the function.

    `text` is `raw` with the code fence that the prompt had opened.
    """
    head = task.prompt.rstrip() + "\n"
    preamble = _preamble(task)
    asked_to_continue = prompt.rstrip().endswith(task.prompt.rstrip())
    body = body_of(raw if asked_to_continue else text)
    continued = [head + body] if body.strip() else []
    blocks = fenced_blocks(text)
    whole = [preamble + block for block in blocks]
    inner = [head + body_of(block) for block in blocks if begins_indented(block)]
    bare = [preamble + source for source in (plain_text(text), bare_program(text)) if source.strip()]
    if asked_to_continue and begins_indented(raw):
        return [*continued, *whole, *bare]
    if asked_to_continue and not blocks and not begins_as_code(text):
        return [*continued, *bare]
    # `head` defines the function without a body: what is built on it comes after what defines it itself.
    return [*whole, *bare, *inner, *continued]


def _preamble(task: HumanEvalGold) -> str:
    """Return what stands before the function in the task: imports and helpers that tests may use."""
    match = re.search(rf"^def\s+{task.entry_point}\b", task.prompt, re.MULTILINE)
    return task.prompt if match is None else task.prompt[: match.start()]


def _called_names(task: MbppGold) -> list[str]:
    """Return what the assertions call and nobody else defines: what the answer must bring."""
    tests = "\n".join(task.tests)
    return outside_names(tests, defined=task.setup) or called_names(tests)  # it may define its own `sum`
