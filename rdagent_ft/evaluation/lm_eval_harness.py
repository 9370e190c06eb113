"""The `lm-eval` harness: writes the request of an evaluation job and reads what the job left.

The job (`lm_eval_job`) generates through lm-evaluation-harness with its `hf` or `vllm` backend; scores
are computed here from the answers. The harness's own mean of exact matches is only a cross-check: when it
differs from ours, the answers on disk are not the ones it saw, and nothing of the job counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.answer_files import AGGREGATE_NAME, cross_check, objects_in, read_answers
from rdagent_ft.evaluation.items import Answer, read_items
from rdagent_ft.evaluation.lm_eval_job import VLLM_FLAG
from rdagent_ft.evaluation.port import EvalModel, EvalRequest
from rdagent_ft.execution.outputs import read_json_file
from rdagent_ft.values import write_json

REQUEST_NAME = "request.json"
PROGRESS_NAME = "progress.jsonl"
JobBackend = Literal["hf", "vllm"]

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,80}")


class LmEvalHarness:
    """Implements the `Harness` port with lm-evaluation-harness in a job.

    Args:
        backend: what generates in the job: `hf` (transformers), or `vllm` in an environment that has it.
    """

    name: str = "lm-eval"

    def __init__(self, backend: JobBackend = "hf") -> None:
        self._backend: JobBackend = backend

    def prepare(self, request: EvalRequest, out_dir: Path) -> tuple[str, ...]:
        """Write `request.json` into `out_dir` and return the argv to run there.

        Raises `JobError` when an items file does not hold what the task says, a name cannot be part of
        a file name, or the models of a `vllm` job lie in several folders.
        """
        roles = [model.role for model in request.models]
        if len(set(roles)) != len(roles):
            raise JobError(f"two models have the same role: {', '.join(roles)}")
        for name in (*roles, *(task.benchmark for task in request.tasks)):
            if not _SLUG.fullmatch(name):
                raise JobError(f"{name!r} cannot be part of a file name")
        if self._backend == "vllm" and len({model.path for model in request.models}) > 1:
            raise JobError("one job of the vllm backend answers with one model folder and its adapters")
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
        argv = ("python", "-m", "rdagent_ft.evaluation.lm_eval_job", REQUEST_NAME)
        return (*argv, VLLM_FLAG) if self._backend == "vllm" else argv

    def parse(self, request: EvalRequest, out_dir: Path) -> dict[tuple[str, str, str], list[Answer]]:
        """Return (role, benchmark, split) -> answers, in item order.

        Raises `JobError` when an item is missing, unknown or doubled, when it was answered to another
        prompt, or when lm-eval's own mean of exact matches is not ours.
        """
        aggregate = read_json_file(out_dir, AGGREGATE_NAME)
        found: dict[tuple[str, str, str], list[Answer]] = {}
        for model, task in request.pairs():
            items = read_items(task.items_file, task.n_items)
            answers = read_answers(out_dir, model.role, task, items)
            cross_check(aggregate, model.role, task, items, answers)
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
            answers = read_answers(out_dir, model.role, task, items)
            cross_check(aggregate, model.role, task, items, answers)
        except JobError:
            continue
        found[model.role, task.benchmark, task.split] = answers
    return found


def adapters_without_effect(out_dir: Path) -> tuple[str, ...]:
    """Return the roles whose adapter changed no logit on the 8 canary prompts, or made them NaN.

    Such an adapter was not applied, learnt nothing, or is broken. Raises `JobError` without a
    readable `aggregate.json`.
    """
    entries = objects_in(read_json_file(out_dir, AGGREGATE_NAME).get("models"))
    roles = [str(entry.get("role")) for entry in entries if entry.get("adapter_differs") is False]
    return tuple(role if _SLUG.fullmatch(role) else "an unknown role" for role in roles[:10])


def _absolute_model(model: EvalModel) -> EvalModel:
    adapter = None if model.adapter is None else model.adapter.absolute()
    return model.model_copy(update={"path": model.path.absolute(), "adapter": adapter})
