"""Reading what a harness left: answers matched to their items, and its own mean as a cross-check.

Both harnesses leave the same files, `samples-<role>-<benchmark>-<split>.jsonl` and `aggregate.json`. A job
may run a model's own code, so that nothing in them is believed. Scoring is elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import ITEMS_MAX_BYTES, Answer, EvalItem, refuse_incomplete
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.execution.outputs import iter_json_lines

AGGREGATE_NAME = "aggregate.json"
ANSWER_MIN_BYTES, ANSWER_BYTES_PER_TOKEN = 64 << 10, 512
"""Ten times what the answers of a sane tokenizer need, escapes included."""
CROSS_CHECK_TOLERANCE = 1e-6


def read_answers(out_dir: Path, role: str, task: EvalTask, items: Sequence[EvalItem]) -> list[Answer]:
    """Return one model's answers to one task, in item order and then by repeat.

    Raises `JobError` when an item is missing, unknown or doubled, or was answered to another prompt.
    """
    name = f"samples-{role}-{task.benchmark}-{task.split}.jsonl"
    longest = ANSWER_MIN_BYTES + ANSWER_BYTES_PER_TOKEN * task.max_new_tokens
    n_lines = 2 * task.repeats * len(items) + 1
    answers: list[Answer] = []
    for number, line in iter_json_lines(out_dir, name, ITEMS_MAX_BYTES, n_lines, max_line_bytes=longest):
        try:
            # Lone surrogates cannot be stored as UTF-8; a hostile or broken tokenizer may make them.
            prediction = str(line["prediction"]).encode("utf-8", "replace").decode("utf-8")
            answers.append(Answer.model_validate({**line, "prediction": prediction}))
        except (KeyError, ValueError) as error:
            raise JobError(f"{name}:{number} is no answer: {str(error).splitlines()[0]}") from None
    refuse_incomplete(answers, items, task.repeats, name)
    place = {item.item_id: number for number, item in enumerate(items)}
    return sorted(answers, key=lambda answer: (place[answer.item_id], answer.repeat))


def cross_check(
    aggregate: dict[str, Any],
    role: str,
    task: EvalTask,
    items: Sequence[EvalItem],
    answers: Sequence[Answer],
) -> None:
    """Compare the harness's own mean of strip-equal answers with ours, over the answered items.

    Raises `JobError` when they differ: then the answers on disk are not the ones that it saw.
    """
    name = f"{role} on {task.benchmark} ({task.split})"
    wanted = {"role": role, "benchmark": task.benchmark, "split": task.split}
    found = [
        entry
        for entry in objects_in(aggregate.get("tasks"))
        if all(entry.get(key) == value for key, value in wanted.items())
    ]
    counted = [answer for answer in answers if answer.unanswered is None]
    theirs: Any = found[0].get("exact_match") if len(found) == 1 else None
    if len(found) == 1 and theirs is None and not counted:
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


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list in a job's record; anything else is left out."""
    entries = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]


def _plain(text: str) -> str:
    """Return the text as lm-eval's metric sees it (numpy drops NUL characters at the end)."""
    return text.encode("utf-8", "replace").decode("utf-8").strip().rstrip("\x00")
