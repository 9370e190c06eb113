"""Closing step 2: hand over the best model: adapter, merged weights, card and `reproduce.sh`.

Only a model that leads by the selection rule is exported. `engine/install.py` moves it into place as
a whole, so that `export/` is always complete.
"""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.install import MERGED, Exported, install_export
from rdagent_ft.engine.jobs import JobRequest, run_job
from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.reporting.records import ExportOutput, TrainOutput
from rdagent_ft.training.failures import classify
from rdagent_ft.training.plan import merge_argv, read_failure, read_merge_result
from rdagent_ft.values import sha256_file


def export(ctx: RunContext, loop: int) -> ExportOutput:
    """Merge and move into `export/`. Raises `JobError` when the merged model is not the same model."""
    trained = ctx.journal.output(loop, "train", TrainOutput)
    assert trained is not None
    assert trained.weights is not None
    weights = ctx.run_dir / trained.weights
    adapter = weights if trained.kind == "lora" else None
    base = Path(ctx.prepared.model.path)
    outcome = run_job(
        ctx,
        loop,
        "export",
        JobRequest(
            kind="merge",
            out_root=ctx.loop_dir(loop) / "merge",
            inputs={"base": base, "weights": weights},
            limit_s=ctx.settings.full_timeout,
            must_succeed=True,
        ),
        lambda _out_dir, _previous: merge_argv(
            base, Path(MERGED), adapter=adapter, model=None if adapter is not None else weights
        ),
    )
    out_dir = outcome.out_dir
    failure = classify(read_log(outcome.log), result=outcome.result, failure_json=read_failure(out_dir))
    if failure is not None:
        raise JobError(f"the merge failed: {failure.message} [{failure.failure_class}]", hint=failure.fix)
    merged = read_merge_result(out_dir)
    if not merged.is_equal:
        raise JobError(merged.words)
    install_export(
        ctx.run_dir,
        Exported(
            loop=loop,
            out_dir=out_dir,
            base_model=base,
            weights=weights,
            is_adapter=adapter is not None,
            sha256=trained.weights_sha256,
        ),
    )
    return ExportOutput(
        adapter="export/adapter" if adapter is not None else None,
        merged="export/merged",
        max_logit_diff=merged.max_abs_diff,
        files={
            path.name: sha256_file(path)
            for path in sorted((ctx.run_dir / "export" / "merged").iterdir())
            if path.is_file()
        },
        seconds=outcome.result.ended_unix - outcome.result.started_unix,
    )


def link_best(ctx: RunContext, loop: int) -> None:
    """Point `best` at the loop's folder, atomically."""
    link = ctx.run_dir / "best"
    temporary = ctx.run_dir / ".best.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("loops") / f"{loop:03d}")
    temporary.replace(link)
