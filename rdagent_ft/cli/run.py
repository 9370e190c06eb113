"""`rdagent-ft run`: start a run, or go on with one (`--resume`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdagent_ft.cli.options import AsJson, EnvFile, Executor, LoopN, MaxCost, Planner, StepN, Timeout
from rdagent_ft.errors import UserError


def run(
    dataset: Annotated[
        str | None,
        typer.Option(help="Hub id org/name[:subset], a local file or folder, or a name under datasets/."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--base-model",
            "--base_model",
            help="Hub id or local folder; without it the largest listed model that fits is chosen.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmarks reported beside the target: gsm8k,aime24,…")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Map other columns: prompt=text,completion=category.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe (JSON or YAML) that loop 0 trains instead of the default.")
    ] = None,
    preferences: Annotated[
        str | None,
        typer.Option(help="Preference pairs for dpo, kto and reward stages: a hub id, file, folder or name."),
    ] = None,
    loop_n: LoopN = None,
    step_n: StepN = None,
    timeout: Timeout = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run id, or `latest`.")] = None,
    executor: Executor = None,
    planner: Planner = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of splits, planner and shuffles.")] = None,
    max_cost: MaxCost = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Propose, train, score and learn until a bound; hand over the best model and a true claim."""
    from rdagent_ft.cli.invocation import RunOptions, resume_and_show, start_and_show

    options = RunOptions(
        loop_n=loop_n,
        step_n=step_n,
        timeout=timeout,
        overrides={"executor": executor, "planner": planner, "seed": seed, "max_cost": max_cost},
        env_file=env_file,
        as_json=as_json,
    )
    if resume is not None:
        if dataset or model or recipe or columns or benchmark or preferences:
            raise UserError(
                "--resume goes on with a run as it was asked for: it takes no --dataset, --model, "
                "--benchmark, --columns, --recipe or --preferences"
            )
        resume_and_show(resume, options)
        return
    if dataset is None:
        raise UserError(
            "--dataset is missing", hint="name a hub id, a local file or folder; `rdagent-ft demo` needs none"
        )
    start_and_show(dataset, model, benchmark, columns, recipe, options, preferences)
