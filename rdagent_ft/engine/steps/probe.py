"""Rung V5: three real steps of a stage on its longest rows, where memory or time cannot be told otherwise.

Finds the true peak and the true speed of this device before a training that may take hours. What runs out
of memory is tried again with the fixes that keep the task, and the training then begins with them. Later
stages of a chain start from weights that do not exist yet: the base model, which has the same sizes,
stands in. Not probed: pairs that are sampled from such weights, a `grpo` stage that asks a reward model of
the same recipe, and LLaMA-Factory, which has no such job.
"""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.jobs import JobOutcome, JobRequest, run_job
from rdagent_ft.engine.steps.stage_data import StageData, known_data
from rdagent_ft.engine.steps.stage_job import (
    CHECKPOINTS,
    StageInputs,
    input_folders,
    render_config,
    stage_folder,
    write_profile,
)
from rdagent_ft.errors import JobError
from rdagent_ft.execution.outputs import read_log
from rdagent_ft.recipe.admission import usable_gib
from rdagent_ft.recipe.calibration import HIGH, calibrate
from rdagent_ft.recipe.forecast import measured_throughput, speed_for
from rdagent_ft.recipe.learnt import FailedTry, failed_try
from rdagent_ft.recipe.resources import device_gib, stage_memory
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyPreferenceStage, AnyTrainedStage, GrpoStage
from rdagent_ft.reporting.stage_records import Failure, StageProbe
from rdagent_ft.training.failures import classify
from rdagent_ft.training.plan import read_failure, shared_argv
from rdagent_ft.training.probe_plan import ProbeResult, probe_argv, read_probe_result
from rdagent_ft.training.repair import RepairFacts, neutral_fix
from rdagent_ft.values import write_atomic

MIN_LEFT_S = 1_200.0
"""With less time left a probe, which takes about a minute, would cost more than it can save."""
METRICS_NAME = "probe-metrics.jsonl"


def probe_stages(ctx: RunContext, loop: int, recipe: Recipe, facts: RuleFacts) -> tuple[StageProbe, ...]:
    """Probe every stage that needs it, in order; ends with the first one that cannot be trained.

    Raises `StopRun` when the run has to stop meanwhile.
    """
    done: list[StageProbe] = []
    for place, stage in recipe.trained_stages:
        why = why_probed(ctx, recipe, place, facts)
        if why is None or not _can_be_probed(ctx, stage):
            continue
        data = known_data(ctx, loop, stage)
        if isinstance(data, Failure):
            continue  # the step itself says so
        ctx.progress.notice(f"{stage.kind}: three steps on the longest rows first, because {why}")
        probe = _probe(ctx, loop, recipe, place, data, facts)
        done.append(probe.model_copy(update={"why": why}))
        if probe.failure is not None:
            break
        facts = with_probe(facts, probe)
    return tuple(done)


def why_probed(ctx: RunContext, recipe: Recipe, place: int, facts: RuleFacts) -> str | None:
    """Return what cannot be told of a stage without trying it, or None."""
    wish = ctx.settings.probe
    estimate, limit = stage_memory(recipe, place, facts), device_gib(facts)
    if wish == "never" or estimate is None:
        return None
    is_unmeasured = estimate.calibration is None
    if wish == "always" and is_unmeasured:
        return "FT_PROBE is always"
    if is_unmeasured and limit is not None and estimate.total_gib * HIGH > usable_gib(estimate, limit):
        return (
            f"the forecast of {estimate.total_gib:.1f} GiB may miss by a factor of {HIGH:g} and "
            f"{limit:.1f} GiB are there"
        )
    left = facts.remaining_s
    if left is not None and left >= MIN_LEFT_S and speed_for(estimate.stage_kind, facts.speeds) is None:
        return f"{left:,.0f} s are left and no {estimate.stage_kind} training has been measured"
    return None


def with_probe(facts: RuleFacts, probe: StageProbe) -> RuleFacts:
    """Return the facts with what a probe measured."""
    factors = () if probe.factor is None else (probe.factor,)
    speeds = () if probe.speed is None else (probe.speed,)
    return facts.model_copy(
        update={
            "memory_factors": (*facts.memory_factors, *factors),
            "speeds": (*facts.speeds, *speeds),
        }
    )


def fitted(recipe: Recipe, probes: tuple[StageProbe, ...]) -> Recipe:
    """Return the recipe as its trainings begin: with the fixes that its probes needed."""
    stages = {probe.number - 1: probe.stage for probe in probes if probe.stage is not None}
    if not stages:
        return recipe
    changed = tuple(stages.get(place, stage) for place, stage in enumerate(recipe.stages))
    return recipe.model_copy(update={"stages": changed})


