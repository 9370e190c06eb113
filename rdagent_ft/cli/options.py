"""Options that several verbs share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LoopN = Annotated[
    int | None,
    typer.Option("--loop_n", "--loop-n", min=0, help="Loops of the whole run; unbounded without it."),
]
StepN = Annotated[
    int | None,
    typer.Option("--step_n", "--step-n", min=0, help="Steps in this invocation (five make a loop)."),
]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", "--all-duration", help="Time for this invocation: 2h, 90m, 1h30m or seconds."),
]
Planner = Annotated[str | None, typer.Option("--planner", help="Who proposes: auto, llm, tpe or random.")]
Executor = Annotated[str | None, typer.Option("--executor", help="Where jobs run: docker or local.")]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", "--max_cost", min=0, help="Dollars for LLM calls.")
]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="File with FT_ settings instead of ./.env.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON document on stdout; the rest goes to stderr.")
]
