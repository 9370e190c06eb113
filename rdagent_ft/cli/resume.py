"""`rdagent-ft resume`: go on with a run at its first unfinished step."""

from __future__ import annotations

from typing import Annotated

import typer

from rdagent_ft.cli.options import AsJson, EnvFile, Executor, LoopN, MaxCost, Planner, StepN, Timeout


def resume(
    run: Annotated[str, typer.Argument(help="Run id, unique beginning of one, or `latest`.")] = "latest",
    loop_n: LoopN = None,
    step_n: StepN = None,
    timeout: Timeout = None,
    executor: Executor = None,
    planner: Planner = None,
    max_cost: MaxCost = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run. `--loop_n` counts the whole run and is kept from before when not given."""
    from rdagent_ft.cli.invocation import RunOptions, resume_and_show

    options = RunOptions(
        loop_n=loop_n,
        step_n=step_n,
        timeout=timeout,
        overrides={"executor": executor, "planner": planner, "max_cost": max_cost},
        env_file=env_file,
        as_json=as_json,
    )
    resume_and_show(run, options)
