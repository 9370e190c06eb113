"""`rdagent-ft validate FILE`: is a recipe or a trainer config right, before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rdagent_ft.errors import Problem
    from rdagent_ft.recipe.catalogue import Method
    from rdagent_ft.recipe.validate import ValidationReport

MAX_FILE_BYTES = 1 << 20


def validate(
    file: Annotated[Path, typer.Argument(help="Recipe (JSON or YAML) or trainer config (YAML).")],
    trainer: Annotated[str, typer.Option(help="Trainer that a config is for: trl or llamafactory.")] = "trl",
    stage: Annotated[
        str | None,
        typer.Option(help="Stage of a trainer config: sft, dpo, kto, reward, grpo, …; else guessed."),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Write what can be fixed without changing the task; keeps FILE.orig."),
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also ask the trainer's own parser (needs the train environment).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check a recipe or a trainer config: exit 0 clean, 3 with problems, 2 when it cannot be read."""
    import json

    from rdagent_ft.recipe.validate import validate_text

    text = _read(file)
    report = validate_text(text, name=file.name, trainer=trainer, stage=stage, folder=file.resolve().parent)
    fixed = _write_fix(file, text, report) if fix and report.fixed_text is not None else None
    problems = report.remaining if fixed else report.problems
    if deep and not problems:
        problems = _deep(file, report)
    if as_json:
        document = {
            "schema_version": 1,
            "file": str(file),
            "kind": report.kind,
            "ok": not problems,
            "problems": [problem.as_json() for problem in problems],
            "fixed": fixed,
        }
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(file, report, problems, fixed)
    raise SystemExit(3 if problems else 0)


def _read(file: Path) -> str:
    from rdagent_ft.errors import UserError

    if not file.is_file():
        raise UserError(f"{str(file)!r} is not a file", hint="name a recipe or a trainer config")
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                f"{str(file)!r} is too large to be a config", hint="name a recipe or trainer config"
            )
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be read: {error.strerror}") from None


def _write_fix(file: Path, text: str, report: ValidationReport) -> str:
    from rdagent_ft.errors import UserError
    from rdagent_ft.values import write_atomic

    kept = file.with_name(f"{file.name}.orig")
    try:
        if not kept.exists():
            write_atomic(kept, text)
        write_atomic(file, report.fixed_text or text)
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be written: {error.strerror}") from None
    return str(file)


def _deep(file: Path, report: ValidationReport) -> tuple[Problem, ...]:
    """Ask the trainer's parser; every stage of a recipe is rendered first, with stand-ins for its paths."""
    import tempfile
    from dataclasses import replace

    from rdagent_ft.recipe.parser_check import run_trl_parsers
    from rdagent_ft.settings_sources import load_settings

    python = load_settings().settings.python
    with tempfile.TemporaryDirectory() as folder:
        texts = _config_texts(file, report)
        configs: list[tuple[Path, Method]] = []
        for number, (_, method, text) in enumerate(texts):
            config = Path(folder) / f"{number}.yaml"
            config.write_text(text, encoding="utf-8")
            configs.append((config, method))
        verdicts = run_trl_parsers(configs, python=None if python is None else str(python))
    found = ((place, problem) for (place, *_), said in zip(texts, verdicts, strict=True) for problem in said)
    return tuple(
        problem
        if place is None
        else replace(problem, key=f"stages.{place}", rule=f"renders to `{problem.key}`, which {problem.rule}")
        for place, problem in found
    )


def _config_texts(file: Path, report: ValidationReport) -> list[tuple[int | None, Method, str]]:
    """Return (place, method, config text) of each stage that trains; a config has no place."""
    from typing import cast

    from rdagent_ft.recipe.catalogue import trl_method
    from rdagent_ft.recipe.documents import read_document
    from rdagent_ft.recipe.parse import load_recipe
    from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage

    text = file.read_text(encoding="utf-8")
    if report.kind == "trainer":
        return [(None, cast("Method", report.stage or "sft"), text)]
    recipe = load_recipe(read_document(text, file.name).values)
    paths = StagePaths(
        model=Path("model"),
        train_file=Path("train.jsonl"),
        output_dir=Path("output"),
        teacher=Path("teacher"),
    )
    # A GPU is assumed, so that what only a GPU can do is rendered as well; the parser needs none.
    facts = RenderFacts(device="cuda")
    return [
        (place, trl_method(stage.kind), render_stage(recipe, place, paths=paths, facts=facts).text)
        for place, stage in recipe.trained_stages
    ]


def _print(file: Path, report: ValidationReport, problems: tuple[Problem, ...], fixed: str | None) -> None:
    kind = (
        "recipe"
        if report.kind == "recipe"
        else " ".join(filter(None, (report.trainer, report.stage, "config")))
    )
    if fixed:
        for change in report.changes:
            print(f"fixed: {change}")
        print(f"{fixed} was rewritten; the original is {file.name}.orig")
    if problems:
        print(f"{file}: {kind} with {len(problems)} problem(s)")
    else:
        print(f"{file}: {kind} is clean")
    for problem in problems:
        print(f"  - {problem.render()}")
    for note in report.notes:
        print(f"note: {note}")
    if problems and report.fixed_text is not None and not fixed:
        print("--fix would: " + "; ".join(report.changes))
