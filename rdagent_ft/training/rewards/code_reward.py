"""The reward `code`: the share of a row's tests that the completion's code passes, behind limits.

Each test runs with the code in a process of its own (`execution.contained`): no network, no new processes,
no written files, bounded time, memory and output. It is meant for a job's container; against the machine
itself those walls are no promise. Not covered: code that attacks its tests from inside, and code that
reads the job's files: tests are not secret from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from rdagent_ft.answers.code_extraction import bare_program, fenced_blocks, plain_text, readable_part
from rdagent_ft.answers.code_program import code_program, outside_names
from rdagent_ft.execution.contained import Limits, run_surely, usable_workers
from rdagent_ft.training.rewards.reward import Batch, RewardError, Score

MAX_TESTS = 100
N_WORKERS = 8
_IMPORTED = re.compile(r"^\s*(?:from\s+\S+\s+)?import\s+(.+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")


def code_score(timeout_s: float) -> Callable[[Batch], list[Score]]:
    """Return the `score` of a `code` reward.

    Args:
        timeout_s: wall clock of one test. After a test that took longer, a completion's other tests
            count as failed.

    None for a row without tests, and when the machine could not run them.
    """
    limits = Limits(wall_s=timeout_s)

    def score(batch: Batch) -> list[Score]:
        rows = zip(batch.prompts, batch.answers(), batch.column("tests"), strict=True)
        programs = [_programs(prompt, text, tests_of(tests)) for prompt, text, tests in rows]
        different = list(dict.fromkeys(programs))
        with ThreadPoolExecutor(usable_workers(N_WORKERS)) as pool:
            found = list(pool.map(_share_passed, different, [limits] * len(different)))
        shares = dict(zip(different, found, strict=True))
        return [shares[group] for group in programs]

    return score


def tests_of(value: object) -> tuple[str, ...]:
    """Return a row's tests: a text is one, a list holds one each. Raises `RewardError` for others."""
    match value:
        case None:
            return ()
        case str():
            return (value,) if value.strip() else ()
        case list() | tuple() if all(isinstance(test, str) for test in cast("Sequence[object]", value)):
            tests = tuple(test for test in cast("Sequence[str]", value) if test.strip())
            if len(tests) <= MAX_TESTS:
                return tests
            raise RewardError(f"a row has {len(tests)} tests; {MAX_TESTS} are the most: join some of them")
        case _:
            raise RewardError("the column `tests` must hold Python source, or a list of sources")


def _programs(prompt: object, text: str, tests: Sequence[str]) -> tuple[str, ...]:
    """Return one program a test; for a blank answer they are blank as well, and never started."""
    if not text.strip():
        return ("",) * len(tests)
    readable = readable_part(text, prompt if isinstance(prompt, str) else "")
    sources = [*fenced_blocks(readable), plain_text(readable), bare_program(readable)]
    return tuple(code_program(sources, test, _wanted(test)) for test in tests)


def _wanted(test: str) -> list[str] | None:
    """Return what the code must define for a test: what it calls and does not define or import."""
    imported = {name for line in _IMPORTED.findall(test) for name in _NAME.findall(line)}
    return [name for name in outside_names(test, defined=test) if name not in imported] or None


def _share_passed(programs: Sequence[str], limits: Limits) -> Score:
    n_passed = 0
    for program in filter(None, programs):
        outcome = run_surely(program, limits).outcome
        if outcome == "not_run":
            return None
        if outcome == "timeout":
            break
        n_passed += outcome == "passed"
    return n_passed / len(programs) if programs else None
