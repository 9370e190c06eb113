"""The `lm-eval` harness: writes the request of an evaluation job and reads what the job left.

The job (`lm_eval_job`) generates through lm-evaluation-harness with its `hf` backend; scores are
computed here from the answers. The harness's own mean of exact matches is only a cross-check: when it
differs from ours, the answers on disk are not the ones it saw, and nothing of the job counts.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import ITEMS_MAX_BYTES, Answer, EvalItem, read_items, refuse_incomplete
from rdagent_ft.evaluation.port import EvalModel, EvalRequest, EvalTask
from rdagent_ft.execution.outputs import iter_json_lines, read_json_file
from rdagent_ft.values import write_json

REQUEST_NAME = "request.json"
AGGREGATE_NAME = "aggregate.json"
PROGRESS_NAME = "progress.jsonl"
ANSWER_MIN_BYTES, ANSWER_BYTES_PER_TOKEN = 64 << 10, 512
CROSS_CHECK_TOLERANCE = 1e-6

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,80}")


class LmEvalHarness:
    """Implements the `Harness` port with lm-evaluation-harness in a job."""

    name: str = "lm-eval"

    def prepare(self, request: EvalRequest, out_dir: Path) -> tuple[str, ...]:
        """Write `request.json` into `out_dir` and return the argv to run there.

        Raises `JobError` when an items file does not hold what the task says, or a name cannot be
        part of a file name.
        """
        roles = [model.role for model in request.models]
        if len(set(roles)) != len(roles):
            raise JobError(f"two models have the same role: {', '.join(roles)}")
        for name in (*roles, *(task.benchmark for task in request.tasks)):
            if not _SLUG.fullmatch(name):
                raise JobError(f"{name!r} cannot be part of a file name")
        for task in request.tasks:
            read_items(task.items_file, task.n_items)
        absolute = request.model_copy(
            update={
                "models": tuple(_absolute_model(model) for model in request.models),
                "tasks": tuple(
                    task.model_copy(update={"items_file": task.items_file.absolute()})
                    for task in request.tasks
                ),
            }
        )
        write_json(out_dir / REQUEST_NAME, absolute.model_dump(mode="json"))
        return ("python", "-m", "rdagent_ft.evaluation.lm_eval_job", REQUEST_NAME)

    def parse(self, request: EvalRequest, out_dir: Path) -> dict[tuple[str, str, str], list[Answer]]:
        """Return (role, benchmark, split) -> answers, in item order.

        Raises `JobError` when an item is missing, unknown or doubled, when it was answered to another
        prompt, or when lm-eval's own mean of exact matches is not ours.
        """
        aggregate = read_json_file(out_dir, AGGREGATE_NAME)
        found: dict[tuple[str, str, str], list[Answer]] = {}
        for model, task in request.pairs():
            items = read_items(task.items_file, task.n_items)
            answers = _read_answers(out_dir, model.role, task, items)
            _cross_check(aggregate, model.role, task, items, answers)
            found[model.role, task.benchmark, task.split] = answers
        return found


def parse_finished(request: EvalRequest, out_dir: Path) -> dict[tuple[str, str, str], list[Answer]]:
    """Return the answers to the tasks that an ended job had finished; {} when there are none.

    For a job that was cut off: each task's answers count only when they are complete, to the rendered
    prompts, and confirmed by lm-eval's own mean, as in `parse`.
    """
    try:
        aggregate = read_json_file(out_dir, AGGREGATE_NAME)
    except JobError:
        return {}
    found: dict[tuple[str, str, str], list[Answer]] = {}
    for model, task in request.pairs():
        items = read_items(task.items_file, task.n_items)
        try:
            answers = _read_answers(out_dir, model.role, task, items)
            _cross_check(aggregate, model.role, task, items, answers)
        except JobError:
            continue
        found[model.role, task.benchmark, task.split] = answers
    return found


def adapters_without_effect(out_dir: Path) -> tuple[str, ...]:
    """Return the roles whose adapter changed no logit on the 8 canary prompts, or made them NaN.

    Such an adapter was not applied, learnt nothing, or is broken. Raises `JobError` without a
    readable `aggregate.json`.
    """
    entries = _entries(read_json_file(out_dir, AGGREGATE_NAME), "models")
    roles = [str(entry.get("role")) for entry in entries if entry.get("adapter_differs") is False]
    return tuple(role if _SLUG.fullmatch(role) else "an unknown role" for role in roles[:10])


def _entries(aggregate: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects of a list in the job's record; anything else is left out."""
    found: Any = aggregate.get(key)
    entries = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]


def _absolute_model(model: EvalModel) -> EvalModel:
    adapter = None if model.adapter is None else model.adapter.absolute()
    return model.model_copy(update={"path": model.path.absolute(), "adapter": adapter})


def _read_answers(out_dir: Path, role: str, task: EvalTask, items: list[EvalItem]) -> list[Answer]:
    name = f"samples-{role}-{task.benchmark}-{task.split}.jsonl"
    answers: list[Answer] = []
    # Ten times what the answers of a sane tokenizer need, escapes included.
    longest = ANSWER_MIN_BYTES + ANSWER_BYTES_PER_TOKEN * task.max_new_tokens
    n_lines = 2 * task.repeats * len(items) + 1
    lines = iter_json_lines(out_dir, name, ITEMS_MAX_BYTES, n_lines, max_line_bytes=longest)
    for number, line in lines:
        try:
            # Lone surrogates cannot be stored as UTF-8; a hostile or broken tokenizer may make them.
            prediction = str(line["prediction"]).encode("utf-8", "replace").decode("utf-8")
            answers.append(Answer.model_validate({**line, "prediction": prediction}))
        except (KeyError, ValueError) as error:
            raise JobError(f"{name}:{number} is no answer: {str(error).splitlines()[0]}") from None
    refuse_incomplete(answers, items, task.repeats, name)
    place = {item.item_id: number for number, item in enumerate(items)}
    return sorted(answers, key=lambda answer: (place[answer.item_id], answer.repeat))


def _cross_check(
    aggregate: dict[str, Any], role: str, task: EvalTask, items: list[EvalItem], answers: list[Answer]
) -> None:
    """Compare lm-eval's own mean of strip-equal answers with ours; raise `JobError` on a difference."""
    wanted = {"role": role, "benchmark": task.benchmark, "split": task.split}
    found = [
        entry
        for entry in _entries(aggregate, "tasks")
        if all(entry.get(key) == value for key, value in wanted.items())
    ]
    theirs: Any = found[0].get("exact_match") if len(found) == 1 else None
    if not isinstance(theirs, (int, float)) or not math.isfinite(theirs):
        raise JobError(f"{AGGREGATE_NAME} has no exact_match of {role} on {task.benchmark} ({task.split})")
    golds = {item.item_id: _plain(item.gold) for item in items}
    ours = sum(_plain(answer.prediction) == golds[answer.item_id] for answer in answers) / len(answers)
    if abs(ours - theirs) > CROSS_CHECK_TOLERANCE:
        raise JobError(
            f"lm-eval counts {theirs:.6f} exact matches of {role} on {task.benchmark} ({task.split}), "
            f"the answers on disk give {ours:.6f}: they are not the same answers"
        )


def _plain(text: str) -> str:
    """Return the text as lm-eval's metric sees it (numpy drops NUL characters at the end)."""
    return text.encode("utf-8", "replace").decode("utf-8").strip().rstrip("\x00")
