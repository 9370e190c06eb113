"""What scorers need from outside, as this run can give it: containers for code, data of the checkers."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.bounds import StopRun
from rdagent_ft.engine.context import RunContext
from rdagent_ft.evaluation.code.run_code import code_runner
from rdagent_ft.evaluation.ifeval_answers import find_nltk_data
from rdagent_ft.evaluation.outside import Outside


def outside_of(ctx: RunContext, out_root: Path) -> Outside:
    """Return the helpers of scorers. Code is run in containers only: the local executor gives none."""

    def stop_when_asked() -> None:
        if ctx.stop.number is not None:
            raise StopRun("interrupted")
        if ctx.clock.expired(ctx.reserve_s):
            raise StopRun("timeout")

    run_code = None
    if ctx.executor.name != "local":
        run_code = code_runner(
            ctx.executor,
            out_root / "code",
            name=f"{ctx.run_id}-code",
            deadline_unix=ctx.clock.deadline_unix(ctx.settings.benchmark_timeout, ctx.reserve_s),
            labels={"run": ctx.run_id, "run_dir": str(ctx.run_dir), "stage": "code"},
            between_polls=stop_when_asked,
        )
    return Outside(
        run_code=run_code,
        nltk_data=find_nltk_data(ctx.settings.file_path),
        grade=None if ctx.judging is None else ctx.judging.grader,
    )