def _can_be_probed(ctx: RunContext, stage: AnyTrainedStage) -> bool:
    if ctx.settings.trainer != "trl":
        return False
    if isinstance(stage, AnyPreferenceStage):
        return stage.pairs == "given"
    return not (isinstance(stage, GrpoStage) and any(r.kind == "reward_model" for r in stage.rewards))


def _probe(
    ctx: RunContext, loop: int, recipe: Recipe, place: int, data: StageData, facts: RuleFacts
) -> StageProbe:
    """Run the job, with one neutral fix more each time it runs out of memory."""
    stage = recipe.stages[place]
    assert stage.kind != "merge"
    repairs, tries, seconds = list[str](), list[FailedTry](), 0.0
    while True:
        tried = recipe.model_copy(
            update={"stages": (*recipe.stages[:place], stage, *recipe.stages[place + 1 :])}
        )
        outcome = _run(ctx, loop, tried, place, data, n_fixes=len(repairs))
        seconds += outcome.result.ended_unix - outcome.result.started_unix
        found = _result(outcome)
        probe = StageProbe(
            number=place + 1,
            kind=stage.kind,
            why="",
            repairs=tuple(repairs),
            stage=stage if repairs else None,
            seconds=round(seconds, 2),
        )
        if isinstance(found, ProbeResult):
            return _measured(probe, tried, stage, found, facts).model_copy(update={"tries": tuple(tries)})
        ctx.executor.forget(outcome.result)
        tries.append(failed_try(stage, found.failure_class))
        fix = neutral_fix(stage, found.failure_class, RepairFacts(device=ctx.prepared.device))
        if fix is None:
            return probe.model_copy(update={"failure": found, "tries": tuple(tries)})
        ctx.progress.notice(f"{stage.kind}: {found.failure_class}; once more with {fix.words}")
        repairs.append(fix.words)
        stage = fix.stage


def _run(
    ctx: RunContext, loop: int, recipe: Recipe, place: int, data: StageData, *, n_fixes: int
) -> JobOutcome:
    stage = recipe.stages[place]
    assert stage.kind != "merge"
    name = f"probe-{stage_folder(place + 1, stage.kind)}" + (f"-fix{n_fixes}" if n_fixes else "")
    base, folder = Path(ctx.prepared.model.path), ctx.loop_dir(loop)
    text, _ = render_config(ctx, recipe, place + 1, model=base, train_file=data.file, n_rows=data.n_rows)
    config = folder / "files" / f"{name}.yaml"
    write_atomic(config, text)
    folders, rewards = input_folders(ctx, stage, StageInputs(base, data), config)
    shared = write_profile(ctx, config)
    if shared is not None:
        folders["accelerate"] = shared

    def prepare(out_dir: Path, previous: Path | None) -> tuple[str, ...]:
        argv = probe_argv(stage.kind, config, rewards=rewards)
        return argv if shared is None else shared_argv(argv, shared)

    request = JobRequest(
        kind="train",
        out_root=folder / "probes" / name.removeprefix("probe-"),
        part=name,
        inputs=folders,
        limit_s=ctx.settings.debug_timeout,
        metrics_name=METRICS_NAME,
        needs_gpu=ctx.prepared.device == "cuda",
        scratch=(CHECKPOINTS,),
    )
    return run_job(ctx, loop, "code", request, prepare)


def _result(outcome: JobOutcome) -> ProbeResult | Failure:
    failure = classify(
        read_log(outcome.log), result=outcome.result, failure_json=read_failure(outcome.out_dir)
    )
    if failure is not None:
        return failure
    try:
        return read_probe_result(outcome.out_dir)
    except JobError as error:
        return Failure(failure_class="train.no_result", blame="environment", message=error.message)


def _measured(
    probe: StageProbe, recipe: Recipe, stage: AnyTrainedStage, found: ProbeResult, facts: RuleFacts
) -> StageProbe:
    """Return the probe with its factor and speed. The forecast is made for the rows that were trained."""
    plain = facts.model_copy(update={"memory_factors": ()})
    estimate = stage_memory(recipe, probe.number - 1, plain, longest_row_tokens=found.longest_row_tokens)
    assert estimate is not None  # a stage without an estimate is not probed
    assert facts.shape is not None
    speed = None
    if found.tokens_per_s is not None and found.n_tokens:
        tokens_per_row = found.longest_row_tokens or found.n_tokens / found.n_rows
        speed = measured_throughput(
            stage, facts.shape, n_tokens=found.tokens_per_s, seconds=1.0, tokens_per_row=tokens_per_row
        )
    return probe.model_copy(
        update={
            "peak_gib": found.peak_gib,
            "longest_row_tokens": found.longest_row_tokens,
            "factor": calibrate(estimate, found.peak_gib, model=facts.model or ""),
            "speed": speed,
        }
    )
