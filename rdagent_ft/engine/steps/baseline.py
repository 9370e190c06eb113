"""Set-up step 2: score the base model on dev and val; cached by fingerprint across runs.

Val is answered twice, the second time in other batches (an A/A comparison): what differs is noise of the
engine, below which no candidate's difference means anything.
"""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.scoring import base_again, base_model, keep_samples, score_models, score_of, split_task
from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.base_cache import base_fingerprint, installed_versions, load_cached, store_cached
from rdagent_ft.evaluation.error_classes import count_errors
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.reporting.records import HF, SETUP_LOOP, VLLM, BaselineOutput
from rdagent_ft.values import sha256_file


def baseline(ctx: RunContext) -> BaselineOutput:
    """Return the base model's scores. Raises `JobError` when it cannot be scored: nothing can go on."""
    prepared = ctx.prepared
    _refuse_undecided_judge(ctx)
    tasks = (split_task(ctx, "val"), split_task(ctx, "dev"))
    versions = installed_versions() | {"device": prepared.device}
    versions |= _server_versions(ctx)
    fingerprint = base_fingerprint(
        prepared.model.fingerprint,
        tasks,
        prepared.prompt_format,
        {task.split: sha256_file(task.items_file) for task in tasks},
        versions,
    )
    cache_dir = ctx.settings.file_path / "cache" / "eval"
    cached = load_cached(cache_dir, fingerprint)
    seconds = 0.0
    samples: dict[tuple[str, str, str], list[SampleRow]]
    if cached is not None:
        samples = cached
    else:
        scored = score_models(
            ctx,
            SETUP_LOOP,
            "baseline",
            (base_model(ctx), base_again(ctx)),
            tasks,
            ctx.run_dir / "baseline" / "eval" / "job",
            must_succeed=True,
        )
        if scored.failure is not None:
            raise JobError(
                f"the base model could not be scored: {scored.failure.message} "
                f"[{scored.failure.failure_class}]",
                hint=scored.failure.fix,
            )
        samples, seconds = scored.samples, scored.seconds
        store_cached(cache_dir, fingerprint, samples)
    for (role, _, _), rows in samples.items():
        keep_samples(ctx.run_dir / "baseline" / ("eval" if role == "base" else "again"), rows)
    val_task, dev_task = tasks
    val_key = val_task.benchmark, "val"
    return BaselineOutput(
        val=score_of(samples, "base", val_task),
        dev=score_of(samples, "base", dev_task),
        dev_errors=count_errors(prepared.scorer, samples["base", dev_task.benchmark, "dev"]),
        fingerprint=fingerprint,
        from_cache=cached is not None,
        eval_s=seconds,
        engine=HF if ctx.warm is None else VLLM,
        again=compare(
            samples["base", *val_key], samples["again", *val_key], margin=ctx.settings.equivalence_margin
        ),
    )


def _server_versions(ctx: RunContext) -> dict[str, str]:
    """Start the server and return its packages' versions; {} without one.

    With FT_SERVING=auto a model that cannot be served is scored in jobs instead, and the run says so: no
    answer was given yet, so nothing is mixed. Raises `ServerError` and `PreflightError` where a server
    was asked for.
    """
    if ctx.warm is None:
        return {}
    model = ctx.prepared.model
    try:
        server = ctx.warm.of(Path(model.path), max_positions=model.max_positions, device=ctx.prepared.device)
    except (ServerError, PreflightError) as error:
        if ctx.settings.serving != "auto":
            raise
        rules = "; ".join(problem.rule for problem in error.problems)
        ctx.progress.notice(
            f"{error.message}{f' ({rules})' if rules else ''}: scores come from a job for each model"
        )
        ctx.warm.close()
        ctx.warm = None
        return {}
    return {f"server {name}": number for name, number in server.versions().items()}


def _refuse_undecided_judge(ctx: RunContext) -> None:
    """Raise `PreflightError` when a judge that passed no gate would decide which recipe leads."""
    if ctx.prepared.scorer != "rubric" or ctx.judging is None:
        return
    calibration = ctx.judging.calibration()
    if not calibration.passed:
        raise PreflightError(
            f"the target is scored by a judge that did not pass its gate ({calibration.status}): "
            f"{'; '.join(calibration.reasons)}",
            hint="name another FT_JUDGE_MODEL, put labelled pairs where docs/evaluation.md says, or choose "
            "a target with a rule",
        )
