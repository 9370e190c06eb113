"""The endpoint harness: writes the request of an endpoint job and reads what the job left.

The same two halves as the `lm-eval` harness, with addresses in place of model folders. Scores are
computed elsewhere, from the answers; lm-eval's own mean over the answered items is the cross-check.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.answer_files import AGGREGATE_NAME, cross_check, read_answers
from rdagent_ft.evaluation.endpoint.partial import read_partial
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget, problems_of
from rdagent_ft.evaluation.items import Answer, prompt_hash, read_items
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import write_json

REQUEST_NAME = "request.json"

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
            answers = read_answers(out_dir, target.role, task, items)
            cross_check(aggregate, target.role, task, items, answers)
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
