"""Training a recipe's stages one after the other, each from the weights of the one before.

A stage is one job, or a few where a neutral fix was needed; a merge is a job too. All are durable by
name, so that a resumed step goes on where it was. `stages/N-kind/manifest.json` says what a stage started
from and what it left. Weights that do not sit on the base model are merged at the end, so that scoring,
serving and export see an adapter on the base or whole weights, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.steps.chain_place import ChainPlace, Weights
from rdagent_ft.engine.steps.merge import merge_weights
from rdagent_ft.engine.steps.stage_data import stage_data
from rdagent_ft.engine.steps.stage_job import StageInputs, TrainedStageJob, train_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyTrainedStage, MergeStage
from rdagent_ft.reporting.records import CodeOutput, TrainOutput
from rdagent_ft.reporting.stage_records import Failure, StageOutput, StageProbe
from rdagent_ft.values import content_hash, write_json

MANIFEST_NAME = "manifest.json"


def train_chain(ctx: RunContext, recipe: Recipe, place: ChainPlace) -> TrainOutput:
    """Train every stage of `recipe`; return the last weights, or the first failure.

    A stage that was probed begins with the fixes that its probe needed. Raises `StopRun` when the run has
    to stop meanwhile: what is done is adopted by the next try.
    """
    coded = ctx.journal.output(place.loop, "code", CodeOutput)
    probes = {} if coded is None else {probe.number: probe for probe in coded.probes}
    now = Weights(Path(ctx.prepared.model.path))
    reward_model: Path | None = None
    done: list[StageOutput] = []
    for number, stage in enumerate(recipe.stages, start=1):
        if isinstance(stage, MergeStage):
            output = merge_weights(ctx, place, number, now)
        else:
            data = stage_data(ctx, place, number, stage, now)
            if isinstance(data, Failure):
                output = StageOutput(number=number, kind=stage.kind, folder="", failure=data)
            else:
                job = _job(recipe, number, stage, now.stage, probes.get(number))
                output = train_stage(ctx, place, job, StageInputs(now.model, data, reward_model))
        done.append(output)
        if output.failure is not None:
            return _output(done, failure=output.failure)
        _write_manifest(ctx, recipe, place, output, now)
        if output.weights_kind == "reward":
            reward_model = ctx.run_dir / str(output.weights)
        else:
            now = _after(ctx, output, now)
    if now.adapter is not None and not now.is_base:
        output = merge_weights(ctx, place, len(recipe.stages) + 1, now)
        done.append(output)
        if output.failure is not None:
            return _output(done, failure=output.failure)
        _write_manifest(ctx, recipe, place, output, now)
        now = _after(ctx, output, now)
    return _output(done, weights=now, ctx=ctx)


def _job(
    recipe: Recipe, number: int, stage: AnyTrainedStage, parent: int | None, probe: StageProbe | None
) -> TrainedStageJob:
    if probe is None or probe.stage is None:
        return TrainedStageJob(recipe, number, stage, parent)
    return TrainedStageJob(recipe, number, probe.stage, parent, probe.repairs)


def _after(ctx: RunContext, output: StageOutput, before: Weights) -> Weights:
    """Return the weights after a stage: an adapter on what it started from, or whole weights."""
    folder = ctx.run_dir / str(output.weights)
    if output.weights_kind == "adapter":
        return before._replace(adapter=folder, stage=output.number, sha256=output.weights_sha256)
    return Weights(folder, None, output.number, output.weights_sha256, is_base=False)


def _output(
    stages: list[StageOutput], *, failure: Failure | None = None, weights: Weights | None = None,
    ctx: RunContext | None = None,
) -> TrainOutput:  # fmt: skip
    trained = [stage for stage in stages if stage.kind != "merge"]
    tokens = [stage.n_tokens for stage in trained if stage.n_tokens is not None]
    output = TrainOutput(
        attempts=stages[0].attempts,
        health=next((stage.health for stage in reversed(trained) if stage.health is not None), None),
        train_s=sum(stage.train_s for stage in stages),
        n_tokens=sum(tokens) if tokens else None,
        stages=tuple(stages),
        failure=failure,
    )
    if weights is None or ctx is None:
        return output
    folder = weights.adapter or weights.model
    return output.model_copy(
        update={
            "kind": "full" if weights.adapter is None else "lora",
            "weights": ctx.relative(folder),
            "weights_sha256": weights.sha256,
        }
    )


def _write_manifest(
    ctx: RunContext, recipe: Recipe, place: ChainPlace, output: StageOutput, before: Weights
) -> None:
    """Write down what a stage rests on; derived from the journal's facts, so writing it again is safe."""
    model = ctx.prepared.model
    write_json(
        ctx.run_dir / output.folder / MANIFEST_NAME,
        {
            "schema_version": 1,
            "recipe": recipe.hash,
            "stage": output.number,
            "kind": output.kind,
            "settings": None
            if output.number > len(recipe.stages)
            else content_hash(recipe.stages[output.number - 1]),
            "base_model": {"name": model.name, "revision": model.revision, "fingerprint": model.fingerprint},
            "parent_stage": before.stage,
            "parent_sha256": before.sha256,
            "reference": output.reference,
            "weights": output.weights,
            "weights_kind": output.weights_kind,
            "weights_sha256": output.weights_sha256,
            "n_rows": output.n_rows,
            "repairs": list(output.repairs),
        },
    )
