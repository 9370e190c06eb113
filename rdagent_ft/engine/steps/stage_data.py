"""The rows of one stage: the data mix, its prompts, the run's preference pairs, or pairs from samples.

Written under `loops/NNN/data/`, so that every stage's rows can be read by a person. Sampling asks the
weights at that point of the chain about training prompts only; no val or test item is ever asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdagent_ft.data.preference_store import read_preference_rows
from rdagent_ft.data.preference_write import write_trl_kto, write_trl_pairs, write_trl_prompts
from rdagent_ft.data.preferences import PreferenceRow
from rdagent_ft.data.rows import Row
from rdagent_ft.data.write import read_row_file, write_eval_items, write_trl_sft, write_trl_turns
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.sampled_pairs import labelled_from_samples, pairs_from_samples
from rdagent_ft.engine.scoring import score_models
from rdagent_ft.engine.steps.chain_place import ChainPlace, Weights
from rdagent_ft.evaluation.port import EvalModel, EvalTask
from rdagent_ft.recipe.stages import AnyPreferenceStage, AnyTrainedStage, DistillStage, GrpoStage, SftStage
from rdagent_ft.reporting.stage_records import Failure

MIX_NAME = "mix.jsonl"
"""The data mix in the program's own form, inside a loop's `data` folder."""
PREFERENCES_NAME = "preferences.jsonl"
"""The run's preference rows in the program's own form, inside the run's `data` folder."""
MIN_PAIRS = MIN_PROMPTS = 4


class StageData(NamedTuple):
    """A stage's training file (JSON lines as TRL reads them) and its number of rows."""

    file: Path
    n_rows: int


def stage_data(
    ctx: RunContext, place: ChainPlace, number: int, stage: AnyTrainedStage, now: Weights
) -> StageData | Failure:
    """Write the stage's training file and return it, or why there are no rows to train on."""
    if not isinstance(stage, AnyPreferenceStage) or stage.pairs == "given":
        return known_data(ctx, place.loop, stage)
    rows = _sampled(ctx, place, number, stage, now)
    if isinstance(rows, Failure):
        return rows
    name = "-".join(filter(None, (place.prefix, str(number), stage.kind)))
    return _write_preferences(ctx, stage, rows, ctx.loop_dir(place.loop) / "data" / f"{name}.jsonl")


def known_data(ctx: RunContext, loop: int, stage: AnyTrainedStage) -> StageData | Failure:
    """Write the training file of a stage whose rows are known before any stage has been trained."""
    folder = ctx.loop_dir(loop) / "data"
    prompt_format = ctx.prepared.prompt_format
    if isinstance(stage, AnyPreferenceStage):
        rows = read_preference_rows(ctx.run_dir / "data" / PREFERENCES_NAME)
        name = "labelled.jsonl" if stage.kind == "kto" else "pairs.jsonl"
        return _write_preferences(ctx, stage, rows, folder / name)
    mix = read_row_file(folder / MIX_NAME)
    if isinstance(stage, (GrpoStage, DistillStage)):
        return _write_prompts(ctx, stage, mix, folder / "prompts.jsonl")
    assert isinstance(stage, SftStage)
    if stage.train_on == "assistant_turns":
        file = folder / "turns.jsonl"
        write_trl_turns(file, mix)
    else:
        file = folder / "train.jsonl"
        write_trl_sft(file, mix, prompt_format)
    return StageData(file, len(mix))


def _write_prompts(
    ctx: RunContext, stage: GrpoStage | DistillStage, mix: list[Row], file: Path
) -> StageData | Failure:
    """Write the prompts that leave room for an answer; TRL has no key that would cut them."""
    room = stage.max_length - stage.max_completion_length
    tokens = ctx.text_encoder.rows_tokens(mix, ctx.prepared.prompt_format)
    rows = [row for row, (n_prompt, _) in zip(mix, tokens, strict=True) if n_prompt <= room]
    if len(rows) < MIN_PROMPTS:
        return Failure(
            failure_class="data.empty_after_filter",
            blame="candidate",
            message=f"{len(rows)} of {len(mix)} prompts have at most {room} tokens, the room that "
            f"max_completion_length {stage.max_completion_length} leaves in max_length {stage.max_length}",
            fix="raise max_length, or lower max_completion_length",
        )
    if len(rows) < len(mix):
        ctx.progress.notice(
            f"{stage.kind}: {len(mix) - len(rows)} prompts longer than {room} tokens are left out"
        )
    write_trl_prompts(file, rows, ctx.prepared.prompt_format)
    return StageData(file, len(rows))


def _write_preferences(
    ctx: RunContext, stage: AnyPreferenceStage, rows: list[PreferenceRow], file: Path
) -> StageData | Failure:
    if len(rows) < MIN_PAIRS:
        return Failure(
            failure_class="data.no_pairs",
            blame="candidate",
            message=f"{len(rows)} preference rows are too few to train on ({stage.pairs} pairs)",
            fix="ask more prompts or more samples at a higher temperature, or give --preferences",
        )
    if stage.kind == "kto":
        write_trl_kto(file, rows, ctx.prepared.prompt_format)
        return StageData(file, sum((row.chosen is not None) + (row.rejected is not None) for row in rows))
    write_trl_pairs(file, rows, ctx.prepared.prompt_format)
    return StageData(file, len(rows))


def _sampled(
    ctx: RunContext, place: ChainPlace, number: int, stage: AnyPreferenceStage, now: Weights
) -> list[PreferenceRow] | Failure:
    """Ask the weights of this point of the chain about training prompts and pair what they answer."""
    sampling = stage.sampling
    rows = _distinct_prompts(read_row_file(ctx.loop_dir(place.loop) / "data" / MIX_NAME))
    rows = rows[: sampling.max_prompts]
    items = ctx.run_dir / "data" / "items" / f"{place.loop:03d}-{number}-train.jsonl"
    write_eval_items(items, rows, ctx.text_encoder, ctx.prepared.prompt_format)
    task = EvalTask(
        benchmark=ctx.prepared.target_benchmark,
        split="train",
        items_file=items,
        n_items=len(rows),
        scorer=ctx.prepared.scorer,
        max_new_tokens=ctx.prepared.max_new_tokens,
        repeats=sampling.n_samples,
        temperature=sampling.temperature,
    )
    model = EvalModel(role="tuned", path=now.model, adapter=now.adapter)
    scored = score_models(
        ctx, place.loop, place.step, (model,), (task,), place.stages / f"{number}-samples",
        part="-".join(filter(None, (place.prefix, str(number), "samples"))),
    )  # fmt: skip
    if scored.failure is not None:
        return scored.failure
    samples = scored.samples["tuned", task.benchmark, "train"]
    make = labelled_from_samples if stage.kind == "kto" else pairs_from_samples
    return make(rows, samples)


def _distinct_prompts(rows: list[Row]) -> list[Row]:
    """Return the first row of every prompt: a prompt with several gold answers is asked once."""
    return list({row.prompt_text: row for row in reversed(rows)}.values())[::-1]
