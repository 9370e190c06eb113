"""Scoring models in one job: what baseline, evaluate and claim share.

All three ask the same harness the same way, so that base and tuned are scored under one protocol and
differ in nothing but the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdagent_ft.data.rows import Row, SplitName
from rdagent_ft.data.write import read_row_file, write_eval_items
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.outside import outside_of
from rdagent_ft.engine.served import Asked, ask_served
from rdagent_ft.errors import JobError, PreflightError, RdagentFtError
from rdagent_ft.evaluation.benchmarks import FoundBenchmark
from rdagent_ft.evaluation.lm_eval_harness import adapters_without_effect
from rdagent_ft.evaluation.port import EvalModel, EvalRequest, EvalTask
from rdagent_ft.evaluation.rows import SampleRow, Score
from rdagent_ft.evaluation.sample_files import write_samples
from rdagent_ft.evaluation.score import Samples, refuse_missing, score_request
from rdagent_ft.evaluation.statistics import summarise
from rdagent_ft.execution.outputs import clean_text, read_log
from rdagent_ft.reporting.records import StepName, TrainOutput
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.training.failures import MAX_MESSAGE_CHARS, classify
from rdagent_ft.training.plan import read_failure

EVAL_BATCH_CPU = 64
EVAL_BATCH_GPU = 64


class Scored(NamedTuple):
    """What a scoring job left: the rows, or why there are none."""

    samples: Samples
    seconds: float
    failure: Failure | None


def split_task(ctx: RunContext, split: SplitName) -> EvalTask:
    """Return the target benchmark's task for one split; its rendered items are written once."""
    prepared = ctx.prepared
    return _task(
        ctx, prepared.target_benchmark, split, read_row_file(ctx.run_dir / "data" / f"{split}.jsonl")
    )


