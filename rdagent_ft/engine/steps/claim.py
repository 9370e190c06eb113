"""Closing step 1: open the sealed test split for the best model, once, and claim what it shows.

The look is written down before the job starts: a crash cannot hide an opening. Base and tuned are
scored in the same job on the same items. Reported benchmarks ride along as guards, and are looked at and
written down like the test: each says whether a loss beyond the margin is excluded.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.journal import Look
from rdagent_ft.engine.judging import JUDGED_SCORERS
from rdagent_ft.engine.scoring import (
    base_model,
    benchmark_task,
    keep_samples,
    score_models,
    score_of,
    split_task,
    tuned_model,
)
from rdagent_ft.engine.steps.clean import clean_subset
from rdagent_ft.engine.steps.decoding import PLAIN, tune_decoding
from rdagent_ft.engine.steps.seeds import train_seeds
from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.benchmarks import find_benchmark, load_items
from rdagent_ft.evaluation.guards import judge_guards
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.port import EvalModel, EvalTask
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.score import Samples, question_text
from rdagent_ft.evaluation.seeds import SeedsComparison, compare_seeds
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.reporting.records import (
    ClaimOutput,
    EvaluateOutput,
    FeedbackOutput,
    JudgedBenchmark,
    ProposeOutput,
    ReportedBenchmark,
    SeedTraining,
    TrainOutput,
)


def claim(ctx: RunContext, loop: int) -> ClaimOutput:
    """Return the claim for `loop`. Raises `JobError` when the test split could not be scored."""
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    trained = ctx.journal.output(loop, "train", TrainOutput)
    evaluated = ctx.journal.output(loop, "evaluate", EvaluateOutput)
    verdict = ctx.journal.output(loop, "feedback", FeedbackOutput)
    assert proposal is not None
    assert proposal.recipe is not None
    assert trained is not None
    assert verdict is not None
    assert evaluated is not None
    assert evaluated.vs_base is not None
    recipe_hash = proposal.recipe_hash or ""
    seeds = train_seeds(ctx, loop, proposal.recipe)
    decoding = tune_decoding(ctx, loop, trained, recipe_hash) if ctx.settings.tune_decoding else {}
    test_task = split_task(ctx, "test")
    tasks = (test_task, *_reported_tasks(ctx))
    opening = _open(ctx, loop, recipe_hash, tasks)
    samples, seconds = _score(ctx, loop, trained, seeds, decoding, tasks)
    margin = ctx.settings.equivalence_margin
    target = _pair(samples, test_task, margin)
    over_seeds = _over_seeds(samples, test_task, seeds, proposal.recipe.first_stage.seed, margin)
    comparison = target.comparison if over_seeds is None else over_seeds.comparison
    reported = {task.benchmark: _pair(samples, task, margin) for task in tasks[1:]}
    return ClaimOutput(
        loop=loop,
        recipe_hash=recipe_hash,
        accepted=verdict.new_parent,
        base=target.base,
        tuned=target.tuned,
        comparison=comparison,
        val_delta=evaluated.vs_base.delta,
        optimism=evaluated.vs_base.delta - comparison.delta,
        opening=opening,
        reported=reported,
        own=None if over_seeds is None else target.comparison,
        seeds=_seed_records(seeds, over_seeds),
        clean=clean_subset(ctx, loop, proposal.recipe, samples, test_task),
        decoding=decoding,
        plain=_plain_comparison(samples, test_task, margin),
        judged=_judged(ctx, samples, tasks, margin),
        guards=judge_guards(
            {name: pair.comparison for name, pair in reported.items()}, ctx.settings.guard_margin
        ),
        eval_s=seconds,
    )


def _open(ctx: RunContext, loop: int, recipe_hash: str, tasks: tuple[EvalTask, ...]) -> int:
    """Write down the look at the test and at every reported benchmark; return the test's openings so far."""
    openings = [
        ctx.journal.look(
            Look(
                benchmark=task.benchmark,
                split=task.split,
                loop=loop,
                recipe_hash=recipe_hash,
                purpose="claim",
            )
        )
        for task in tasks
    ]
    return openings[0]


