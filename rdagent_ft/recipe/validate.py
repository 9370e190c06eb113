"""Judge one file: a recipe of ours or a trainer config that a person wrote. V0 and V1 of the ladder.

Pure and quick: text in, a report with all problems out; needs no model, no data, no trainer. V2 (the
trainer's own parser) is `parser_check.py`. Files are read and written by `cli/validate.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rdagent_ft.errors import Problem, UserError
from rdagent_ft.recipe.catalogue import METHODS, Method, load_catalogue
from rdagent_ft.recipe.documents import Document, read_document
from rdagent_ft.recipe.edits import Edit, Finding, apply_to_text, apply_to_values
from rdagent_ft.recipe.llamafactory.check import find_problems, guess_stage
from rdagent_ft.recipe.llamafactory.keys import STAGES, LlamaFactoryStage, load_keys
from rdagent_ft.recipe.parse import as_meant, parse_recipe
from rdagent_ft.recipe.rules import RuleFacts, check_recipe, recipe_warnings
from rdagent_ft.recipe.salvage import further_problems
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.trainer_config.check import check_trainer_config
from rdagent_ft.recipe.trainer_config.guess import guess_method
from rdagent_ft.values import Frozen

Kind = Literal["recipe", "trainer"]
TRAINERS = ("trl", "llamafactory")
_STAGE_WORDS: dict[str, Method] = {"distill": "distillation", "rm": "reward"}
_LLAMAFACTORY_WORDS = {"reward": "rm", "merge": "export"}
_FIX_ROUNDS = 4


class ValidationReport(Frozen):
    """What was found.

    Attributes:
        kind: recipe or trainer config.
        stage: method that a trainer config was judged as; None for a recipe.
        trainer: whose config it is, as people write it.
        problems: everything wrong in the text as given.
        fixed_text: the text with all neutral fixes made; None when there is none to make.
        changes: the fixes in words.
        remaining: problems of `fixed_text`; those of the text when nothing was fixed.
        notes: how the file was read (guessed stage, unusual values); no problems.
    """

    kind: Kind
    stage: str | None = None
    trainer: str = "TRL"
    problems: tuple[Problem, ...] = ()
    fixed_text: str | None = None
    changes: tuple[str, ...] = ()
    remaining: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


class _Trainer(NamedTuple):
    """Whose config it is: the stage it is judged as, notes about that, and the judgement."""

    name: str
    stage: str
    notes: tuple[str, ...]
    check: Callable[[dict[str, Any]], list[Finding]]


class _Judged(NamedTuple):
    problems: tuple[Problem, ...]
    edits: tuple[Edit, ...]


def validate_text(
    text: str, *, name: str, trainer: str = "trl", stage: str | None = None, folder: Path | None = None
) -> ValidationReport:
    """Return the report for one file's text.

    Args:
        text: the file's content.
        name: the file's name; tells JSON from YAML and helps to guess the stage.
        trainer: whose config it is when it is no recipe.
        stage: method of a trainer config; None means guess.
        folder: folder of the file, to look up local paths in it.

    Raises `UserError` for an unknown trainer or stage.
    """
    judge = _llamafactory(stage, folder) if trainer == "llamafactory" else _trl(trainer, stage, folder)
    document = read_document(text, name)
    if is_recipe(document.values):
        return _recipe_report(document)
    if not document.values and document.problems:
        kind: Kind = "recipe" if "recipe" in name.lower() else "trainer"
        return ValidationReport(kind=kind, problems=document.problems, remaining=document.problems)
    return _trainer_report(document, text, judge(document.values, name))


def read_recipe(text: str, name: str) -> Recipe | tuple[Problem, ...]:
    """Return the recipe of a file's text, or all its problems (V0 and the fact-free part of V1)."""
    document = read_document(text, name)
    if document.problems:
        return document.problems
    if not is_recipe(document.values):
        rule = "is not a recipe: it has neither `stages` nor `data` nor `schema_version`"
        fix = "write `stages: [{kind: sft, …}]`; a trainer config cannot be run as a recipe"
        return (Problem("file", None, rule, "config.bad_value", fix),)
    recipe, problems = _judged(document.values)
    return recipe if recipe is not None and not problems else tuple(problems)


def is_recipe(values: dict[str, Any]) -> bool:
    """Whether the top-level keys are a recipe's rather than a trainer config's: no trainer has `stages`."""
    return "schema_version" in values or "stages" in values or set(values) == {"data"}