def benchmark_task(ctx: RunContext, found: FoundBenchmark, rows: list[Row]) -> EvalTask:
    """Return the task of a reported benchmark."""
    path = _items_path(ctx, found.benchmark.name, "test")
    write_eval_items(path, rows, ctx.text_encoder, ctx.prepared.prompt_format)
    return EvalTask(
        benchmark=found.benchmark.name,
        split="test",
        items_file=path,
        n_items=len(rows),
        scorer=found.benchmark.scorer,
        method=found.benchmark.method,
        max_new_tokens=min(found.benchmark.max_new_tokens, ctx.prepared.model.max_positions // 2),
    )


def tuned_model(ctx: RunContext, trained: TrainOutput, role: str = "tuned") -> EvalModel:
    """Return the candidate as the harness needs it: base plus adapter, or the trained weights."""
    assert trained.weights is not None
    weights = ctx.run_dir / trained.weights
    base = Path(ctx.prepared.model.path)
    if trained.kind == "lora":
        return EvalModel(role=role, path=base, adapter=weights)
    return EvalModel(role=role, path=weights)


def base_model(ctx: RunContext) -> EvalModel:
    """Return the base model as the harness needs it."""
    return EvalModel(role="base", path=Path(ctx.prepared.model.path))


def base_again(ctx: RunContext) -> EvalModel:
    """Return the base model asked about val once more, in batches of another size."""
    return base_model(ctx).model_copy(
        update={
            "role": "again",
            "only": ((ctx.prepared.target_benchmark, "val"),),
            "batch_size": _batch_size(ctx) // 2,
        }
    )


def score_models(
    ctx: RunContext, loop: int, step: StepName, models: tuple[EvalModel, ...], tasks: tuple[EvalTask, ...],
    out_root: Path, *, part: str = "", must_succeed: bool = False,
) -> Scored:  # fmt: skip
    """Score models x tasks in one job. A failure of the job is returned, not raised.

    `part` names the job where a step has several. `must_succeed`: a failure of an earlier invocation is
    tried again (set-up and closing).
    """
    request = EvalRequest(
        models=models,
        tasks=tasks,
        prompt_format=ctx.prepared.prompt_format,
        batch_size=_batch_size(ctx),
        device=ctx.prepared.device,
    )
    outside = outside_of(ctx, out_root)
    try:
        refuse_missing(tasks, outside)
    except JobError as error:
        return Scored({}, 0.0, _incomplete(error))
    if ctx.warm is None:
        asked = _ask_in_job(ctx, loop, step, request, out_root, part, must_succeed=must_succeed)
    else:
        asked = ask_served(ctx, loop, step, request, out_root, part)
    if asked.failure is not None:
        return Scored({}, asked.seconds, asked.failure)
    try:
        return Scored(score_request(request, asked.answers, outside), asked.seconds, None)
    except (JobError, PreflightError) as error:
        return Scored({}, asked.seconds, _incomplete(error))


def _ask_in_job(
    ctx: RunContext, loop: int, step: StepName, request: EvalRequest, out_root: Path, part: str,
    *, must_succeed: bool,
) -> Asked:  # fmt: skip
    """Ask all models of the request in one job, with lm-eval's hf backend."""
    models = request.models
    inputs = {f"model-{index}": model.path for index, model in enumerate(models)}
    inputs |= {f"adapter-{index}": m.adapter for index, m in enumerate(models) if m.adapter is not None}
    outcome = run_job(
        ctx,
        loop,
        step,
        JobRequest(
            kind="evaluate",
            out_root=out_root,
            inputs=inputs | {"items": ctx.run_dir / "data" / "items"},
            limit_s=ctx.settings.benchmark_timeout,
            metrics_name="progress.jsonl",
            needs_gpu=ctx.prepared.device == "cuda",
            part=part,
            must_succeed=must_succeed,
        ),
        lambda out_dir, _previous: ctx.harness.prepare(request, out_dir),
    )
    asked = _read(ctx, request, outcome)
    if asked.failure is not None:
        ctx.executor.forget(outcome.result)
    return asked


def keep_samples(folder: Path, rows: list[SampleRow]) -> None:
    """Write the rows of one benchmark split where a person finds them: `<benchmark>-<split>/`."""
    write_samples(folder / f"{rows[0].benchmark}-{rows[0].split}" / "samples.jsonl", rows)


def score_of(samples: Samples, role: str, task: EvalTask) -> Score:
    """Return the Score of one model on one task."""
    return summarise(samples[role, task.benchmark, task.split], scorer=task.scorer, n_expected=task.n_items)


def _batch_size(ctx: RunContext) -> int:
    return EVAL_BATCH_GPU if ctx.prepared.device == "cuda" else EVAL_BATCH_CPU


def _read(ctx: RunContext, request: EvalRequest, outcome: JobOutcome) -> Asked:
    seconds = outcome.result.ended_unix - outcome.result.started_unix
    failure = classify(
        read_log(outcome.log),
        result=outcome.result,
        failure_json=read_failure(outcome.out_dir),
    )
    if failure is not None:
        return Asked({}, seconds, failure)
    try:
        without_effect = adapters_without_effect(outcome.out_dir)
        if without_effect:
            message = f"the adapter of {', '.join(without_effect)} changes no output on the canary prompts"
            return Asked(
                {},
                seconds,
                Failure(failure_class="eval.adapter_no_effect", blame="candidate", message=message),
            )
        return Asked(ctx.harness.parse(request, outcome.out_dir), seconds, None)
    except JobError as error:
        return Asked({}, seconds, _incomplete(error))


def _incomplete(error: RdagentFtError) -> Failure:
    """Return an error as a failure; its message may quote what a job wrote."""
    problems = "; ".join(f"{problem.rule} ({problem.fix})" for problem in error.problems)
    message = f"{error.message}: {problems}" if problems else error.message
    return Failure(
        failure_class="eval.incomplete",
        blame="environment",
        message=clean_text(message)[:MAX_MESSAGE_CHARS],
        fix=error.hint,
    )


def _task(ctx: RunContext, benchmark: str, split: SplitName, rows: list[Row]) -> EvalTask:
    path = _items_path(ctx, benchmark, split)
    write_eval_items(path, rows, ctx.text_encoder, ctx.prepared.prompt_format)
    return EvalTask(
        benchmark=benchmark,
        split=split,
        items_file=path,
        n_items=len(rows),
        scorer=ctx.prepared.scorer,
        method=ctx.prepared.method,
        max_new_tokens=ctx.prepared.max_new_tokens,
    )


def _items_path(ctx: RunContext, benchmark: str, split: SplitName) -> Path:
    return ctx.run_dir / "data" / "items" / f"{benchmark}-{split}.jsonl"
