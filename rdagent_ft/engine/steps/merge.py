"""A merge inside a recipe's chain: the adapter goes into the weights it was trained on, proven equal."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.install import MERGED
from rdagent_ft.engine.jobs import JobRequest, run_job
from rdagent_ft.engine.steps.chain_place import ChainPlace, Weights
from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.execution.weight_files import check_weights, combined_sha256
from rdagent_ft.reporting.stage_records import Failure, StageOutput
from rdagent_ft.training.failures import classify, hostile_output
from rdagent_ft.training.plan import merge_argv, read_failure, read_merge_result


def merge_weights(ctx: RunContext, place: ChainPlace, number: int, now: Weights) -> StageOutput:
    """Merge `now`'s adapter into its model; return where the whole weights are, or why there are none.

    The order rules see to it that there is an adapter.
    """
    assert now.adapter is not None
    base, adapter = now.model, now.adapter
    folder = place.stages / f"{number}-merge"
    request = JobRequest(
        kind="merge",
        out_root=folder,
        part=place.part(number, "merge"),
        inputs={"base": base, "weights": adapter},
        limit_s=ctx.settings.full_timeout,
        metrics_name=None,
    )
    outcome = run_job(
        ctx, place.loop, place.step, request,
        lambda _out_dir, _previous: merge_argv(base, Path(MERGED), adapter=adapter),
    )  # fmt: skip
    output = StageOutput(
        number=number,
        kind="merge",
        folder=ctx.relative(folder),
        parent=now.stage,
        attempts=outcome.n_attempts,
        train_s=outcome.result.ended_unix - outcome.result.started_unix,
    )
    failure = classify(
        read_log(outcome.log), result=outcome.result, failure_json=read_failure(outcome.out_dir)
    )
    if failure is not None:
        ctx.executor.forget(outcome.result)
        return output.model_copy(update={"failure": failure})
    try:
        merged = read_merge_result(outcome.out_dir)
        files = check_weights(outcome.out_dir, MERGED, base_model=base, kind="model")
    except JobError as error:
        return output.model_copy(update={"failure": hostile_output(error.message)})
    if not merged.is_equal:
        unequal = Failure(failure_class="chain.merge_numeric", blame="candidate", message=merged.words)
        return output.model_copy(update={"failure": unequal})
    return output.model_copy(
        update={
            "weights_kind": "model",
            "weights": ctx.relative(outcome.out_dir / MERGED),
            "weights_sha256": combined_sha256(files),
            "metrics": {"max_logit_diff": (merged.max_abs_diff, merged.max_abs_diff)},
        }
    )
