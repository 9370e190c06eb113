"""A claim writes down what it opens, the test and every reported benchmark, before its job starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from container_double import ContainerDouble
from script_world import at_code_step

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.journal import utc_now
from rdagent_ft.engine.steps.claim import claim
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.lm_eval_harness import LmEvalHarness
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage
from rdagent_ft.reporting.records import (
    EvaluateOutput,
    FeedbackOutput,
    LoopStep,
    ProposeOutput,
    TrainOutput,
)
from rdagent_ft.reporting.seal import read_looks, verify_looks

RECIPE = Recipe(stages=(SftStage(adapter=FullAdapter()),))
DELTA = Comparison(
    benchmark="heldout", split="val", n=20, base=0.1, tuned=0.5, delta=0.4, se=0.1, ci95=(0.2, 0.6), mde=0.28,
    verdict="improved",
)  # fmt: skip


class Refusing(ContainerDouble):
    """Starts nothing; notes which looks were on disk when a job was to be started."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self._database = database
        self.looks_at_submit: list[list[tuple[str, str, int]]] = []

    def submit(self, spec: JobSpec) -> JobHandle:
        self.looks_at_submit.append(looks(self._database))
        self._results[spec.attempt_id] = JobResult(
            failure_class="candidate", reason="exit", exit_code=1, started_unix=1.0, ended_unix=2.0
        )
        return JobHandle(executor=self.name, attempt_id=spec.attempt_id, out_dir=spec.out_dir)

    def forget(self, result: JobResult) -> None:
        pass


def looks(database: Path) -> list[tuple[str, str, int]]:
    import sqlite3

    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return [(look.benchmark, look.split, look.loop) for look in read_looks(connection)]
    finally:
        connection.close()


def evaluated_run(root: Path, loops: tuple[int, ...]) -> tuple[RunContext, Refusing]:
    """Return a run with evaluated loops and one reported benchmark."""
    items = root / "benchmarks" / "gsm8k" / "test.jsonl"
    items.parent.mkdir(parents=True)
    lines = [json.dumps({"question": f"What is {n} plus 1?", "answer": f"#### {n + 1}"}) for n in range(12)]
    items.write_text("\n".join(lines))
    refusing = Refusing(root / "output" / "r" / "run.db")
    ctx = at_code_step(root, RECIPE, refusing, changes={"reported_benchmarks": ("gsm8k",)})
    ctx.harness = LmEvalHarness()
    proposal = ProposeOutput(
        planner="tpe", parent=None, recipe=RECIPE, recipe_hash=RECIPE.hash, hypothesis="h", prediction="p"
    )
    for loop in loops:
        weights = f"loops/{loop:03d}/stages/1-sft"
        (ctx.run_dir / weights).mkdir(parents=True)
        outputs: dict[LoopStep, ProposeOutput | TrainOutput | EvaluateOutput | FeedbackOutput] = {
            "propose": proposal,
            "train": TrainOutput(kind="full", weights=weights),
            "evaluate": EvaluateOutput(vs_base=DELTA),
            "feedback": FeedbackOutput(status="accepted", reason="r", new_parent=True),
        }
        for step, output in outputs.items():
            if not ctx.journal.is_done(loop, step):
                ctx.journal.finish_step(
                    loop, cast("LoopStep", step), output, started_utc=utc_now(), wall_s=0.1
                )
    return ctx, refusing


def test_every_opening_is_on_disk_before_the_job(tmp_path: Path) -> None:
    ctx, refusing = evaluated_run(tmp_path, (0,))
    opened = [("heldout", "test", 0), ("gsm8k", "test", 0)]
    for _ in range(2):  # the claim fails, and a resume tries it again
        with pytest.raises(JobError, match="could not be scored"):
            claim(ctx, 0)
    assert refusing.looks_at_submit
    assert all(found == opened for found in refusing.looks_at_submit), "and the same look is no second one"
    ctx.journal.close()
    assert verify_looks(ctx.run_dir / "run.db") == []


def test_the_claim_of_another_loop_opens_them_again(tmp_path: Path) -> None:
    ctx, _ = evaluated_run(tmp_path, (0, 1))
    for loop in (0, 1):
        with pytest.raises(JobError):
            claim(ctx, loop)
    ctx.journal.close()
    found = looks(ctx.run_dir / "run.db")
    assert [look for look in found if look[0] == "gsm8k"] == [("gsm8k", "test", 0), ("gsm8k", "test", 1)]
    assert [look for look in found if look[0] == "heldout"] == [
        ("heldout", "test", 0),
        ("heldout", "test", 1),
    ]


def test_a_benchmark_that_is_gone_opens_nothing(tmp_path: Path) -> None:
    ctx, refusing = evaluated_run(tmp_path, (0,))
    (tmp_path / "benchmarks" / "gsm8k" / "test.jsonl").unlink()
    with pytest.raises(JobError, match="gone now"):
        claim(ctx, 0)
    ctx.journal.close()
    assert refusing.looks_at_submit == []
    assert looks(ctx.run_dir / "run.db") == []