def _score(
    ctx: RunContext, loop: int, trained: TrainOutput, seeds: dict[int, TrainOutput],
    decoding: dict[str, float], tasks: tuple[EvalTask, ...],
) -> tuple[Samples, float]:  # fmt: skip
    models = _models(ctx, trained, seeds, decoding, tasks[0])
    folder = ctx.loop_dir(loop) / "eval"
    scored = score_models(ctx, loop, "claim", models, tasks, folder / "claim-job", must_succeed=True)
    if scored.failure is not None:
        raise JobError(
            f"the test split could not be scored: {scored.failure.message} [{scored.failure.failure_class}]",
            hint="`rdagent-ft resume` tries the claim again",
        )
    places = {"base": ctx.run_dir / "baseline" / "eval", "tuned": folder}
    places |= {f"seed-{seed}": ctx.loop_dir(loop) / "seeds" / str(seed) / "eval" for seed in seeds}
    for (role, _, _), rows in scored.samples.items():
        keep_samples(places.get(role, ctx.loop_dir(loop) / "decoding" / role), rows)
    return scored.samples, scored.seconds


def _models(
    ctx: RunContext, trained: TrainOutput, seeds: dict[int, TrainOutput], decoding: dict[str, float],
    target: EvalTask,
) -> tuple[EvalModel, ...]:  # fmt: skip
    """Return base and tuned with their decoding, further trainings, and both in the plain protocol."""
    alone = {"only": ((target.benchmark, target.split),)}
    pair = (base_model(ctx), tuned_model(ctx, trained))
    main = [model.model_copy(update={"repetition_penalty": decoding.get(model.role)}) for model in pair]
    others = [
        tuned_model(ctx, output, f"seed-{seed}").model_copy(
            update={**alone, "repetition_penalty": decoding.get("tuned")}
        )
        for seed, output in seeds.items()
        if output.failure is None
    ]
    plain = [model.model_copy(update={**alone, "role": f"{model.role}-plain"}) for model in pair]
    changed = any(penalty != PLAIN for penalty in decoding.values())
    return (*main, *others, *(plain if changed else ()))


def _plain_comparison(samples: Samples, task: EvalTask, margin: float) -> Comparison | None:
    base = samples.get(("base-plain", task.benchmark, task.split))
    tuned = samples.get(("tuned-plain", task.benchmark, task.split))
    return None if base is None or tuned is None else compare(base, tuned, margin=margin)


def _over_seeds(
    samples: Samples, task: EvalTask, seeds: dict[int, TrainOutput], first: int, margin: float
) -> SeedsComparison | None:
    """Return base against all trainings of the recipe; None when there is only the selected one."""
    rows = {
        seed: samples[f"seed-{seed}", task.benchmark, task.split]
        for seed, output in seeds.items()
        if output.failure is None
    }
    if not rows:
        return None
    tuned = {first: samples["tuned", task.benchmark, task.split], **rows}
    return compare_seeds(samples["base", task.benchmark, task.split], tuned, margin=margin)


def _seed_records(
    seeds: dict[int, TrainOutput], compared: SeedsComparison | None
) -> tuple[SeedTraining, ...]:
    deltas = {} if compared is None else compared.deltas
    return tuple(
        SeedTraining(
            seed=seed,
            weights=output.weights,
            weights_sha256=output.weights_sha256,
            train_s=output.train_s,
            delta=deltas.get(seed),
            failure=output.failure,
        )
        for seed, output in seeds.items()
    )


def _judged(
    ctx: RunContext, samples: Samples, tasks: tuple[EvalTask, ...], margin: float
) -> dict[str, JudgedBenchmark]:
    """Let the judge look at what the rules rejected, on both sides; {} without a judge."""
    if ctx.judging is None:
        return {}
    return {
        task.benchmark: ctx.judging.judged(
            samples["base", task.benchmark, task.split],
            samples["tuned", task.benchmark, task.split],
            {item.item_id: question_text(item) for item in read_items(task.items_file, task.n_items)},
            margin=margin,
            tuned_names=(ctx.prepared.model.name, ctx.prepared.model.architecture),
        )
        for task in tasks
        if task.scorer in JUDGED_SCORERS
    }


def _reported_tasks(ctx: RunContext) -> tuple[EvalTask, ...]:
    tasks: list[EvalTask] = []
    for name in ctx.prepared.reported_benchmarks:
        found = find_benchmark(name, ctx.settings.file_path)
        if found is None:
            raise JobError(f"benchmark {name!r} was there when the run began and is gone now")
        rows = load_items(found, ctx.settings.benchmark_limit, ctx.settings.seed)
        tasks.append(benchmark_task(ctx, found, rows))
    return tuple(tasks)


def _pair(samples: Samples, task: EvalTask, margin: float) -> ReportedBenchmark:
    base = samples["base", task.benchmark, task.split]
    tuned = samples["tuned", task.benchmark, task.split]
    return ReportedBenchmark(
        base=score_of(samples, "base", task),
        tuned=score_of(samples, "tuned", task),
        comparison=compare(base, tuned, margin=margin),
    )
