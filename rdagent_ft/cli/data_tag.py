"""`rdagent-ft data tag`: columns of tags that an LLM chooses, for a data mix to select and weigh by."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from rdagent_ft.cli.data_files import Columns, Name
from rdagent_ft.cli.options import AsJson, EnvFile, MaxCost

if TYPE_CHECKING:
    from rdagent_ft.engine.tag_checks import Findings
    from rdagent_ft.engine.tagging import TagReport

T = TypeVar("T")


def tag(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="New file, in the format that the dataset has.")],
    taxonomy: Annotated[
        Path,
        typer.Option(
            "--taxonomy",
            help="What may be chosen: a list of tags, or columns with lists, as .yaml or .json; or .txt with "
            "one tag a line.",
        ),
    ],
    column: Annotated[
        str | None, typer.Option("--column", help="Column for a plain list of tags; `tag` without it.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Tag and write so many rows, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides which rows --limit draws.")] = 42,
    columns: Columns = None,
    max_cost: MaxCost = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset with tags that the model of FT_TEACHER_MODEL chooses for every row.

    Answers are kept and never paid twice: after a stop the same command asks for the rest.
    """
    import json
    import os

    from rdagent_ft.cli.columns_option import parse_columns
    from rdagent_ft.data.resolve import resolve_dataset
    from rdagent_ft.data.taxonomy_file import read_taxonomy
    from rdagent_ft.engine.tag_checks import check_out, raise_together, teacher_errors
    from rdagent_ft.engine.tagging import check_dataset, tag_dataset
    from rdagent_ft.settings_sources import load_settings, unknown_variable_notes
    from rdagent_ft.values import sha256_file

    loaded = load_settings({"max_cost": max_cost}, env_file=env_file)
    settings = loaded.settings
    for line in unknown_variable_notes(loaded.unknown):
        _note(f"warning: {line}")
    found: Findings = []
    mapped = _tried("--columns", lambda: parse_columns(columns), found)
    choices = _tried("--taxonomy", lambda: read_taxonomy(taxonomy, column), found)
    source = _tried("FILE|NAME", lambda: resolve_dataset(name, settings.file_path), found)
    _tried("--out", lambda: check_out(out, name, source, settings.file_path), found)
    found += [("FT_TEACHER_MODEL", error) for error in teacher_errors(settings, os.environ)]
    if found and source is not None and choices is not None:
        _tried("FILE|NAME", lambda: check_dataset(source, choices, mapped), found)
    raise_together(found)
    assert source is not None
    assert choices is not None
    with _stoppable():
        report = tag_dataset(source, out, choices, settings, _note, columns=mapped, limit=limit, seed=seed)
    document: dict[str, Any] = {
        "schema_version": 1,
        "dataset": {"name": name, "revision": source.revision},
        "out": {"file": str(out), "n_bytes": out.stat().st_size, "sha256": sha256_file(out)},
        **report.model_dump(mode="json"),
    }
    if as_json:
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(_lines(report, out)))


def _tried(key: str, step: Callable[[], T], found: Findings) -> T | None:
    """Return the step's result; what is wrong goes to `found`, so that it is told with the rest."""
    from rdagent_ft.errors import RdagentFtError

    try:
        return step()
    except RdagentFtError as error:
        found.append((key, error))
        return None


@contextmanager
def _stoppable() -> Generator[None]:
    """SIGINT and SIGTERM end the asking cleanly (exit code 130 or 143), a second one at once."""
    import signal

    codes: list[int] = []

    def stop(number: int, _frame: object) -> None:
        codes.append(128 + number)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        _note("stopping; waiting for the requests in flight, which are paid; once more to kill")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(codes[0] if codes else 130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(line: str) -> None:
    import sys

    print(line, file=sys.stderr, flush=True)


def _lines(report: TagReport, out: Path) -> Generator[str]:
    """Yield the report for people."""
    yield f"{report.n_tagged:,} of {report.n_records:,} rows tagged by {report.model}: {out}"
    for name, values in report.counts.items():
        yield f"  {name}: " + ", ".join(f"{value} {count:,}" for value, count in values.items())
    for reason, count in report.untagged.items():
        yield f"  without a tag {count:,}: {reason} ({', '.join(report.places[reason])})"
    for reason, count in report.left_out.items():
        yield f"  left out {count:,}: {reason}"
    yield f"paid now: {report.usd:.4f} $; {report.n_cached:,} answers were paid before"
