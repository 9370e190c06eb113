"""`rdagent-ft demo`: a whole run on a task and a base model that the program generates itself."""

from __future__ import annotations

from typing import Annotated

import typer

from rdagent_ft.cli.options import AsJson, EnvFile, Executor, Planner, StepN, Timeout


def demo(
    loop_n: Annotated[int, typer.Option("--loop_n", "--loop-n", min=0, help="Loops of the run.")] = 3,
    step_n: StepN = None,
    timeout: Timeout = None,
    executor: Executor = None,
    planner: Planner = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Generate a router task and a tiny base model, then run three loops on them on the CPU.

    Jobs run as local subprocesses unless `--executor docker` is given: the demo trains nothing that an
    LLM wrote, and needs no engine.
    """
    from rdagent_ft.cli.demo_assets import make_demo_assets
    from rdagent_ft.cli.invocation import RunOptions, start_and_show

    options = RunOptions(
        loop_n=loop_n,
        step_n=step_n,
        timeout=timeout,
        overrides={"planner": planner, "executor": executor or "local", "allow_cpu": True},
        env_file=env_file,
        as_json=as_json,
    )
    dataset, model = make_demo_assets(options)
    start_and_show(dataset, model, None, None, None, options)