def _trl(trainer: str, stage: str | None, folder: Path | None) -> Callable[[dict[str, Any], str], _Trainer]:
    if trainer not in TRAINERS:
        raise UserError(f"--trainer {trainer!r} is not known", hint=f"known: {', '.join(TRAINERS)}")
    named = None if stage is None else _stage(stage)

    def judge(values: dict[str, Any], name: str) -> _Trainer:
        catalogue = load_catalogue("trl")
        notes = [f"judged by the keys of TRL {catalogue.version} with transformers {catalogue.transformers}"]
        method, why = (named, "") if named is not None else guess_method(values, name, catalogue)
        if why:
            notes.append(f"judged as {method} because of {why}; --stage names another")
        return _Trainer(
            "TRL",
            method,
            tuple(notes),
            partial(check_trainer_config, method=method, catalogue=catalogue, folder=folder),
        )

    return judge


def _llamafactory(stage: str | None, folder: Path | None) -> Callable[[dict[str, Any], str], _Trainer]:
    word = "" if stage is None else _LLAMAFACTORY_WORDS.get(stage.lower(), stage.lower())
    named: LlamaFactoryStage | None = next((known for known in STAGES if known == word), None)
    if word and named is None:
        raise UserError(f"--stage {stage!r} is not known", hint=f"known: {', '.join(STAGES)}")

    def judge(values: dict[str, Any], _name: str) -> _Trainer:
        kind: LlamaFactoryStage = named or guess_stage(values)
        notes = [f"judged by the keys of LLaMA-Factory {load_keys().version}"]
        if named is None:
            notes.append(f"judged as {kind}; --stage names another")
        return _Trainer(
            "LLaMA-Factory", kind, tuple(notes), partial(find_problems, stage=kind, folder=folder)
        )

    return judge


def _stage(stage: str) -> Method:
    word = _STAGE_WORDS.get(stage.lower(), stage.lower())
    for method in METHODS:
        if word == method:
            return method
    known = ", ".join((*METHODS, *_STAGE_WORDS))
    raise UserError(f"--stage {stage!r} is not known", hint=f"known: {known}")


def _judged(values: dict[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe, if the values make one, and every problem of schema, order and rules."""
    recipe, problems = parse_recipe(values)
    if recipe is not None:
        return recipe, check_recipe(recipe, RuleFacts())
    try:
        plain = as_meant(values)
    except RecursionError:
        return None, problems
    return None, [*problems, *further_problems(plain, problems)]


def _recipe_report(document: Document) -> ValidationReport:
    recipe, found = _judged(document.values)
    notes: tuple[str, ...] = ()
    if recipe is not None:
        notes = (f"recipe {recipe.hash}", *recipe_warnings(recipe, RuleFacts()))
    problems = (*document.problems, *found)
    return ValidationReport(kind="recipe", problems=problems, remaining=problems, notes=notes)


def _trainer_report(document: Document, text: str, trainer: _Trainer) -> ValidationReport:
    first = _judge(document, document.values, trainer)
    values, done, last = document.values, list[Edit](), first
    for _ in range(_FIX_ROUNDS):  # a renamed key is judged again under its new name
        if not last.edits or document.problems:
            break
        done += last.edits
        values = apply_to_values(values, last.edits)
        last = _judge(document, values, trainer)
    fixed = apply_to_text(document, text, _whole_edit(document, done, values)) if done else None
    return ValidationReport(
        kind="trainer",
        stage=trainer.stage,
        trainer=trainer.name,
        problems=first.problems,
        fixed_text=fixed,
        changes=tuple(edit.describe() for edit in done),
        remaining=last.problems,
        notes=trainer.notes,
    )


def _judge(document: Document, values: dict[str, Any], trainer: _Trainer) -> _Judged:
    findings = trainer.check(values)
    unique: dict[tuple[str, str, str], Finding] = {}
    for item in findings:
        problem = item.problem
        unique.setdefault((problem.key, problem.problem_class, problem.rule), item)
    edits: dict[str, Edit] = {}
    for item in unique.values():
        for edit in item.edits:
            edits.setdefault(edit.key, edit)
    problems = tuple(item.problem for item in unique.values())
    return _Judged((*document.problems, *problems), tuple(edits.values()))


def _whole_edit(document: Document, done: list[Edit], wanted: dict[str, Any]) -> tuple[Edit, ...]:
    """Return one edit per key that leads from the file to `wanted`, whatever rounds led there."""
    new_name = {edit.key: edit.to for edit in done if edit.action == "rename"}
    edits: list[Edit] = []
    for key, value in document.values.items():
        target = new_name.get(key)
        if key in wanted:
            if repr(wanted[key]) != repr(value):  # 1 and True are equal, but not the same
                edits.append(Edit(action="set", key=key, value=wanted[key]))
        elif target in wanted and target not in document.values:
            edits.append(Edit(action="rename", key=key, to=target, value=wanted[target]))
        else:
            edits.append(Edit(action="drop", key=key))
    placed = {edit.to for edit in edits if edit.action == "rename"} | set(document.values)
    edits += [Edit(action="set", key=key, value=wanted[key]) for key in wanted if key not in placed]
    return tuple(edits)
