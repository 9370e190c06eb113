"""Part of step 2: from the train split, or a script's rows, to the rows that are trained on.

Order: selection, teacher, then the rest of the data mix. What the pure operations (`data/mix.py`) cannot
know is judged here: the model's chat template, the task's scorer, the teacher.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rdagent_ft.data.mix import MixResult, build_mix
from rdagent_ft.data.near_duplicates import near_duplicate_clusters
from rdagent_ft.data.rows import Row
from rdagent_ft.data.select import select_rows
from rdagent_ft.data.think import template_problem
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.facts import rule_facts
from rdagent_ft.engine.steps.rejection import rejected
from rdagent_ft.engine.steps.teacher import teacher_rows
from rdagent_ft.errors import Problem
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.stage_records import Failure

WHOLE_ANSWER_SCORERS = ("exact_match", "json_match")
"""Scorers that compare the whole answer: with a think block in front of it none is right."""


class Mixed(NamedTuple):
    """The rows to train on, and lines about how they came about."""

    mix: MixResult
    notes: tuple[str, ...]


def mixed_rows(
    ctx: RunContext, loop: int, recipe: Recipe, rows: Sequence[Row], train: Sequence[Row]
) -> Mixed | Failure:
    """Return the rows of `recipe.data`, or why there are none.

    Args:
        rows: the rows that the mix is made of: the train split, or what a script made of it.
        train: the train split.

    Raises `RecipeError` for a mix that does not fit the rows, and what `teacher_rows` raises.
    """
    problems = think_problems(ctx, recipe.data)
    if problems:
        return rejected(problems)
    data = _without_gone(recipe.data, train, rows)
    dropped: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    if data.teacher is not None:
        problems = check_recipe(recipe, rule_facts(ctx, None, recipe))
        if problems:  # before anything is paid
            return rejected(problems)
        selected = select_rows(rows, data)
        taught = teacher_rows(ctx, loop, data.teacher, selected.rows, train, data.shuffle_seed)
        if isinstance(taught, Failure):
            return taught
        dropped, notes = selected.dropped, (taught.record.words,)
        rows, data = taught.rows, _without_gone(_without_selection(data), rows, taught.rows)
    mix = build_mix(rows, data, clusters=near_duplicate_clusters, n_tokens=lambda found: _lengths(ctx, found))
    mix = mix.model_copy(update={"dropped": dict(Counter(dropped) + Counter(mix.dropped))})
    return Mixed(mix, (*notes, *_notes(mix)))


def think_problems(ctx: RunContext, data: DataMix) -> list[Problem]:
    """Return what keeps think blocks from being trained to any use: the chat template, the scorer."""
    problem = template_problem(data, ctx.text_encoder, ctx.prepared.prompt_format)
    problems = [] if problem is None else [problem]
    if data.think in ("wrap", "empty") and ctx.prepared.scorer in WHOLE_ANSWER_SCORERS:
        rule = f"makes every answer wrong: {ctx.prepared.scorer} compares the whole answer, blocks included"
        fix = "write null, or take a task whose score reads the final result"
        problems.append(Problem("data.think", data.think, rule, "config.conflict", fix))
    return problems


def _without_selection(data: DataMix) -> DataMix:
    """Return the mix without what has been done to the rows that a teacher was asked about."""
    return data.model_copy(update={"exclude_sources": (), "where": None, "teacher": None})


def _without_gone(data: DataMix, before: Sequence[Row], after: Sequence[Row]) -> DataMix:
    """Return the mix without sources that a script or a teacher left no row of: naming them is no error."""
    gone = {row.source for row in before} - {row.source for row in after}
    if not gone:
        return data
    return data.model_copy(
        update={
            "exclude_sources": tuple(name for name in data.exclude_sources if name not in gone),
            "source_weights": tuple(e for e in data.source_weights or () if e.source not in gone) or None,
            "source_caps": tuple(e for e in data.source_caps or () if e.source not in gone) or None,
        }
    )


def _lengths(ctx: RunContext, rows: Sequence[Row]) -> dict[str, int]:
    pairs = ctx.text_encoder.rows_tokens(rows, ctx.prepared.prompt_format)
    return {row.item_id: sum(pair) for row, pair in zip(rows, pairs, strict=True)}


def _notes(mix: MixResult) -> tuple[str, ...]:
    return (
        *(f"{n} rows left out of the mix: {reason}" for reason, n in mix.dropped.items()),
        *(f"{n} rows changed by the mix: {reason}" for reason, n in mix.changed.items()),
        *(f"{n} rows repeated by the mix: {reason}" for reason, n in mix.repeated.items()),
    )
