"""Step 2 of a loop: turn the recipe into checked files: data mix, trainer config, evidence.

A recipe with a data script has it run first (`data_script.py`); its rows take the place of the train
split's. Runs the rungs V0, V1 and V3 of the ladder; V2 (the trainer's own parser) is the first thing that the
training job does, because starting it costs an import of the trainer. The first rung that fails ends
the loop as failed, with its class, before anything costs GPU time.
"""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.data.audit import audit_problems, audit_rows
from rdagent_ft.data.mix import MixResult, build_mix
from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.rows import Row
from rdagent_ft.data.write import read_row_file, write_trl_sft
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.facts import rule_facts
from rdagent_ft.engine.steps.data_script import Scripted, script_data
from rdagent_ft.engine.steps.rejection import rejected
from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.data_script import SCRIPT_NAME
from rdagent_ft.recipe.memory import estimate_memory_gib, read_model_shape
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.rules import check_recipe, recipe_warnings
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import CodeOutput, Failure, ProposeOutput
from rdagent_ft.values import sha256_file, write_atomic, write_json

CONFIG_NAME = "1-sft.yaml"


def code(ctx: RunContext, loop: int) -> CodeOutput:
    """Build `loops/NNN/data/train.jsonl` and `loops/NNN/files/`; return what was built or why not."""
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    assert proposal is not None
    if proposal.recipe is None:
        return CodeOutput(failure=proposal.failure)
    recipe, script = proposal.recipe, None
    rows = read_row_file(ctx.run_dir / "data" / "train.jsonl")
    if recipe.data.script is not None:
        made = _scripted(ctx, loop, recipe, recipe.data.script, rows)
        if isinstance(made, Failure):
            return CodeOutput(failure=made)
        recipe = _with_known_sources(recipe, rows, made.rows)
        rows, script = made.rows, made.record
    try:
        mix = _mix(ctx, recipe, rows)
    except RecipeError as error:
        return CodeOutput(failure=rejected(error.problems or _one(error)), script=script)
    return _checked(ctx, loop, recipe, mix).model_copy(update={"script": script})


def _scripted(ctx: RunContext, loop: int, recipe: Recipe, script: str, rows: list[Row]) -> Scripted | Failure:
    """Run the data script, unless the recipe breaks a rule: that costs no container."""
    problems = check_recipe(recipe, rule_facts(ctx, None))
    return rejected(problems) if problems else script_data(ctx, loop, script, rows)


def _checked(ctx: RunContext, loop: int, recipe: Recipe, mix: MixResult) -> CodeOutput:
    """Judge recipe and rows by V1 and V3; write the trainer's files when nothing is wrong."""
    prepared = ctx.prepared
    facts = rule_facts(ctx, len(mix.rows))
    report = audit_rows(mix.rows, ctx.text_encoder, prepared.prompt_format, recipe.stages[0].max_length)
    problems = [*check_recipe(recipe, facts), *audit_problems(report)]
    output = CodeOutput(
        n_train_rows=len(mix.rows),
        dropped=mix.dropped,
        notes=(*recipe_warnings(recipe, facts), *_mix_notes(mix)),
    )
    if problems:
        return output.model_copy(update={"failure": rejected(problems)})
    folder = ctx.loop_dir(loop)
    train_file = folder / "data" / "train.jsonl"
    write_trl_sft(train_file, mix.rows, prepared.prompt_format)
    config, render_notes = render_config(ctx, recipe, train_file, len(mix.rows))
    write_atomic(folder / "files" / CONFIG_NAME, config)
    write_json(folder / "files" / "audit.json", report.model_dump(mode="json"))
    names = (CONFIG_NAME, "audit.json", *((SCRIPT_NAME,) if recipe.data.script is not None else ()))
    shape = read_model_shape(Path(prepared.model.path))
    return output.model_copy(
        update={
            "files": {name: sha256_file(folder / "files" / name) for name in names}
            | {"data/train.jsonl": sha256_file(train_file)},
            "notes": (*output.notes, *render_notes),
            "estimate_gib": estimate_memory_gib(recipe, shape, prepared.device).total_gib,
        }
    )


def _with_known_sources(recipe: Recipe, train: list[Row], made: list[Row]) -> Recipe:
    """Return the recipe without excluded sources that the script itself has left out already."""
    gone = {row.source for row in train} - {row.source for row in made}
    kept = tuple(name for name in recipe.data.exclude_sources if name not in gone)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"exclude_sources": kept})})


def _mix(ctx: RunContext, recipe: Recipe, rows: list[Row]) -> MixResult:
    encoder, prompt_format = ctx.text_encoder, ctx.prepared.prompt_format
    tokens: dict[str, int] = {}
    if recipe.data.max_row_tokens is not None:
        pairs = encoder.rows_tokens(rows, prompt_format)
        tokens = {row.item_id: sum(pair) for row, pair in zip(rows, pairs, strict=True)}
    clusters = near_duplicate_clusters(rows) if recipe.data.dedupe == "near" else {}
    return build_mix(rows, recipe.data, clusters=clusters, n_tokens=tokens)


def render_config(
    ctx: RunContext, recipe: Recipe, train_file: Path, n_rows: int
) -> tuple[str, tuple[str, ...]]:
    """Return the trainer's config of a recipe's first stage, and one line for each automatic choice."""
    prepared = ctx.prepared
    rendered = render_stage(
        recipe,
        0,
        paths=StagePaths(model=Path(prepared.model.path), train_file=train_file, output_dir=Path("output")),
        facts=RenderFacts(device=prepared.device, n_train_rows=n_rows),
    )
    return rendered.text, rendered.notes


def _mix_notes(mix: MixResult) -> tuple[str, ...]:
    return tuple(f"{n} rows left out of the mix: {reason}" for reason, n in mix.dropped.items())


def _one(error: RecipeError) -> tuple[Problem, ...]:
    return (Problem("recipe", None, error.message, "config.bad_value", error.hint or "change the value"),)
