"""A run at step `code` whose recipe asks a teacher, and teachers that answer by a rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from container_double import ContainerDouble
from fake_openai import FakeOpenAI, Reply
from script_world import SPLITS, at_code_step

from rdagent_ft.data.rows import Row
from rdagent_ft.engine.bounds import Clock
from rdagent_ft.engine.context import RunContext, RunRequest
from rdagent_ft.engine.faults import Faults
from rdagent_ft.engine.journal import Journal
from rdagent_ft.engine.progress import Silent
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage
from rdagent_ft.settings import Settings

KEY = "sk-canary-teacher-0123456789abcdef"
ROWS = {row.prompt_text: row for row in SPLITS["train"]}
PRICES = {"llm_price_input": 10.0, "llm_price_output": 100.0}
"""Dollars per million tokens: an answer of the fake server (100 + 20 tokens) costs 0.003. They count for the
teacher because it sits on the planner's gateway; a server on this machine costs nothing otherwise."""
ANSWER_USD = 0.003


def recipe(**teacher: Any) -> Recipe:
    """Return a recipe with `data.teacher`; `data` in `teacher` gives the other fields of the mix."""
    data = {**teacher.pop("data", {}), "teacher": teacher}
    stage = SftStage(adapter=FullAdapter(), max_length=128, effective_batch=8, micro_batch=4)
    return Recipe(data=DataMix.model_validate(data), stages=(stage,))


def says(answer: str) -> Reply:
    """Return a reply of the usual form."""
    return Reply(json.dumps({"answer": answer}))


def asked(body: dict[str, Any]) -> Row:
    """Return the train row whose prompt a request asks about."""
    return ROWS[body["messages"][-1]["content"]]


def by(rule: Callable[[Row], str]) -> Callable[[dict[str, Any]], Reply]:
    """Return a server step that answers by the row."""
    return lambda body: says(rule(asked(body)))


def gold(row: Row) -> str:
    """The right answer."""
    return row.completion


def teacher_settings(server: FakeOpenAI, **more: Any) -> dict[str, Any]:
    """Return the settings of a run with this teacher; retries end soon."""
    values = {
        "teacher_model": "teacher-x", "llm_api_base": server.base_url, "teacher_api_key": KEY,
        "llm_max_wait": 1.0, **PRICES,
    }  # fmt: skip
    return {**values, **more}


def at_teacher(
    root: Path, server: FakeOpenAI, wanted: Recipe, *, changes: dict[str, Any] | None = None, **more: Any
) -> RunContext:
    """Return the context of a new run below `root` that is about to ask this teacher."""
    return at_code_step(root, wanted, ContainerDouble(), changes=changes, **teacher_settings(server, **more))


def resumed(root: Path, server: FakeOpenAI, wanted: Recipe, **more: Any) -> RunContext:
    """Return the context of the run below `root` as a resume finds it."""
    run_dir = root / "output" / "r"
    values = {"file_path": root, "executor": "docker", **teacher_settings(server, **more)}
    return RunContext(
        run_id="r", run_dir=run_dir, request=RunRequest(dataset="d", recipe=wanted),
        settings=Settings.model_validate(values), journal=Journal.open(run_dir), executor=ContainerDouble(),
        harness=cast("Any", None), planner=cast("Any", None), llm=None, clock=Clock(None),
        faults=Faults(None), progress=Silent(),
    )  # fmt: skip


def trained(root: Path) -> list[dict[str, str]]:
    """Return the records of the training file of loop 0."""
    lines = (root / "output/r/loops/000/data/train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def cached(root: Path) -> list[Path]:
    """Return the files of the teacher's cache."""
    return sorted((root / "cache" / "teacher").glob("*.json"))
