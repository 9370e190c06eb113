"""The endpoint harness: writes the request of an endpoint job and reads what the job left.

The same two halves as the `lm-eval` harness, with addresses in place of model folders. Scores are
computed elsewhere, from the answers; lm-eval's own mean over the answered items is the cross-check.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.endpoint.partial import read_partial
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget, problems_of
from rdagent_ft.evaluation.items import (
    ITEMS_MAX_BYTES,
    Answer,
    EvalItem,
    prompt_hash,
    read_items,
    refuse_incomplete,
)
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.execution.outputs import iter_json_lines, read_json_file
from rdagent_ft.values import write_json

REQUEST_NAME = "request.json"
AGGREGATE_NAME = "aggregate.json"
CROSS_CHECK_TOLERANCE = 1e-6
ANSWER_MIN_BYTES, ANSWER_BYTES_PER_TOKEN = 64 << 10, 512

Answers = dict[tuple[str, str, str], list[Answer]]
"""(role, benchmark, split) -> answers, in item order and then by repeat."""


class EndpointHarness:
    """Asks models behind OpenAI-compatible endpoints through lm-eval."""

    name: str = "lm-eval-endpoint"

    def prepare(self, request: EndpointRequest, out_dir: Path) -> tuple[str, ...]:
        """Write `request.json` into `out_dir` and return the argv to run there, in this environment.

        Raises `PreflightError` with all problems of the request, `JobError` for an items file that does
        not hold what the task says, `OSError` for a folder that cannot be written.
        """
        problems = problems_of(request)
        if problems:
            raise PreflightError("this evaluation cannot run through these endpoints", problems=problems)
        targets = tuple(_absolute_target(target) for target in request.targets)
        tasks = tuple(
            task.model_copy(update={"items_file": task.items_file.absolute()}) for task in request.tasks
        )
        absolute = request.model_copy(update={"targets": targets, "tasks": tasks})
        write_json(out_dir / REQUEST_NAME, absolute.model_dump(mode="json"))
        return (sys.executable, "-m", "rdagent_ft.evaluation.endpoint.job", REQUEST_NAME)

    def parse(self, request: EndpointRequest, out_dir: Path) -> Answers:
        """Return all answers. Unanswered items are there, with their reason.

        Raises `JobError` when an item is missing, unknown or doubled, when it was answered to another
        prompt, or when lm-eval's own mean over the answered items is not ours.
        """
        aggregate = read_json_file(out_dir, AGGREGATE_NAME)
        found: Answers = {}
        for target, task in request.pairs():
            items = read_items(task.items_file, task.n_items)
            answers = _read_answers(out_dir, target.role, task, items)
            _cross_check(aggregate, target.role, task, items, answers)
            found[target.role, task.benchmark, task.split] = answers
        return found


def parse_partial(request: EndpointRequest, out_dir: Path) -> Answers:
    """Return the answers that exist, whatever became of the job; an empty list where there is none.

    Only answers to the request's own items, prompts and fingerprint count. Never raises for what the
    job left or did not leave; raises `JobError` for items files that cannot be read.
    """
    rows = read_partial(request, out_dir)
    found: Answers = {}
    for target, task in request.pairs():
        wanted = [
            (target.role, task.benchmark, task.split, item.item_id, repeat, prompt_hash(item.prompt))
            for item in read_items(task.items_file, task.n_items)
            for repeat in range(task.repeats)
        ]
        found[target.role, task.benchmark, task.split] = [rows[key].answer for key in wanted if key in rows]
    return found


def _absolute_target(target: EndpointTarget) -> EndpointTarget:
    tokenizer = None if target.tokenizer is None else target.tokenizer.absolute()
    return target.model_copy(update={"tokenizer": tokenizer})


def _read_answers(out_dir: Path, role: str, task: EvalTask, items: Sequence[EvalItem]) -> list[Answer]:
    name = f"samples-{role}-{task.benchmark}-{task.split}.jsonl"
    longest = ANSWER_MIN_BYTES + ANSWER_BYTES_PER_TOKEN * task.max_new_tokens
    n_lines = 2 * task.repeats * len(items) + 1
    answers: list[Answer] = []
    for number, line in iter_json_lines(out_dir, name, ITEMS_MAX_BYTES, n_lines, max_line_bytes=longest):
        try:
            answers.append(Answer.model_validate(line))
        except ValueError as error:
            raise JobError(f"{name}:{number} is no answer: {str(error).splitlines()[0]}") from None
    refuse_incomplete(answers, items, task.repeats, name)
    place = {item.item_id: number for number, item in enumerate(items)}
    return sorted(answers, key=lambda answer: (place[answer.item_id], answer.repeat))


def _cross_check(
    aggregate: dict[str, Any],
    role: str,
    task: EvalTask,
    items: Sequence[EvalItem],
    answers: Sequence[Answer],
) -> None:
    """Compare lm-eval's own mean over the answered items with ours; raise `JobError` on a difference."""
    name = f"{role} on {task.benchmark} ({task.split})"
    wanted = {"role": role, "benchmark": task.benchmark, "split": task.split}
    entries = [entry for entry in _objects(aggregate.get("tasks")) if _says(entry, wanted)]
    counted = [answer for answer in answers if answer.unanswered is None]
    theirs: Any = entries[0].get("exact_match") if len(entries) == 1 else None
    if len(entries) == 1 and theirs is None and not counted:
        return
    if not counted or not isinstance(theirs, int | float) or not math.isfinite(theirs):
        raise JobError(f"{AGGREGATE_NAME} has no exact_match of {name}")
    golds = {item.item_id: _plain(item.gold) for item in items}
    ours = sum(_plain(answer.prediction) == golds[answer.item_id] for answer in counted) / len(counted)
    if abs(ours - theirs) > CROSS_CHECK_TOLERANCE:
        raise JobError(
            f"lm-eval counts {theirs:.6f} exact matches of {name}, the answers on disk give {ours:.6f}: "
            "they are not the same answers"
        )


def _says(entry: dict[str, Any], wanted: dict[str, str]) -> bool:
    return all(entry.get(key) == value for key, value in wanted.items())


def _objects(value: Any) -> list[dict[str, Any]]:
    entries = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]


def _plain(text: str) -> str:
    """Return the text as lm-eval's metric sees it (numpy drops NUL characters at the end)."""
    return text.encode("utf-8", "replace").decode("utf-8").strip().rstrip("\x00")
