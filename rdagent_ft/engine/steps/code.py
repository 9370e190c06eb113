"""Step 2 of a loop: turn the recipe into checked files: data mix, trainer config, evidence.

A recipe with a data script has it run first (`data_script.py`); its rows take the place of the train
split's. Selection, a teacher and the data mix follow (`mixing.py`). Runs the rungs V0, V1 and V3 of the
ladder; V2 (the trainer's own parser) is the first thing that the training job does, because starting it
costs an import of the trainer. V5 (`probe.py`) comes last, where memory or time cannot be told without it.
The first rung that fails ends the loop as failed, with its class, before a training costs GPU time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdagent_ft.data.audit import audit_problems, audit_rows
from rdagent_ft.data.rows import Row
from rdagent_ft.data.write import read_row_file, write_rows
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.facts import rule_facts
from rdagent_ft.engine.steps.data_script import Scripted, script_data
from rdagent_ft.engine.steps.mixing import Mixed, mixed_rows
from rdagent_ft.engine.steps.probe import fitted, probe_stages, with_probe
from rdagent_ft.engine.steps.rejection import rejected
from rdagent_ft.engine.steps.reward_check import reward_problems
from rdagent_ft.engine.steps.stage_data import MIX_NAME, known_data
from rdagent_ft.engine.steps.stage_job import render_config, stage_folder
from rdagent_ft.errors import Problem, RecipeError
from rdagent_ft.recipe.resources import recipe_time, resource_problems, stage_memory
from rdagent_ft.recipe.rule_facts import RuleFacts
from rdagent_ft.recipe.rules import check_recipe, recipe_warnings
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyPreferenceStage, GrpoStage, SftStage
from rdagent_ft.reporting.records import CodeOutput, ProposeOutput
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.values import sha256_file, write_atomic, write_json

AUDIT_NAME = "audit.json"
MAX_TRIED_ROWS = 2_000


def code(ctx: RunContext, loop: int) -> CodeOutput:
    """Build `loops/NNN/data/` and `loops/NNN/files/`; return what was built or why not."""
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    assert proposal is not None
    if proposal.recipe is None:
        return CodeOutput(failure=proposal.failure)
    recipe, script = proposal.recipe, None
    rows = train = read_row_file(ctx.run_dir / "data" / "train.jsonl")
    if recipe.data.script is not None:
        made = _scripted(ctx, loop, recipe, recipe.data.script, rows)
        if isinstance(made, Failure):
            return CodeOutput(failure=made)
        rows, script = made.rows, made.record
    try:
        mixed = mixed_rows(ctx, loop, recipe, rows, train)
    except RecipeError as error:
        return CodeOutput(failure=rejected(error.problems or _one(error)), script=script)
    if isinstance(mixed, Failure):
        return CodeOutput(failure=mixed, script=script)
    return _checked(ctx, loop, recipe, mixed).model_copy(update={"script": script})


def _scripted(ctx: RunContext, loop: int, recipe: Recipe, script: str, rows: list[Row]) -> Scripted | Failure:
    """Run the data script, unless the recipe breaks a rule: that costs no container."""
    problems = check_recipe(recipe, rule_facts(ctx, None, recipe))
    return rejected(problems) if problems else script_data(ctx, loop, script, rows)


def _checked(ctx: RunContext, loop: int, recipe: Recipe, mixed: Mixed) -> CodeOutput:
    """Judge recipe and rows by V1 and V3; write the rows and render every stage when nothing is wrong."""
    mix = mixed.mix
    report = audit_rows(mix.rows, ctx.text_encoder, ctx.prepared.prompt_format, _longest_row(recipe))
    facts = rule_facts(ctx, len(mix.rows), recipe, tokens_per_row=report.tokens_per_row)
    problems = [*check_recipe(recipe, facts), *audit_problems(report), *_reward_problems(recipe, mix.rows)]
    output = CodeOutput(
        n_train_rows=len(mix.rows),
        dropped=mix.dropped,
        notes=(*recipe_warnings(recipe, facts), *mixed.notes),
        tokens_per_row=report.tokens_per_row,
    )
    if problems:
        return output.model_copy(update={"failure": rejected(problems)})
    folder = ctx.loop_dir(loop)
    write_rows(folder / "data" / MIX_NAME, mix.rows)
    write_json(folder / "files" / AUDIT_NAME, report.model_dump(mode="json"))
    data = _write_data(ctx, loop, recipe)
    if isinstance(data, Failure):
        return output.model_copy(update={"failure": data})
    render_notes = _render(ctx, loop, recipe, len(mix.rows))
    written = [path for path in (*sorted((folder / "files").iterdir()), *data) if path.is_file()]
    output = output.model_copy(
        update={
            "files": {_name(path, folder): sha256_file(path) for path in written},
            "notes": (*output.notes, *render_notes),
        }
    )
    return _admitted(ctx, loop, recipe, facts, output)


def _admitted(ctx: RunContext, loop: int, recipe: Recipe, facts: RuleFacts, output: CodeOutput) -> CodeOutput:
    """Probe what cannot be told, and judge memory and time once more with what was measured."""
    probes = probe_stages(ctx, loop, recipe, facts)
    for probe in probes:
        facts = with_probe(facts, probe)
    begins = fitted(recipe, probes)
    estimates = [stage_memory(begins, place, facts) for place, _ in begins.trained_stages]
    time = recipe_time(begins, facts)
    output = output.model_copy(
        update={
            "estimate_gib": max((known.total_gib for known in estimates if known is not None), default=None),
            "forecast_s": None if time is None else time.total_seconds,
            "probes": probes,
        }
    )
    failed = next((probe.failure for probe in probes if probe.failure is not None), None)
    problems = resource_problems(begins, facts) if probes and failed is None else []
    failure = rejected(problems) if problems else failed
    return output if failure is None else output.model_copy(update={"failure": failure})


def _reward_problems(recipe: Recipe, rows: Sequence[Row]) -> list[Problem]:
    """Try the rewards of every grpo stage on gold and anti-gold answers of the rows."""
    tried = [{"prompt": row.prompt_text, "gold": row.completion, **row.meta} for row in rows[:MAX_TRIED_ROWS]]
    return [
        problem
        for place, stage in recipe.trained_stages
        if isinstance(stage, GrpoStage)
        for problem in reward_problems(f"stages.{place}", stage, tried)
    ]


def _write_data(ctx: RunContext, loop: int, recipe: Recipe) -> list[Path] | Failure:
    """Write the rows of every stage whose rows do not come from a trained stage's samples."""
    files: list[Path] = []
    for _, stage in recipe.trained_stages:
        if isinstance(stage, AnyPreferenceStage) and stage.pairs == "sampled":
            continue
        data = known_data(ctx, loop, stage)
        if isinstance(data, Failure):
            return data
        files.append(data.file)
    return files


