"""V1 rules of a recipe's data mix: values that contradict each other, and what its operations need.

What only the rows can tell (unknown sources and columns, a template that would double a think block) is
judged where the rows are read. The data script has its own rules in `data_script.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.data_mix import Condition, DataMix
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import GrpoStage, PreferenceStage, SftStage

TEACHER_KEY = "data.teacher"


def data_problems(recipe: Recipe, has_teacher: bool | None) -> list[Problem]:
    """Return every broken rule of the data mix.

    Args:
        recipe: the stages decide what rows are used for.
        has_teacher: whether FT_TEACHER_MODEL names an endpoint that can be asked; None means unknown.
    """
    mix = recipe.data
    problems = [*_conditions(mix), *_sources(mix), *_think(mix), *_teacher(mix, has_teacher)]
    return [*problems, *_golds(recipe)]


def _conditions(mix: DataMix) -> Iterator[Problem]:
    for place, condition in enumerate(mix.where or ()):
        rule = _wrong_value(condition)
        if rule is not None:
            fix = {"in": "write a list of values", "lt": "write a number", "gt": "write a number"}
            yield Problem(
                f"data.where.{place}.value", condition.value, rule, "config.bad_value",
                fix.get(condition.op, "write one value, or use `in` for several"),
            )  # fmt: skip


def _wrong_value(condition: Condition) -> str | None:
    """Return why the value does not fit the operation, or None."""
    is_list = isinstance(condition.value, tuple)
    if condition.op == "in":
        return None if is_list and condition.value else "must be a list of values for `in`"
    if is_list:
        return f"must be one value for `{condition.op}`"
    is_number = isinstance(condition.value, (int, float)) and not isinstance(condition.value, bool)
    if condition.op in ("lt", "gt") and not is_number:
        return f"must be a number for `{condition.op}`"
    return None


def _sources(mix: DataMix) -> Iterator[Problem]:
    for key, names in (
        ("data.source_weights", [entry.source for entry in mix.source_weights or ()]),
        ("data.source_caps", [entry.source for entry in mix.source_caps or ()]),
    ):
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield Problem(key, name, "names a source twice", "config.conflict", "name it once")
            if name in mix.exclude_sources:
                rule = "names a source that exclude_sources leaves out"
                yield Problem(key, name, rule, "config.conflict", "name it in one of the two")


def _think(mix: DataMix) -> Iterator[Problem]:
    if mix.think_column is None:
        return
    if mix.think != "wrap":
        rule, fix = "is read for `think: wrap` only", "set data.think to wrap, or drop it"
    elif mix.teacher is not None:
        rule = "holds the reasoning of the gold answers, and a teacher's answers take their place"
        fix = "write null: the reasoning in the teacher's own answer is wrapped"
    else:
        return
    yield Problem("data.think_column", mix.think_column, rule, "config.conflict", fix)


def _teacher(mix: DataMix, has_teacher: bool | None) -> Iterator[Problem]:
    teacher = mix.teacher
    if teacher is None:
        return
    if has_teacher is False:
        rule = "asks a teacher, and none is set"
        fix = "set FT_TEACHER_MODEL (and FT_TEACHER_API_KEY, FT_TEACHER_API_BASE), or drop data.teacher"
        yield Problem(TEACHER_KEY, None, rule, "config.needs_teacher", fix)
    if teacher.n_samples > 1 and teacher.temperature == 0.0:
        rule = "samples at temperature 0 are all the same"
        fix = "write 1, or a temperature above 0"
        yield Problem(f"{TEACHER_KEY}.n_samples", teacher.n_samples, rule, "config.conflict", fix)


def _golds(recipe: Recipe) -> Iterator[Problem]:
    """Refuse changed answers where they would stand as the reference that samples are scored against."""
    mix = recipe.data
    reader = next(iter(_references(recipe)), None)
    is_trained = any(isinstance(stage, SftStage) for stage in recipe.stages)
    for key, value in ((TEACHER_KEY, mix.teacher), ("data.think", mix.think)):
        if value in (None, "strip"):
            continue
        shown = value if isinstance(value, str) else None
        if reader is not None:
            rule = f"changes the answers that {reader} takes as the reference for its samples"
            fix = "train the two in runs of their own, the second from the first one's merged model"
            yield Problem(key, shown, rule, "config.conflict", fix)
        elif not is_trained:
            rule = "changes answers, and no stage of the recipe trains on them"
            yield Problem(key, shown, rule, "config.conflict", "add an sft stage, or drop it")


def _references(recipe: Recipe) -> list[str]:
    """Return the stages that score samples against the rows' answers."""
    return [
        f"stages.{place} ({stage.kind})"
        for place, stage in recipe.trained_stages
        if isinstance(stage, GrpoStage) or (isinstance(stage, PreferenceStage) and stage.pairs == "sampled")
    ]