def _render(ctx: RunContext, loop: int, recipe: Recipe, n_rows: int) -> tuple[str, ...]:
    """Write each stage's config as far as it is known now; return the notes of all of them.

    A later stage's config names the weights before it, which do not exist yet: `train` renders it again
    with their folder. That it can be rendered at all is found out here, before anything costs GPU time.
    """
    folder, notes = ctx.loop_dir(loop), list[str]()
    for place, stage in recipe.trained_stages:
        name = stage_folder(place + 1, stage.kind)
        base = Path(ctx.prepared.model.path) if place == 0 else folder / "stages" / f"before-{name}"
        file = folder / "data" / f"{name}.jsonl"
        text, own = render_config(ctx, recipe, place + 1, model=base, train_file=file, n_rows=n_rows)
        if place == 0:
            write_atomic(folder / "files" / f"{name}.yaml", text)
        notes += own if len(recipe.stages) == 1 else [f"{name}: {note}" for note in own]
    return tuple(notes)


def _longest_row(recipe: Recipe) -> int:
    """Return the length at which the audit judges rows: that of the first stage that trains on answers."""
    stages = [stage for _, stage in recipe.trained_stages]
    return next((stage.max_length for stage in stages if isinstance(stage, SftStage)), stages[0].max_length)


def _name(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder)
    return inside.name if inside.parts[0] == "files" else str(inside)


def _one(error: RecipeError) -> tuple[Problem, ...]:
    return (Problem("recipe", None, error.message, "config.bad_value", error.hint or "change the value"),)
